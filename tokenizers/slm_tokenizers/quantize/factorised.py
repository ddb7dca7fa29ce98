"""Residual quantisation in a few dimensions: each level looks its code up in a narrow projection, and by angle alone.

Kumar et al., 2023, "High-Fidelity Audio Compression with Improved RVQGAN", section 3.2, after Yu et al., 2022 (ViT-VQGAN):
a codebook of 8-dimensional unit vectors is used evenly where one of the latent's width leaves most entries dead.

B batch, Q levels, C entries a codebook, D width of a latent, E width of an entry, T frames.
The names of the weights are those of the transformers layout of DAC.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.errors import SlmError
from slm_tokenizers.quantize.residual import check_codes
from slm_tokenizers.quantize.search import nearest


class Level(nn.Module):
    """One codebook [C,E] between a projection down and one up."""

    def __init__(self, dim: int, card: int, code_dim: int):
        super().__init__()
        self.in_proj = nn.Conv1d(dim, code_dim, 1)
        self.out_proj = nn.Conv1d(code_dim, dim, 1)
        self.codebook = nn.Embedding(card, code_dim)

    def encode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """z [B,D,T] -> codes [B,T], and the part of z [B,D,T] that they stand for."""
        low = self.in_proj(z)  # [B,E,T]
        codes = nearest(F.normalize(low.transpose(1, 2), dim=-1), F.normalize(self.codebook.weight, dim=-1))
        entry = self.codebook(codes).transpose(1, 2)  # as it is, not normalised
        # Training goes straight through, where `low` is added and taken away: the published residuals carry that rounding.
        return codes, self.out_proj(low + (entry - low))

    def decode(self, codes: Tensor) -> Tensor:
        """codes [B,T] -> z [B,D,T]."""
        return self.out_proj(self.codebook(codes).transpose(1, 2))


class Factorised(nn.Module):
    """Q levels, each coding what the levels before it left over."""

    def __init__(self, n_q: int, card: int, dim: int, code_dim: int):
        super().__init__()
        self.n_q, self.card = n_q, card
        self.quantizers = nn.ModuleList(Level(dim, card, code_dim) for _ in range(n_q))

    @torch.no_grad()
    def encode(self, z: Tensor, n_q: int | None = None) -> Tensor:
        """z [B,D,T] -> codes [B,Q,T] long of the first `n_q` levels, all by default. SlmError on another level count."""
        levels = self.n_q if n_q is None else n_q
        if not 1 <= levels <= self.n_q:
            raise SlmError(f"n_q is {levels} but these codebooks have levels 1 to {self.n_q}")
        codes = []
        # Autocast would round the distances to bfloat16, where near neighbours tie and ids change.
        with torch.autocast(z.device.type, enabled=False):
            residual = z.float()
            for level in self.quantizers[:levels]:
                found, part = level.encode(residual)
                residual = residual - part
                codes.append(found)
        return torch.stack(codes, dim=1)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """codes [B,Q',T] of the first Q' <= Q levels -> z [B,D,T]. SlmError on too many levels, no frames, or a code outside 0..C-1."""
        check_codes(codes, self.n_q, self.card)
        z: Tensor | float = 0.0
        for level, ids in zip(self.quantizers, codes.unbind(1)):
            z = z + level.decode(ids)
        return z
