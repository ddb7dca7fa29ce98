"""Recordings of speakers that no training of a study hears, with what is said in each frame where that is known.

N samples   T frames of 20 ms
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from slm.data.splits import HELD_OUT
from slm.errors import SlmError

HOP = 320  # samples at 16 kHz in a frame of the labels


@dataclass
class Item:
    id: str
    speaker: str
    text: str
    audio: Tensor  # [1,N] at 16 kHz
    phones: np.ndarray  # [T] class of each frame; -1 where nothing is known
    sex: str | None = None  # "f" or "m" where the corpus says so


def heldout(data: Path, longest: float = 16.0) -> list[Item]:
    """The held-out speakers of DATA/train and everyone of DATA/dev, where there is one. SlmError if there is neither."""
    from rich.console import Console
    from rich.progress import track

    from slm.data import audio
    from slm.data import cuts as cut_files
    from slm.data.aligned import frame_classes, read_phones

    found = []
    for folder, speakers in ((data / "train", HELD_OUT), (data / "dev", None)):
        if not (folder / "cuts.jsonl.gz").exists():
            continue
        phones = read_phones(folder) if (folder / "phones.jsonl").exists() else {}
        cuts = [c for c in cut_files.load(folder) if speakers is None or cut_files.speaker_of(c) in speakers]
        for cut in track(cuts, f"Reading {folder}", console=Console(stderr=True), transient=True):
            if cut.duration > longest:
                continue
            samples, rate = cut_files.audio_of(cut)
            samples = audio.resample(samples, rate, 16000)
            labels = np.array(frame_classes(phones.get(cut.id, ()), -(-samples.shape[-1] // HOP)), np.int64)
            who = cut_files.speaker_of(cut) or cut.id
            found.append(Item(cut.id, who, cut_files.text_of(cut), samples, labels, cut.supervisions[0].gender))
    if not found:
        raise SlmError(f"{data} holds no held-out speech: it needs {data}/dev or held-out speakers in {data}/train (see slm.data.splits)")
    return found


def following(count: int, i: int, wanted: Callable[[int], bool]) -> int:
    """The first of `count` places behind the i-th, in a circle, that is wanted."""
    return next(j for j in ((i + 1 + k) % count for k in range(count)) if wanted(j))


def phone_counts(items: list[Item], codes: list[Tensor], card: int) -> np.ndarray:
    """codes of each item [T] at 50 a second (a frame more or less at the end) -> counts [n,P,K] of frames whose phone is known."""
    from slm_tokenizers.text.align import CLASSES

    counts = np.zeros((len(items), len(CLASSES), card), np.float32)
    for i, (item, code) in enumerate(zip(items, codes)):
        T = min(len(item.phones), len(code))
        known = item.phones[:T] >= 0
        np.add.at(counts[i], (item.phones[:T][known], code[:T].numpy()[known]), 1)
    return counts
