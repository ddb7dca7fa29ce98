"""`slm tokenizers`: codecs side by side, and how near their reconstruction comes to a recording.

B batch   N samples   Q levels   T frames
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slm.codes import BUNDLED, load_tokenizer
from slm.errors import SlmError

PROMPT = Path(__file__).parent / "models" / "default" / "voice.flac"
SHOWN = {"log-mel L1": "mel distance", "STOI": "STOI", "PESQ": "PESQ", "SI-SNR dB": "SI-SNR dB"}


@dataclass
class Row:
    """What a tokenizer is; `measured` is the mean over recordings, empty for a shape without weights."""

    name: str
    rate: int  # Hz
    frames: float  # a second
    levels: int
    card: int
    parameters: float  # millions
    causal: bool
    measured: dict[str, float] = field(default_factory=dict)

    @property
    def kbps(self) -> float:
        return self.frames * self.levels * math.log2(self.card) / 1000


def describe(name: str, tokenizer: Any) -> Row:
    parameters = sum(p.numel() for p in tokenizer.parameters()) / 1e6
    causal = bool(getattr(tokenizer.config, "causal", getattr(tokenizer, "causal", False)))
    frames = tokenizer.rate / tokenizer.hop
    return Row(name, tokenizer.rate, frames, tokenizer.n_q, tokenizer.card, parameters, causal)


def published() -> list[Row]:
    """The published models as shapes; their weights are loaded by path."""
    import torch

    from slm_tokenizers import dac, encodec, mimi, soundstream, speechtokenizer

    shapes = {
        "EnCodec 24 kHz": encodec.Encodec.Config(),
        "EnCodec 48 kHz, stereo": encodec.stereo_48khz(),
        "SoundStream": soundstream.SoundStream.Config(),
        "SpeechTokenizer": speechtokenizer.SpeechTokenizer.Config(),
        "DAC 44 kHz": dac.DAC.Config(),
        "DAC 16 kHz": dac.khz16(),
        "Mimi": mimi.Mimi.Config(),
    }
    with torch.device("meta"):  # shapes alone: nothing is drawn, nothing is stored
        return [describe(name, config.build()) for name, config in shapes.items()]


def measure(tokenizer: Any, recordings: Sequence[Path]) -> dict[str, float]:
    """Distances between recordings and their reconstructions, at the tokenizer's rate, each a mean over the recordings."""
    import torch

    from slm.data import audio
    from slm.evaluate.codec import codec_measures

    found: dict[str, list[float]] = {}
    for path in recordings:
        samples, rate = audio.read(path, shortest=0.0)
        heard = audio.resample(samples, rate, tokenizer.rate)  # [1,N]
        channels = getattr(tokenizer, "channels", 1)
        with torch.inference_mode():
            rebuilt = tokenizer.decode(tokenizer.encode(heard[None].expand(1, channels, -1)), heard.shape[-1])
        for name, value in codec_measures(heard[0].numpy(), rebuilt[0].mean(0).numpy(), tokenizer.rate).items():
            found.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}


def table(paths: Sequence[str] = (), recordings: Sequence[Path] = ()) -> tuple[list[Row], int]:
    """Rows of the bundled tokenizers, of those at `paths`, and of the published shapes; and how many recordings were measured.

    recordings: files or folders of audio; by default the bundled prompt. SlmError if one holds no audio, or a path no codec.
    """
    from rich.console import Console
    from rich.progress import track

    files = audio_files(recordings or [PROMPT])
    loaded = {name: load_tokenizer(name) for name in (*BUNDLED, *paths)}
    if silent := [name for name, tokenizer in loaded.items() if not hasattr(tokenizer, "decode")]:
        raise SlmError(f"{silent[0]} makes codes but no audio of them; there is nothing to measure")
    rows = []
    for name, tokenizer in track(loaded.items(), "Measuring", console=Console(stderr=True), transient=True):
        rows.append(describe(name, tokenizer))
        rows[-1].measured = measure(tokenizer, files)
    return rows + published(), len(files)


def audio_files(places: Sequence[Path]) -> list[Path]:
    from slm.data.corpus import audio_below

    files: list[Path] = []
    for place in map(Path, places):
        found = audio_below(place) if place.is_dir() else [place]
        if not found:
            raise SlmError(f"{place} holds no audio")
        files += found
    return files


def show(rows: Sequence[Row], recordings: int) -> None:
    """Print the table; a shape without weights has no distances."""
    from rich.console import Console
    from rich.table import Table

    names = [name for name in SHOWN if any(name in row.measured for row in rows)]
    out = Table(caption=f"mean over {recordings} recording{'s' * (recordings != 1)}; - is a shape whose weights are loaded by their path")
    for heading in ("tokenizer", "Hz", "frames/s", "codebooks", "kbit/s", "M parameters", "causal", *(SHOWN[n] for n in names)):
        out.add_column(heading, justify="left" if heading == "tokenizer" else "right", overflow="fold")
    for row in rows:
        measured = (f"{row.measured[n]:.2f}" if n in row.measured else "-" for n in names)
        books = f"{row.levels} x {row.card}"
        facts = (f"{row.frames:g}", books, f"{row.kbps:.2f}", f"{row.parameters:.1f}", "yes" if row.causal else "no")
        out.add_row(row.name, str(row.rate), *facts, *measured)
    Console(width=140).print(out)
