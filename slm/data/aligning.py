"""`slm align`: when each phone of a prepared corpus is said, at 50 frames a second.

    T frames   M features a frame (two mel frames of 60 bands)

Writes FOLDER/phones.jsonl, {"id", "phones": [[symbol, frames], …]} a line. All folders are aligned together by one frame
classifier that is learned on them (slm_tokenizers/text/align.py); a recogniser's spikes, when there are any, start it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from slm.data.replacing import replacing
from slm.errors import SlmError

RATE, HOP = 16000, 320
ROUNDS = ((3, 1e-3), (3, 7e-4), (2, 3e-4))  # epochs, learning rate


def align_folders(folders: list[Path], spikes: list[Path] = (), seed: int = 0) -> int:
    """Align every cut with a text; those that cannot hold their phones are left out. Returns how many were aligned."""
    from rich.console import Console
    from rich.progress import track

    from slm_tokenizers.text.align import CLASS, CLASSES, FrameClassifier, align, learn, plain

    console = Console(stderr=True)
    torch.manual_seed(seed)
    heard = _spikes(spikes)
    rows, features, labels = [], [], []
    for folder in map(Path, folders):
        for cut in track(list(_cuts(folder)), f"Reading {folder}", console=console):
            row = _row(cut, heard)
            if row is not None:
                rows.append((folder, cut.id, row[0]))
                features.append(row[1])
                labels.append(row[2])
    if not rows:
        raise SlmError(f"no clip of {', '.join(map(str, folders))} has a text to align")
    model = FrameClassifier(features[0].shape[1])
    for turn, (epochs, lr) in enumerate(ROUNDS):
        loss = learn(model, features, labels, epochs, lr, seed + turn)
        counts = np.bincount(torch.cat(labels).numpy(), minlength=len(CLASSES)) + 1
        prior = np.log(counts / counts.sum())
        aligned = [
            align(model, f, words, prior) for f, (_, _, words) in track(list(zip(features, rows)), f"Round {turn + 1}", console=console)
        ]
        fresh = [torch.tensor([CLASS[plain(p.symbol)] for p in phones for _ in range(p.frames)]) for phones in aligned]
        moved = float(np.mean([(a != b).float().mean() for a, b in zip(fresh, labels)]))
        console.print(f"round {turn + 1}: loss {loss:.3f}, {100 * moved:.1f} % of frames moved")
        labels = fresh
    for folder in dict.fromkeys(folder for folder, _, _ in rows):
        lines = [
            json.dumps({"id": id, "phones": [[p.symbol, p.frames] for p in phones]})
            for (f, id, _), phones in zip(rows, aligned)
            if f == folder
        ]
        with replacing(folder / "phones.jsonl") as temporary:
            temporary.write_text("\n".join(lines) + "\n")
    return len(rows)


def _cuts(folder: Path):
    from slm.data import cuts as cut_files

    return cut_files.load(folder)


def _row(cut, heard: dict[str, list]) -> tuple[list, Tensor, Tensor] | None:
    """words, features [T,M] and first labels [T] of a cut, or None if it has no usable text."""
    from slm.data import audio
    from slm.data import cuts as cut_files
    from slm_tokenizers.text.align import rough, states
    from slm_tokenizers.text.phonemes import Phonemes

    try:
        words = Phonemes().words(cut_files.text_of(cut))
        samples, rate = cut_files.audio_of(cut)
    except SlmError:
        return None
    samples = audio.resample(samples, rate, RATE)[0]
    frames = -(-len(samples) // HOP)
    symbols, optional = states(words)
    if (~optional).sum() >= frames:
        return None
    features, loud = _features(samples, frames)
    spikes = [(p, min(t, frames - 1)) for p, t in heard.get(Path(cut.recording.sources[0].source).stem, [])]
    return words, features.half(), torch.from_numpy(rough(symbols, optional, spikes, frames, loud.numpy()))


def _features(samples: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """Mean-free log-mel [T,M] and which frames are not silent [T]."""
    import torchaudio

    if not hasattr(_features, "mel"):
        _features.mel = torchaudio.transforms.MelSpectrogram(RATE, n_fft=640, hop_length=HOP // 2, n_mels=60, power=1.0)
    padded = torch.nn.functional.pad(samples, (0, frames * HOP - len(samples)))
    mel = torch.log(_features.mel(padded)[:, : 2 * frames] + 1e-3)
    energy = mel.mean(0).reshape(frames, 2).mean(1)
    return (mel - mel.mean(1, keepdim=True)).t().reshape(frames, -1), energy > torch.quantile(energy, 0.98) - 3.2


def _spikes(paths: list[Path]) -> dict[str, list]:
    """Stem of an audio file -> [(phone, frame), …] from JSON lines with `path` and `spikes`."""
    heard: dict[str, list] = {}
    for path in paths:
        try:
            for row in map(json.loads, Path(path).read_text().splitlines()):
                heard[Path(row["path"]).stem] = row["spikes"]
        except (OSError, ValueError, KeyError):
            raise SlmError(f"{path} is not a file of phone spikes (JSON lines with path and spikes)") from None
    return heard
