"""Codes with a label a frame or a row: what tells one backbone from another.

    "sex"      a crop of one recording, the sex of who speaks      labels [B]
    "phones"   recordings one after another, the phone of each frame      labels [B,T]
    "next"     recordings one after another, the next code of the first level      labels [B,T]

B batch   Q levels   T frames
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slm.errors import SlmError

SEXES = ("f", "m")
TASKS = ("sex", "phones", "next")


@dataclass
class Clip:
    codes: Tensor  # [Q,T]
    phones: Tensor  # [T], -1 where nothing is known
    sex: str | None


@dataclass
class Tagged:
    """Config: `batch` rows of `frames` frames for `task`, from prepared folders; see `slm align` for phones."""

    task: str = "phones"
    frames: int = 1000
    batch: int = 4
    levels: int = 8  # the first levels of the codes
    folders: tuple[str, ...] = ("data/train",)
    held_out: tuple[str, ...] = ()
    cache: str = "data/codes"
    codec: str = "acoustic"
    seed: int = 0

    def build(self, tokenizers: dict[str, Any]) -> "TaggedRows":
        codec = tokenizers[self.codec]
        return TaggedRows(self, [clip for folder in self.folders for clip in self.read(Path(folder), codec)])

    def read(self, folder: Path, codec: Any) -> list[Clip]:
        from slm.data import cuts as cut_files
        from slm.data.aligned import frame_classes, read_phones
        from slm.data.cache import codes_of

        cuts = [cut for cut in cut_files.load(folder) if cut_files.speaker_of(cut) not in self.held_out]
        phones = read_phones(folder) if (folder / "phones.jsonl").exists() else {}
        found = codes_of(cuts, codec, self.cache)
        heard = [(cut, found[cut.id][: self.levels]) for cut in cuts if cut.id in found]
        return [clip(codes, frame_classes(phones.get(cut.id, ()), codes.shape[1]), cut.supervisions[0].gender) for cut, codes in heard]


@dataclass
class MadeUpTagged:
    """Config: the same rows from codes that are drawn, where a phone is its first code modulo 40 and women have small second codes."""

    of: Tagged

    def build(self, tokenizers: dict[str, Any]) -> "TaggedRows":
        draw = np.random.default_rng(0)
        codes = [torch.from_numpy(draw.integers(0, 1024, (self.of.levels, 200))) for _ in range(8)]
        for i, code in enumerate(codes):
            code[1:2] = code[1:2] % 512 + 512 * (i % 2)
        return TaggedRows(self.of, [clip(code, (code[0] % 40).tolist(), SEXES[i % 2]) for i, code in enumerate(codes)])


def clip(codes: Tensor, phones: list[int], sex: str | None) -> Clip:
    """codes [Q,T] with the phone of each frame"""
    return Clip(codes, torch.tensor(phones), sex)


class TaggedRows:
    """`at(step)` -> codes [B,Q,T], labels [B,T] or [B]; a function of (seed, step). SlmError if no clip suits the task."""

    def __init__(self, config: Tagged, clips: list[Clip]) -> None:
        if config.task not in TASKS:
            raise SlmError(f"task is {config.task!r} but must be one of {', '.join(TASKS)}")
        self.config, self.clips = config, clips
        if config.task == "sex":
            self.clips = [c for c in clips if c.sex in SEXES and c.codes.shape[1] >= config.frames]
            self.by_sex = [[c for c in self.clips if c.sex == sex] for sex in SEXES]
        elif config.task == "phones":
            self.clips = [c for c in clips if (c.phones >= 0).any()]
        if not self.clips or (config.task == "sex" and not all(self.by_sex)):
            raise SlmError(f"no recording of {', '.join(config.folders)} suits the task {config.task!r}")

    def at(self, step: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
        c = self.config
        rows = []
        for row in range(c.batch):
            draw = np.random.default_rng([c.seed, step, rank * c.batch + row])
            rows.append(self.crop(draw, row % 2) if c.task == "sex" else self.joined(draw))
        codes, labels = (torch.stack(column) for column in zip(*rows))
        return {"codes": codes, "labels": labels}

    def crop(self, draw: np.random.Generator, sex: int) -> tuple[Tensor, Tensor]:
        """Women and men in turn, however many the corpus has of each."""
        clip = self.by_sex[sex][draw.integers(len(self.by_sex[sex]))]
        start = int(draw.integers(clip.codes.shape[1] - self.config.frames + 1))
        return clip.codes[:, start : start + self.config.frames], torch.tensor(sex)

    def joined(self, draw: np.random.Generator) -> tuple[Tensor, Tensor]:
        found: list[Clip] = []
        while sum(c.codes.shape[1] for c in found) <= self.config.frames:
            found.append(self.clips[draw.integers(len(self.clips))])
        return labelled(found, self.config)


def labelled(clips: list[Clip], c: Tagged) -> tuple[Tensor, Tensor]:
    """Clips of more than `frames` frames in all -> codes [Q,T] and labels [T] of the first of them."""
    codes = torch.cat([clip.codes for clip in clips], 1)
    if c.task == "next":
        return codes[:, : c.frames], codes[0, 1 : c.frames + 1]
    return codes[:, : c.frames], torch.cat([clip.phones for clip in clips])[: c.frames]


def held_rows(clips: list[Clip], c: Tagged) -> list[tuple[Tensor, Tensor]]:
    """Every clip once, in order: crops of `frames` frames, or rows of that many; what is left at the end is left out."""
    if c.task == "sex":
        known = [clip for clip in clips if clip.sex in SEXES]
        return [
            (clip.codes[:, start : start + c.frames], torch.tensor(SEXES.index(clip.sex)))
            for clip in known
            for start in range(0, clip.codes.shape[1] - c.frames + 1, c.frames)
        ]
    rows, waiting = [], []
    for clip in clips:
        waiting.append(clip)
        if sum(w.codes.shape[1] for w in waiting) > c.frames:
            rows.append(labelled(waiting, c))
            waiting = []
    return rows
