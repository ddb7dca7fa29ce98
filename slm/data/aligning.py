"""`slm align`: when each phone of a prepared corpus is said, at 50 frames a second.

    T frames   M features a frame (two mel frames of 60 bands)

Writes FOLDER/phones.jsonl, {"id", "phones": [[symbol, frames], …]} a line. All folders are aligned together by one aligner that is
learned on them (slm_tokenizers/text/aligner.py); a recogniser's spikes, when there are any, start it. It is kept as aligner/ beside the
first folder: data/train and data/synthetic leave data/aligner. A corpus that comes later may be aligned by that one as it is.
"""

from __future__ import annotations

import json
from os.path import abspath
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from slm.data.replacing import replacing
from slm.errors import SlmError

if TYPE_CHECKING:
    from slm_tokenizers.text.align import Phone
    from slm_tokenizers.text.aligner import Aligner

Words = list[tuple[str, list[str]]]
ROUNDS = ((3, 1e-3), (3, 7e-4), (2, 3e-4))  # epochs, learning rate


def align_folders(folders: list[Path], spikes: list[Path] = (), seed: int = 0, by: Path | None = None) -> int:
    """Align every cut with a text; those that cannot hold their phones are left out. Returns how many were aligned.

    by: the folder of an aligner that has learned already; nothing is learned then. SlmError if it is none, or no clip has a text.
    """
    from rich.console import Console
    from rich.progress import track

    from slm_tokenizers import stored
    from slm_tokenizers.text.aligner import Aligner

    console = Console(stderr=True)
    torch.manual_seed(seed)
    aligner = Aligner.Config().build() if by is None else known(by)
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
    words = [words for _, _, words in rows]
    if by is None:
        aligned = fit(aligner, features, words, labels, seed)
    else:
        aligned = [aligner.phones(f, w) for f, w in track(list(zip(features, words)), "Aligning", console=console)]
    for folder in dict.fromkeys(folder for folder, _, _ in rows):
        lines = [
            json.dumps({"id": id, "phones": [[p.symbol, p.frames] for p in phones]})
            for (f, id, _), phones in zip(rows, aligned)
            if f == folder
        ]
        with replacing(folder / "phones.jsonl") as temporary:
            temporary.write_text("\n".join(lines) + "\n")
    if by is None:
        stored.save(aligner, Path(abspath(folders[0])).parent / "aligner", exact=True)
    return len(rows)


def known(folder: Path) -> "Aligner":
    """What an earlier `slm align` left. SlmError if FOLDER is no aligner."""
    from slm_tokenizers import stored
    from slm_tokenizers.text.aligner import Aligner

    aligner = stored.load(folder)
    if not isinstance(aligner, Aligner):
        raise SlmError(f"{folder} holds a {type(aligner).__name__} and no aligner; `slm align` leaves one beside its first folder")
    return aligner


def fit(
    aligner: "Aligner", features: list[Tensor], words: list[Words], labels: list[Tensor], seed: int = 0, rounds: tuple = ROUNDS
) -> list[list["Phone"]]:
    """Learn the classes `labels` [T] of each recording, align it by what was learned, and again. -> the phones of the last round"""
    from rich.console import Console
    from rich.progress import track

    from slm_tokenizers.text.align import CLASS, CLASSES, learn, plain

    console = Console(stderr=True)
    for turn, (epochs, lr) in enumerate(rounds):
        loss = learn(aligner.classifier, features, labels, epochs, lr, seed + turn)
        counts = np.bincount(torch.cat(labels).numpy(), minlength=len(CLASSES)) + 1
        aligner.prior.copy_(torch.from_numpy(np.log(counts / counts.sum())))
        aligned = [aligner.phones(f, w) for f, w in track(list(zip(features, words)), f"Round {turn + 1}", console=console)]
        fresh = [torch.tensor([CLASS[plain(p.symbol)] for p in phones for _ in range(p.frames)]) for phones in aligned]
        moved = float(np.mean([(a != b).float().mean() for a, b in zip(fresh, labels)]))
        console.print(f"round {turn + 1}: loss {loss:.3f}, {100 * moved:.1f} % of frames moved")
        labels = fresh
    return aligned


def _cuts(folder: Path):
    from slm.data import cuts as cut_files

    return cut_files.load(folder)


def _row(cut, heard: dict[str, list]) -> tuple[Words, Tensor, Tensor] | None:
    """words, features [T,M] and first labels [T] of a cut, or None if it has no usable text."""
    from slm.data import audio
    from slm.data import cuts as cut_files
    from slm_tokenizers.text.align import rough, states
    from slm_tokenizers.text.aligner import RATE, features, fits
    from slm_tokenizers.text.phonemes import Phonemes

    try:
        words = Phonemes().words(cut_files.text_of(cut))
        samples, rate = cut_files.audio_of(cut)
    except SlmError:
        return None
    found, loud = features(audio.resample(samples, rate, RATE)[0])
    if not fits(words, len(found)):
        return None
    spikes = [(p, min(t, len(found) - 1)) for p, t in heard.get(Path(cut.recording.sources[0].source).stem, [])]
    return words, found, torch.from_numpy(rough(*states(words), spikes, len(found), loud.numpy()))


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
