"""Root-mean-square norms (Zhang & Sennrich, 2019), plain and gated (Mamba-2, Dao & Gu, 2024).

D width   G groups
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.kernels import usable


def _scale(x: Tensor, eps: float) -> Tensor:
    """1 / rms of x [..., D] -> [..., 1], float32 or wider whatever x's dtype, without a wide copy of x."""
    wide = torch.promote_types(x.dtype, torch.float32)
    return torch.rsqrt(torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide).square() / x.shape[-1] + eps)


class RMSNorm(nn.Module):
    """x [..., D] -> x / rms(x) * weight, in x's dtype; the mean is taken in float32 or wider."""

    def __init__(self, dim: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        if usable(x):
            from slm.kernels.norm import rms_norm

            return rms_norm(x, self.weight, None, 1, self.eps)
        if x.is_cuda or not torch.is_grad_enabled():
            return F.rms_norm(x, x.shape[-1:], self.weight.to(x.dtype), self.eps)
        # torch's own has no fused backward on a CPU; this is a third faster there.
        return (x * _scale(x, self.eps) * self.weight).to(x.dtype)


class GatedRMSNorm(nn.Module):
    """x, gate [..., D] -> the norm of x * silu(gate), each of G equal groups of channels by itself.

    The gate comes before the norm, as in Mamba-2's released weights.
    """

    def __init__(self, dim: int, groups: int = 1, eps: float = 1e-5):
        super().__init__()
        self.groups, self.eps = groups, eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor, gate: Tensor) -> Tensor:
        if usable(x):
            from slm.kernels.norm import rms_norm

            return rms_norm(x, self.weight, gate, self.groups, self.eps)
        gated = (x * F.silu(gate)).unflatten(-1, (self.groups, -1))
        if not torch.is_grad_enabled():
            return F.rms_norm(gated, gated.shape[-1:], eps=self.eps).flatten(-2) * self.weight.to(gated.dtype)
        normed = (gated * _scale(gated, self.eps).to(gated.dtype)).flatten(-2)
        return normed * self.weight.to(normed.dtype)
