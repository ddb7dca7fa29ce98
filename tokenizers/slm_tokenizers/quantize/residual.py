"""Residual vector quantisation at inference: each level codes what the levels before it left over.

Zeghidour et al., 2021, "SoundStream: An End-to-End Neural Audio Codec", algorithm 1.

B batch, Q levels (one codebook each), C entries a codebook, D width of a latent, T frames.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.errors import SlmError


class Codebooks(nn.Module):
    """Q codebooks of C entries of width D, in the buffer `embed [Q,C,D]`: searched exactly, by squared distance.

    The buffer starts as unit Gaussian noise; a checkpoint or a trainer fills it. No gradient flows through it.
    """

    embed: Tensor

    def __init__(self, n_q: int, card: int, dim: int):
        super().__init__()
        self.register_buffer("embed", torch.randn(n_q, card, dim))

    @property
    def n_q(self) -> int:
        return self.embed.shape[0]

    @property
    def card(self) -> int:
        return self.embed.shape[1]

    @property
    def dim(self) -> int:
        return self.embed.shape[2]

    @torch.no_grad()
    def encode(self, z: Tensor, n_q: int | None = None) -> Tensor:
        """z [B,D,T] -> codes [B,Q,T] long of the first `n_q` levels (all by default). SlmError on another width or level count."""
        levels = self.n_q if n_q is None else n_q
        if not 1 <= levels <= self.n_q:
            raise SlmError(f"n_q is {levels} but these codebooks have levels 1 to {self.n_q}")
        if z.dim() != 3 or z.shape[1] != self.dim:
            raise SlmError(f"latents have the shape {list(z.shape)} but [B, {self.dim}, T] is needed")
        # Autocast would round the distances to bfloat16, where near neighbours tie and ids change.
        with torch.autocast(z.device.type, enabled=False):
            residual = z.transpose(1, 2).to(self.embed.dtype)
            codes = []
            for embed in self.embed[:levels]:
                codes.append(nearest(residual, embed))
                residual = residual - F.embedding(codes[-1], embed)
        return torch.stack(codes, dim=1)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """codes [B,Q',T] of the first Q' <= Q levels -> z [B,D,T], the sum of their entries.

        SlmError if there are too many levels, or a code is outside 0..C-1 (named by level and position).
        """
        self.check(codes)
        # Level by level from zero, as published decoders add, so that the last bit agrees with them.
        z = torch.zeros((), device=codes.device, dtype=self.embed.dtype)
        for level, embed in zip(codes.unbind(1), self.embed):
            z = z + F.embedding(level, embed)
        return z.transpose(1, 2)

    def check(self, codes: Tensor) -> None:
        """Raises SlmError unless codes are integers [B,Q',T] with 1 <= Q' <= Q, all inside 0..C-1."""
        if codes.dim() != 3 or codes.is_floating_point():
            raise SlmError(f"codes are {codes.dtype} of shape {list(codes.shape)} but whole numbers [B, Q, T] are needed")
        if not 1 <= codes.shape[1] <= self.n_q:
            raise SlmError(f"codes have {codes.shape[1]} levels but these codebooks have levels 1 to {self.n_q}")
        bad = (codes < 0) | (codes >= self.card)
        if bad.any():
            row, level, frame = (int(i) for i in bad.nonzero()[0])
            code = int(codes[row, level, frame])
            raise SlmError(f"code {code} of level {level}, frame {frame}, row {row} is outside 0 to {self.card - 1}")


def nearest(x: Tensor, embed: Tensor) -> Tensor:
    """x [B,T,D], embed [C,D] -> index [B,T] of the entry at the smallest squared distance.

    The square is expanded exactly as the public codecs do it: another order of operations rounds otherwise and moves near ties.
    """
    flat = x.reshape(-1, x.shape[-1])
    entries = embed.t()
    near = -(flat.pow(2).sum(1, keepdim=True) - 2 * flat @ entries + entries.pow(2).sum(0, keepdim=True))
    return near.max(dim=-1).indices.view(x.shape[:-1])
