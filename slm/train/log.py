"""What a run shows: a progress bar, a line of JSON a step, TensorBoard curves, sounds and spectrograms."""

from __future__ import annotations

import json
from pathlib import Path

import torch


class Log:
    def __init__(self, out: Path, start: int, steps: int, quiet: bool) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.quiet, self.writer, self.lines = quiet, None, None
        if quiet:
            return
        out = Path(out)
        out.mkdir(parents=True, exist_ok=True)
        self._rewind(out / "losses.jsonl", start)
        self.lines = open(out / "losses.jsonl", "a", buffering=1)
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(out / "log"), purge_step=start)
        self.bar = Progress(BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
        self.task = self.bar.add_task("", total=steps, completed=start)
        self.bar.start()

    @staticmethod
    def _rewind(path: Path, start: int) -> None:
        """Drop the lines of steps that a killed run made after its last checkpoint."""
        if path.exists():
            kept = [line for line in path.read_text().splitlines() if line and json.loads(line)["step"] < start]
            path.write_text("".join(line + "\n" for line in kept))

    def step(self, step: int, losses: dict[str, float], lr: float, seconds: float) -> None:
        if self.quiet:
            return
        self.lines.write(json.dumps({"step": step, **losses, "lr": lr, "seconds": round(seconds, 4)}) + "\n")
        for key, value in losses.items():
            self.writer.add_scalar(key, value, step)
        shown = "  ".join(f"{k} {v:.3f}" for k, v in losses.items())
        self.bar.update(self.task, advance=1, description=f"{shown}  {seconds:.2f} s")

    def show(self, step: int, sounds: dict[str, tuple[torch.Tensor, int]]) -> None:
        """sounds: name -> (audio [N], rate)"""
        if self.quiet:
            return
        for name, (audio, rate) in sounds.items():
            self.writer.add_audio(name, audio.float().clamp(-1, 1), step, sample_rate=rate)
            self.writer.add_image(f"{name}/spectrogram", spectrogram(audio.float()), step, dataformats="HW")

    def close(self) -> None:
        if not self.quiet:
            self.bar.stop()
            self.writer.close()
            self.lines.close()


def spectrogram(audio: torch.Tensor, n_fft: int = 1024, hop: int = 256) -> torch.Tensor:
    """audio [N] -> picture [n_fft/2+1, frames] in 0..1, low frequencies at the bottom, 80 dB of range."""
    spectrum = torch.stft(audio, n_fft, hop, window=torch.hann_window(n_fft), return_complex=True).abs()
    db = 20 * torch.log10(spectrum.clamp_min(1e-5))
    return ((db - db.max() + 80) / 80).clamp(0, 1).flip(0)
