"""Examples for text to speech: phones, their durations, codes, and a prompt of the same voice from somewhere else.

    L phones   T frames   P prompt frames   Q levels   E latent width

Batches are a function of (seed, step) alone, prompts and cuts included. A prompt is a piece of another utterance of the
speaker; a speaker with one long utterance lends its beginning, and only the rest is to be said.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from slm.data.audio import FULL
from slm.data.batches import Batches, drawn


@dataclass
class Utterance:
    """One aligned utterance. text, duration [L] long, sum of durations = T; codes [Q,T] long, rough [Q,T] those of it made worse.

    sound [H,T] int16, H samples a frame, where stages need to hear it.
    """

    id: str
    speaker: str
    text: Tensor
    duration: Tensor
    codes: Tensor
    rough: Tensor | None = None
    sound: Tensor | None = None


def shorten(text: Tensor, duration: Tensor, codes: Tensor, longest: int) -> tuple[Tensor, Tensor, Tensor]:
    """The same utterance with no phone (in practice: no pause) longer than `longest` frames; the middle of it is taken out."""
    keep = []
    for start, frames in zip((duration.cumsum(0) - duration).tolist(), duration.tolist()):
        head = min(frames, longest) // 2
        tail = min(frames, longest) - head
        keep += [*range(start, start + head), *range(start + frames - tail, start + frames)]
    return text, duration.clamp(max=longest), codes[:, keep]


class Utterances:
    """`at(step)` -> batch with text, duration, semantic [1,T], acoustic [Q,T], prompt_codes [Q,P], prompt [P,E].

    Where utterances have their sound, audio [1,T*H], too. frames: what a batch may hold, padding included. longest: frames an
    utterance is cut to, between two phones. embed [Q,C,E]: the codec's vectors, which make the prompt's latents. rough: share of prompts
    that are of utterances made worse.
    """

    def __init__(
        self, items: list[Utterance], embed: Tensor, frames: int, seed: int = 0, prompt: tuple[int, int] = (100, 200), longest: int = 450,
        rough: float = 0.0,
    ) -> None:
        self.embed, self.seed, self.prompt, self.longest, self.rough = embed, seed, prompt, longest, rough
        self.batches = Batches(items, lambda u: min(longest, u.codes.shape[1]) + prompt[1], frames, seed)
        self.others: dict[str, list[Utterance]] = defaultdict(list)
        for item in items:
            self.others[item.speaker].append(item)

    def __len__(self) -> int:
        return len(self.batches)

    def at(self, step: int, rank: int = 0, world: int = 1) -> dict:
        return drawn(self.batches, self.row, self.seed, step, rank, world)

    def row(self, item: Utterance, draw: np.random.Generator) -> dict[str, Tensor]:
        others = [o for o in self.others[item.speaker] if o.id != item.id]
        start, frame = 0, 0  # first phone and frame that are to be said
        if others:
            prompt = self.piece(self.heard(others[int(draw.integers(len(others)))], draw), draw)
        elif item.codes.shape[1] >= 2 * self.prompt[1]:
            start, frame = self._split(item, int(draw.integers(*self.prompt, endpoint=True)))
            prompt = self.heard(item, draw)[:, :frame]
        else:
            prompt = self.piece(self.heard(item, draw), draw)
        phones, frames = self._cut(item.duration, start, frame, draw)
        codes = item.codes[:, frames]
        row = {
            "text": item.text[phones],
            "duration": item.duration[phones],
            "semantic": codes[:1],
            "acoustic": codes,
            "prompt_codes": prompt,
            "prompt": self.latents(prompt),
        }
        return row if item.sound is None else row | {"audio": item.sound[:, frames].T.reshape(1, -1).float() / FULL}

    def heard(self, item: Utterance, draw: np.random.Generator) -> Tensor:
        """The codes [Q,T] of a prompt, now and then of the utterance made worse."""
        return item.rough if self.rough and item.rough is not None and draw.random() < self.rough else item.codes

    def latents(self, codes: Tensor) -> Tensor:
        """codes [Q,P] -> [P,E]"""
        return sum(self.embed[q][codes[q]] for q in range(len(codes)))

    def piece(self, codes: Tensor, draw: np.random.Generator) -> Tensor:
        size = min(codes.shape[1], int(draw.integers(*self.prompt, endpoint=True)))
        start = int(draw.integers(codes.shape[1] - size + 1))
        return codes[:, start : start + size]

    def _split(self, item: Utterance, frames: int) -> tuple[int, int]:
        """The first phone and frame that a prompt of about `frames` from the utterance's beginning leaves over."""
        ends = item.duration.cumsum(0)
        first = int((ends < frames).sum()) + 1  # phones that the prompt holds
        return first, int(ends[first - 1])

    def _cut(self, duration: Tensor, start: int, frame: int, draw: np.random.Generator) -> tuple[slice, slice]:
        """Phones from `start` and frames from `frame` on: all, or at most `longest` frames, whole phones, from a random place."""
        ends = duration[start:].cumsum(0)
        if ends[-1] <= self.longest:
            return slice(start, None), slice(frame, None)
        starts = ends - duration[start:]
        first = int(draw.integers(int((ends[-1] - starts >= self.longest).sum())))
        last = max(first + 1, int((ends <= starts[first] + self.longest).sum()))
        return slice(start + first, start + last), slice(frame + int(starts[first]), frame + int(ends[last - 1]))
