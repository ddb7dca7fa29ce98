"""Examples in which a voice goes on: another utterance of the speaker, then the one to be said, as one. That is VALL-E's prompt.

    L phones   T frames   P prompt frames   Q levels

A language model that has learned such rows goes on in the voice that it is given the beginning of. Batches are a function
of (seed, step) alone. A speaker with one utterance lends its beginning; phones are never cut.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slm.data.aligned import Aligned
from slm.data.batches import Batches, drawn
from slm.data.madeup import MadeUpUtterances
from slm.data.prosody import MadeUpMelody, Melody, tokenizer
from slm.data.utterances import Utterance

Row = dict[str, Tensor]


@dataclass
class Continued:
    """Config.

    prompt: the fewest and the most frames that are drawn for one (whole phones: up to the last one's end).
    longest: frames of the rest, about. joined: whether the codes are the prompt's too, for a stage that goes on, or the target's
    alone, for one that sees both at once. melody: where `pitch` comes from, if it is wanted.
    """

    of: Aligned | MadeUpUtterances = field(default_factory=Aligned)
    prompt: tuple[int, int] = (50, 150)
    longest: int = 450
    joined: bool = True
    melody: Melody | MadeUpMelody | None = None

    def build(self, tokenizers: dict[str, Any]) -> "Continuations":
        items = self.of.build(tokenizers).batches.items
        pitch = self.melody.of(items, tokenizer(tokenizers)) if self.melody else None
        return Continuations(self, items, pitch)


class Continuations:
    """`at(step)` -> batch with text, duration (and pitch) [L] of prompt and target, acoustic [Q,P+T] or [Q,T], prompt_codes [Q,P]."""

    def __init__(self, config: Continued, items: list[Utterance], pitch: dict[str, Tensor] | None = None) -> None:
        self.config, self.pitch, self.seed = config, pitch, config.of.seed
        cost = config.prompt[1] + config.longest
        self.batches = Batches(items, lambda u: min(cost, u.codes.shape[1] + config.prompt[1]), max(cost, config.of.frames), self.seed)
        self.others: dict[str, list[Utterance]] = defaultdict(list)
        for item in items:
            self.others[item.speaker].append(item)

    def __len__(self) -> int:
        return len(self.batches)

    def at(self, step: int, rank: int = 0, world: int = 1) -> dict:
        return drawn(self.batches, self.row, self.seed, step, rank, world)

    def row(self, item: Utterance, draw: np.random.Generator) -> Row:
        others = [other for other in self.others[item.speaker] if other is not item]
        frames, target = int(draw.integers(*self.config.prompt, endpoint=True)), self.told(item)
        if others:
            other = self.told(others[int(draw.integers(len(others)))])
            prompt = within(other, int(draw.integers(starts(other, frames))), frames)
        else:
            prompt = within(target, 0, min(frames, item.codes.shape[1] // 2))
            target = cut(target, len(prompt["text"]), len(item.text))
        target = within(target, int(draw.integers(starts(target, self.config.longest))), self.config.longest)
        return joined(prompt, target, self.config.joined)

    def told(self, item: Utterance) -> Row:
        row = {"text": item.text, "duration": item.duration, "acoustic": item.codes}
        return row if self.pitch is None else row | {"pitch": self.pitch[item.id]}


def cut(row: Row, first: int, stop: int) -> Row:
    """Phones `first` up to `stop` of a row, and their frames."""
    a, b = int(row["duration"][:first].sum()), int(row["duration"][:stop].sum())
    return {name: x[:, a:b] if name == "acoustic" else x[first:stop] for name, x in row.items()}


def starts(row: Row, frames: int) -> int:
    """At how many of the first phones a piece of `frames` frames can begin."""
    ends = row["duration"].cumsum(0)
    return max(1, int((ends[-1] - ends + row["duration"] >= frames).sum()))


def within(row: Row, first: int, frames: int) -> Row:
    """The phones from `first` on that fit into `frames` frames, but at least one."""
    last = int((row["duration"][first:].cumsum(0) <= frames).sum())
    return cut(row, first, first + max(1, last))


def joined(prompt: Row, target: Row, whole: bool = True) -> Row:
    """One row of two; the codes are those of both, or of the target alone."""
    row = {name: torch.cat([prompt[name], target[name]], -1) for name in target if name != "acoustic" or whole}
    return {"acoustic": target["acoustic"], **row, "prompt_codes": prompt["acoustic"]}
