"""How a Transformer is told where its steps stand: added vectors, turned queries and keys, or a bias on how far they are apart.

    rope        queries and keys turned by their place (Su et al., 2021)
    learned     a table of vectors, added (BERT, GPT-2): nothing is known beyond its last row
    sinusoidal  waves of many lengths, added (Vaswani et al., 2017)
    alibi       the farther a key, the lower its score, at another rate in each head (Press et al., 2022)
    relative    a learned bias for each bucket of distances, shared by all layers (T5, Raffel et al., 2020)
    none        nothing: a causal Transformer can still count

B batch   S steps   D width   H heads   K keys in reach   E head width
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slm.errors import SlmError
from slm.nn.rope import Rope

BUCKETS, FAR = 32, 128  # T5's: how many buckets, and the distance from which all share the last


@dataclass
class Places:
    """The place of each step of a call: first .. first+steps-1 in every row, or `each` [B,S], all below first+steps.

    at [B,S]: where the steps are told to stand, fractions too, if that is not their place.
    """

    first: int
    steps: int
    each: Tensor | None = None
    at: Tensor | None = None

    def tensor(self, like: Tensor) -> Tensor:
        """[S] or [B,S]"""
        return torch.arange(self.first, self.first + self.steps, device=like.device) if self.each is None else self.each


class Positions(nn.Module):
    """One of the ways above; what it does not use is None, or left as it was."""

    def __init__(self, kind: str, dim: int, heads: int, longest: int, causal: bool, rope: Rope) -> None:
        super().__init__()
        self.kind, self.heads, self.longest, self.causal = kind, heads, longest, causal
        self.biased = kind in ("alibi", "relative")
        self.rope = rope if kind == "rope" else None
        if kind in ("learned", "relative"):
            self.table = nn.Embedding(longest, dim) if kind == "learned" else nn.Embedding(BUCKETS, heads)
            nn.init.normal_(self.table.weight, std=0.02)

    def add(self, x: Tensor, places: Places, lengths: Tensor | None) -> Tensor:
        """x [B,S,D] with the vectors of its places.

        SlmError: one of the `lengths` [B] real steps is beyond the learned table, or these positions know no steps that stand elsewhere.
        """
        if places.at is not None and self.kind not in ("rope", "sinusoidal"):
            raise SlmError(f"steps are told to stand elsewhere than one behind the other: that takes rope or sinusoidal, not {self.kind!r}")
        if self.kind not in ("learned", "sinusoidal"):
            return x
        at = places.tensor(x) if places.at is None else places.at
        if lengths is not None:  # padding may lie beyond the table, and does no harm
            at = torch.where(torch.arange(places.steps, device=x.device) < lengths[:, None], at, 0)
        if self.kind == "sinusoidal":
            return x + sinusoids(at, x.shape[-1]).to(x.dtype)
        if at.numel() and at.max() >= self.longest:
            raise SlmError(f"step {int(at.max()) + 1} is beyond the {self.longest} learned positions of this Transformer (longest).")
        return x + self.table(at).to(x.dtype)

    def turn(self, places: Places, like: Tensor) -> tuple[Tensor, Tensor] | None:
        """cos, sin [(B,)S,1,E] for queries and keys."""
        if self.rope is None:
            return None
        if places.at is not None:
            return self.rope.anywhere(places.at)
        if places.each is None:
            return self.rope.at(places.first, places.steps, like)
        return self.rope.at_each(places.each, places.first + places.steps)

    def bias(self, distance: Tensor) -> Tensor | None:
        """How far each key is ahead of each query [(B,)S,K], negative for the past -> what is added to scores [(B,)H,S,K]."""
        if self.kind == "alibi":
            return -slopes(self.heads, distance.device)[:, None, None] * distance.abs()[..., None, :, :]
        if self.kind == "relative":
            return self.table(bucket(distance, self.causal)).movedim(-1, -3)
        return None


def sinusoids(at: Tensor, dim: int) -> Tensor:
    """Places [...] -> [...,D]: sine and cosine by turns, wavelengths from 2 pi to 10000 * 2 pi."""
    pace = 10_000.0 ** (-torch.arange(0, dim, 2, device=at.device, dtype=torch.float64) / dim)
    angle = at[..., None] * pace
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(-2).float()


def slopes(heads: int, device: torch.device | None = None) -> Tensor:
    """The rate of each head [H]: 2^(-8/n), 2^(-16/n), … for n heads, n a power of two; further heads lie between those."""
    n = 1 << (heads.bit_length() - 1)
    powers = [8 * i / n for i in range(1, n + 1)] + [4 * i / n for i in range(1, 2 * (heads - n), 2)]
    return torch.tensor([2.0**-p for p in powers], device=device)


def bucket(distance: Tensor, causal: bool) -> Tensor:
    """T5's bucket of each distance [...]: one each for near ones, ever wider ones up to FAR; bidirectional, the future has its own half."""
    count = BUCKETS if causal else BUCKETS // 2
    near = count // 2
    apart = (-distance).clamp(min=0) if causal else distance.abs()
    far = near + (torch.log(apart.clamp(min=1).float() / near) / math.log(FAR / near) * (count - near)).long()
    found = torch.where(apart < near, apart, far.clamp(max=count - 1))
    return found if causal else found + count * (distance > 0)
