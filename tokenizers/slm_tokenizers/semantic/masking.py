"""Which frames are hidden while an encoder learns: spans that begin anywhere and may overlap.

Baevski et al., 2020, "wav2vec 2.0", section 3.1.

B batch, T frames, M hidden frames of the whole batch, K negatives.

Each row throws its own dice, seeded by one number drawn from torch's, so that the same torch seed gives the same mask and a
row's mask does not depend on how long the others are.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from slm.errors import SlmError


@dataclass
class Masking:
    """A share `start` of the frames begin a span of `span` hidden ones; a row has at least `least` of them.

    The published 0.065 and 10 hide about half of all frames.
    """

    start: float = 0.065
    span: int = 10
    least: int = 1

    def draw(self, count: Tensor, frames: int) -> Tensor:
        """count [B], frames of each row -> mask [B,frames], true where a frame is hidden.

        SlmError if a row is too short for a span and one frame that is heard.
        """
        check(self)
        mask = torch.zeros(len(count), frames, dtype=torch.bool)
        for row, (n, dice) in enumerate(zip(count.tolist(), generators(len(count)))):
            if n <= self.span:
                raise SlmError(f"row {row} has {n} frames but hiding a span of {self.span} needs at least {self.span + 1}")
            places = n - self.span + 1
            # rounded up or down by chance, so that the mean is right
            begun = int(self.start * n + float(torch.rand((), generator=dice)))
            begins = torch.randperm(places, generator=dice)[: max(self.least, begun)]
            mask[row, (begins[:, None] + torch.arange(self.span)).flatten()] = True
        return mask.to(count.device)


def negatives(mask: Tensor, number: int) -> Tensor:
    """mask [B,T] -> [M,K]: for each hidden frame, `number` others of the same row, as places among the M hidden frames.

    SlmError if a row has fewer than two hidden frames, as then there is no other.
    """
    if number < 1:
        raise SlmError(f"negatives is {number} but must be at least 1")
    found, first = [], 0
    for row, (n, dice) in enumerate(zip(mask.sum(1).tolist(), generators(len(mask)))):
        if n < 2:
            raise SlmError(f"row {row} has {n} hidden frames but negatives need at least 2; use longer audio or a longer span")
        drawn = torch.randint(n - 1, (n, number), generator=dice)
        found.append(first + drawn + (drawn >= torch.arange(n)[:, None]))  # never the frame itself
        first += n
    return torch.cat(found).to(mask.device)


def generators(rows: int) -> list[torch.Generator]:
    seed = int(torch.randint(2**62, ()))
    return [torch.Generator().manual_seed((seed + row * 0x9E3779B97F4A7C15) % 2**63) for row in range(rows)]


def check(masking: Masking) -> None:
    if not 0 <= masking.start <= 1:
        raise SlmError(f"start is {masking.start} but must be in [0, 1], a share of the frames")
    for name in ("span", "least"):
        if getattr(masking, name) < 1:
            raise SlmError(f"{name} is {getattr(masking, name)} but must be at least 1")
