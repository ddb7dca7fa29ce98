"""Crops of speech with what is said in each frame: the data of a codec that is taught.

    B rows   N samples   T = N / hop frames   Q levels   D latent width

Crops start on frame borders, so that labels and codes count the same frames. Speech without alignments is labelled -1. A file that
cannot be read is left out with one warning, as in crops.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slm.data.aligned import frame_classes, read_phones
from slm.data.audio import FULL
from slm.data.batch import coded
from slm.errors import SlmError


@dataclass
class Sounds:
    """Config: `batch` crops of `seconds` from prepared folders; loudness varies over `gain` dB."""

    folders: tuple[str, ...] = ("data/train", "data/synthetic", "data/more")
    rate: int = 16000
    hop: int = 320
    seconds: float = 1.0
    batch: int = 16
    gain: tuple[float, float] = (-6.0, 3.0)
    seed: int = 0
    held_out: tuple[str, ...] = ()
    codec: str = ""  # the tokenizer whose codes of the crops are wanted too, and their vectors if it has any

    def build(self, tokenizers: dict[str, Any]) -> "SoundCrops":
        return SoundCrops(self, tokenizers[self.codec] if self.codec else None)


class SoundCrops:
    """`at(step)` -> audio [B,1,N], teacher [B,T] phone classes or -1; a function of (seed, step).

    With a codec also its codes [B,Q,T] and, where it has codebooks, the latent [B,T,D] that they stand for.
    """

    def __init__(self, config: Sounds, codec: Any = None) -> None:
        from rich.progress import track

        from slm.data import cuts as cut_files

        self.config, self.codec = config, codec
        self.frames = round(config.seconds * config.rate / config.hop)
        self.clips: list[tuple[np.ndarray, np.ndarray]] = []  # samples int16, labels int16
        for folder in map(Path, config.folders):
            phones = read_phones(folder) if (folder / "phones.jsonl").exists() else {}
            for cut in track(list(cut_files.load(folder)), f"Reading {folder}"):
                if cut_files.speaker_of(cut) in config.held_out:
                    continue
                clip = cut_files.clip_of(cut, config.rate)
                frames = 0 if clip is None else len(clip) // config.hop
                if frames <= self.frames:
                    continue
                self.clips.append((clip, np.array(frame_classes(phones.get(cut.id, ()), frames), np.int16)))
        if not self.clips:
            raise SlmError(f"no clip of {', '.join(config.folders)} is longer than {config.seconds} s")
        self.ends = np.cumsum([len(labels) for _, labels in self.clips])

    def at(self, step: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
        draw = np.random.default_rng([self.config.seed, step * world + rank])
        rows = [self._row(draw) for _ in range(self.config.batch)]
        audio, labels = (np.stack(column) for column in zip(*rows))
        batch = {"audio": torch.from_numpy(audio)[:, None], "teacher": torch.from_numpy(labels).long()}
        return batch if self.codec is None else coded(batch, self.codec)

    def _row(self, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        clip, labels = self.clips[int(np.searchsorted(self.ends, draw.integers(self.ends[-1]), side="right"))]
        at = int(draw.integers(len(labels) - self.frames))
        hop = self.config.hop
        samples = clip[at * hop : (at + self.frames) * hop].astype(np.float32) / FULL
        loudest = max(1e-3, float(np.abs(samples).max()))
        return samples * min(10 ** (draw.uniform(*self.config.gain) / 20), 0.98 / loudest), labels[at : at + self.frames]
