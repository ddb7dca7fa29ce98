"""Rotary position embedding (RoFormer, Su et al., 2021), in the half-split order of Llama's released weights.

B batch   S steps   H heads   E head width
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slm.kernels import usable


@dataclass
class Stretch:
    """Llama 3.1's way to longer contexts (Grattafiori et al., 2024): slow angles grow `factor` times slower, fast ones as before.

    An angle that turns less than `low` times in the `trained` steps is slow, one that turns more than `high` times is fast.
    """

    factor: float = 8.0
    low: float = 1.0
    high: float = 4.0
    trained: int = 8192

    def __call__(self, pace: Tensor) -> Tensor:
        """Radians a step, each as it is here."""
        turns = self.trained * pace / (2 * math.pi)
        kept = ((turns - self.low) / (self.high - self.low)).clamp(0, 1)
        return pace * (kept + (1 - kept) / self.factor)


class Rope(nn.Module):
    """Tables of cos and (signed) sin that grow on demand; they are not part of the weights."""

    def __init__(self, head_dim: int, base: float = 10_000.0, stretch: Stretch | None = None):
        super().__init__()
        self.head_dim, self.base, self.stretch = head_dim, base, stretch
        self.register_buffer("cos", torch.empty(0, head_dim), persistent=False)
        self.register_buffer("sin", torch.empty(0, head_dim), persistent=False)

    def reserve(self, positions: int, like: Tensor) -> None:
        """Make the tables cover positions 0 .. positions-1 on `like`'s device."""
        if positions <= len(self.cos) and self.cos.device == like.device:
            return
        size = max(256, 1 << (positions - 1).bit_length(), len(self.cos))
        self.cos, self.sin = self._turns(torch.arange(size, device=like.device))

    def at(self, first: int, steps: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Consecutive positions first .. first+steps-1: cos, sin [S,1,E]."""
        self.reserve(first + steps, like)
        return self.cos[first : first + steps, None], self.sin[first : first + steps, None]

    def at_each(self, positions: Tensor, bound: int) -> tuple[Tensor, Tensor]:
        """positions [B,S], all smaller than `bound` -> cos, sin [B,S,1,E]."""
        self.reserve(bound, positions)
        return self.cos[positions][:, :, None], self.sin[positions][:, :, None]

    def anywhere(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """positions [B,S], fractions or not -> cos, sin [B,S,1,E]."""
        cos, sin = self._turns(positions)
        return cos[:, :, None], sin[:, :, None]

    def _turns(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """positions [...] -> cos and signed sin [...,E]"""
        pace = self.base ** (-torch.arange(0, self.head_dim, 2, device=positions.device, dtype=torch.float64) / self.head_dim)
        pace = pace if self.stretch is None else self.stretch(pace)
        angle = positions.double()[..., None] * pace
        return torch.cat([angle.cos(), angle.cos()], -1).float(), torch.cat([-angle.sin(), angle.sin()], -1).float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [B,S,H,E] turned by its positions' angles, in x's dtype."""
    if usable(x):
        from slm.kernels.rope import rotate as turn

        return turn(x, cos, sin)
    return x * cos.to(x.dtype) + x.roll(x.shape[-1] // 2, -1) * sin.to(x.dtype)
