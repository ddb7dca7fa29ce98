"""Rotary position embedding (RoFormer, Su et al., 2021), in the half-split order of Llama's released weights.

B batch   S steps   H heads   E head width
"""
import torch
from torch import Tensor, nn


class Rope(nn.Module):
    """Tables of cos and (signed) sin that grow on demand; they are not part of the weights."""

    def __init__(self, head_dim: int, base: float = 10_000.0):
        super().__init__()
        self.head_dim, self.base = head_dim, base
        self.register_buffer("cos", torch.empty(0, head_dim), persistent=False)
        self.register_buffer("sin", torch.empty(0, head_dim), persistent=False)

    def reserve(self, positions: int, like: Tensor) -> None:
        """Make the tables cover positions 0 .. positions-1 on `like`'s device."""
        if positions <= len(self.cos) and self.cos.device == like.device:
            return
        size = max(256, 1 << (positions - 1).bit_length(), len(self.cos))
        pace = self.base ** (-torch.arange(0, self.head_dim, 2, device=like.device, dtype=torch.float64) / self.head_dim)
        angle = torch.arange(size, device=like.device, dtype=torch.float64)[:, None] * pace
        self.cos = torch.cat([angle.cos(), angle.cos()], -1).float()
        self.sin = torch.cat([-angle.sin(), angle.sin()], -1).float()

    def at(self, first: int, steps: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Consecutive positions first .. first+steps-1: cos, sin [S,1,E]."""
        self.reserve(first + steps, like)
        return self.cos[first : first + steps, None], self.sin[first : first + steps, None]

    def at_each(self, positions: Tensor, bound: int) -> tuple[Tensor, Tensor]:
        """positions [B,S], all smaller than `bound` -> cos, sin [B,S,1,E]."""
        self.reserve(bound, positions)
        return self.cos[positions][:, :, None], self.sin[positions][:, :, None]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [B,S,H,E] turned by its positions' angles, in x's dtype."""
    return x * cos.to(x.dtype) + x.roll(x.shape[-1] // 2, -1) * sin.to(x.dtype)
