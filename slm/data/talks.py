"""Rendered dialogues as rows of text and units: what was asked and what was replied, in one voice (`slm render dialogues`).

    L bytes   U units

asked, replied [U]   asked_text, replied_text [L]
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from slm.config import LATER
from slm.data.spoken import told
from slm.errors import SlmError

Talk = dict[str, Tensor]


@dataclass
class Talks:
    """Config: `batch` dialogues. swap: a recording is as good as another, so questions are replies too.

    held_out: voices that are not heard. codec: the tokenizer whose first level the units are. collapsed: whether they lose repetitions.
    """

    folder: str = "data/dialogues"
    batch: int = 16
    swap: bool = False
    held_out: tuple[str, ...] = ()
    cache: str = "data/codes"
    codec: str = "acoustic"
    seed: int = 0
    collapsed: bool = field(default=True, metadata=LATER)

    def build(self, tokenizers: dict[str, Any]) -> "TalkRows":
        voices = read(self, tokenizers)
        return TalkRows(self, [talk for voice, talks in voices.items() if voice not in self.held_out for talk in talks])


@dataclass
class MadeUpTalks:
    """Config: the same rows from made-up speech."""

    of: Talks

    def build(self, tokenizers: dict[str, Any]) -> "TalkRows":
        from slm.data.madeup import utterance

        units, talks = tokenizers[self.of.codec], []
        for row in range(6):
            sounds = [units.encode(utterance(turn, row, 6, 40, 320, units.rate)[2][None])[0] for turn in range(2)]
            talks.append(talk(tokenizers["text"], ("what is it", "it is so"), sounds, self.of.collapsed))
        return TalkRows(self.of, talks)


def read(c: Talks, tokenizers: dict[str, Any]) -> dict[str, list[Talk]]:
    """voice -> its dialogues. SlmError if there is none."""
    from slm.data import cuts as cut_files
    from slm.data.cache import codes_of

    cuts = {cut.id: cut for cut in cut_files.load(c.folder)}
    codes = codes_of(cuts.values(), tokenizers[c.codec], c.cache)
    voices: dict[str, list[Talk]] = {}
    for name, asked in cuts.items():
        replied = cuts.get(name.replace("-asked", "-replied"))
        if replied is None or replied is asked:
            continue
        turns = [codes.get(cut.id) for cut in (asked, replied)]
        if all(turn is not None for turn in turns):
            texts = (cut_files.text_of(asked), cut_files.text_of(replied))
            voices.setdefault(cut_files.speaker_of(asked), []).append(talk(tokenizers["text"], texts, turns, c.collapsed))
    if not voices:
        raise SlmError(f"{c.folder} holds no dialogues: slm render dialogues {c.folder}")
    return voices


def talk(text: Any, texts: tuple[str, str], codes: list[Tensor], collapsed: bool = True) -> Talk:
    """Texts and codes [Q,T] of both turns -> a row."""
    row = {name: told(turn[:1], collapsed) for name, turn in zip(("asked", "replied"), codes)}
    return row | {f"{name}_text": text.encode(said) for name, said in zip(("asked", "replied"), texts)}


class TalkRows:
    """`at(step)` -> a list of rows for each of asked, replied and their texts; a function of (seed, step)."""

    def __init__(self, config: Talks, talks: list[Talk]) -> None:
        if not talks:
            raise SlmError(f"no voice of {config.folder} is left")
        self.config, self.talks = config, talks

    def at(self, step: int, rank: int = 0, world: int = 1) -> dict[str, list[Tensor]]:
        draw = np.random.default_rng([self.config.seed, step * world + rank])
        rows = [self.talks[i] for i in draw.integers(len(self.talks), size=self.config.batch)]
        if self.config.swap:
            rows = [turned(row) if draw.random() < 0.5 else row for row in rows]
        return {name: [row[name] for row in rows] for name in rows[0]}


def turned(row: Talk) -> Talk:
    """The reply in the question's place, for tasks that hear or say one recording."""
    return {"asked": row["replied"], "replied": row["asked"], "asked_text": row["replied_text"], "replied_text": row["asked_text"]}
