"""Codes that a language model hears with a mistake in them, and is to go on from as if there were none: HAM-TTS's augmentation.

    Q levels   T frames   n frames of a segment

In a tenth of the rows (Wang et al., 2024) a segment is one of another recording, so that a voice that slips comes back, or it is the
segment before it once more, so that what was said twice is not said a third time. That is what is *heard*, under NAME_heard; what is to
be said, NAME, is never touched. A row stays as long as it was: the repetition takes the place of what would follow.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slm.data.beside import Beside
from slm.data.continued import Continued
from slm.errors import SlmError


@dataclass
class Augmented:
    """Config. of: any data with codes [Q,T] called `codes`. share: of the rows. frames: the fewest and the most of a segment."""

    of: Continued | Beside = field(default_factory=Continued)
    share: float = 0.1
    frames: tuple[int, int] = (10, 50)
    codes: str = "acoustic"
    seed: int = 0

    def build(self, tokenizers: dict[str, Any]) -> "AugmentedRows":
        if not 0 <= self.share <= 1 or not 1 <= self.frames[0] <= self.frames[1]:
            raise SlmError(f"Augmented: share = {self.share} must be in 0 to 1, and frames = {self.frames} at least 1 and rising")
        return AugmentedRows(self, self.of.build(tokenizers))


class AugmentedRows:
    """`at(step)` -> the batch of `of` and NAME_heard beside NAME; a function of (seed, step). Segments come from rows of the batch."""

    def __init__(self, config: Augmented, of: Any) -> None:
        self.config, self.of = config, of

    def __len__(self) -> int:
        return len(self.of)

    def at(self, step: int, rank: int = 0, world: int = 1) -> dict[str, list[Tensor]]:
        c, batch = self.config, self.of.at(step, rank, world)
        draw = np.random.default_rng([c.seed, step * world + rank, 1])
        return batch | {f"{c.codes}_heard": heard(batch[c.codes], c.share, c.frames, draw)}


def heard(rows: list[Tensor], share: float, frames: tuple[int, int], draw: np.random.Generator) -> list[Tensor]:
    """Rows [Q,T] -> the same, some with a mistake; the others are the rows themselves."""
    found = []
    for i, row in enumerate(rows):
        others = [other for j, other in enumerate(rows) if j != i]
        if draw.random() >= share:
            found.append(row)
        elif others and draw.random() < 0.5:
            found.append(replaced(row, others[int(draw.integers(len(others)))], frames, draw))
        else:
            found.append(repeated(row, frames, draw))
    return found


def replaced(row: Tensor, other: Tensor, frames: tuple[int, int], draw: np.random.Generator) -> Tensor:
    """row [Q,T] with a segment of the other [Q,·] somewhere; no longer than either."""
    n = min(int(draw.integers(*frames, endpoint=True)), row.shape[1], other.shape[1])
    to, source = (int(draw.integers(codes.shape[1] - n + 1)) for codes in (row, other))
    return torch.cat([row[:, :to], other[:, source : source + n], row[:, to + n :]], 1)


def repeated(row: Tensor, frames: tuple[int, int], draw: np.random.Generator) -> Tensor:
    """row [Q,T] with a segment twice in a row; no longer than half of it."""
    n = min(int(draw.integers(*frames, endpoint=True)), row.shape[1] // 2)
    at = int(draw.integers(row.shape[1] - 2 * n + 1))
    return torch.cat([row[:, : at + n], row[:, at : at + n], row[:, at + 2 * n :]], 1)
