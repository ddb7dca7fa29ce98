"""Residual vector quantisation at inference: each level codes what the levels before it left over.

Zeghidour et al., 2021, "SoundStream: An End-to-End Neural Audio Codec", algorithm 1.

B batch, Q levels (one codebook each), C entries a codebook, D width of a latent, T frames.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.errors import SlmError
from slm_tokenizers.quantize.search import nearest as nearest
from slm_tokenizers.quantize.search import search, squares

ROWS = {False: 256, True: 16_384}  # vectors searched at a time, on the CPU (scores stay in its cache) and on a GPU


class Codebooks(nn.Module):
    """Q codebooks of C entries of width D, in the buffer `embed [Q,C,D]`: searched exactly, by squared distance.

    The buffer starts as unit Gaussian noise; a checkpoint or a trainer fills it. No gradient flows through it.
    """

    embed: Tensor

    def __init__(self, n_q: int, card: int, dim: int):
        super().__init__()
        self.register_buffer("embed", torch.randn(n_q, card, dim))
        self._squares: tuple[Tensor, int, list[Tensor]] | None = None

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
        known = self.squares()[:levels]
        flat = z.transpose(1, 2).reshape(-1, self.dim).to(self.embed.dtype)  # [B*T,D]
        codes = torch.empty(levels, len(flat), dtype=torch.long, device=z.device)
        # Autocast would round the distances to bfloat16, where near neighbours tie and ids change.
        with torch.autocast(z.device.type, enabled=False):
            for rows, out in zip(flat.split(ROWS[z.is_cuda]), codes.split(ROWS[z.is_cuda], dim=1)):
                search(rows, self.embed, known, out)
        return codes.view(levels, z.shape[0], -1).transpose(0, 1).contiguous()

    def squares(self) -> list[Tensor]:
        """|e|² [1,C] of each level, made anew whenever `embed` is another tensor or was written to."""
        version = -1 if self.embed.is_inference() else self.embed._version
        if self._squares is None or self._squares[0] is not self.embed or self._squares[1] != version or version < 0:
            self._squares = self.embed, version, squares(self.embed)
        return self._squares[2]

    @torch.no_grad()
    def decode(self, codes: Tensor, first: int = 0) -> Tensor:
        """codes [B,Q',T] of Q' levels from `first` on -> z [B,D,T], the sum of their entries.

        SlmError if there are too many levels, or a code is outside 0..C-1 (named by level and position).
        """
        if not 0 <= first < self.n_q:
            raise SlmError(f"first is {first} but these codebooks have levels 0 to {self.n_q - 1}")
        check_codes(codes, self.n_q - first, self.card, least=0)
        # Level by level from zero, as published decoders add, so that the last bit agrees with them.
        z = torch.zeros((), device=codes.device, dtype=self.embed.dtype)
        for level, embed in zip(codes.unbind(1), self.embed[first:]):
            z = z + F.embedding(level, embed)
        return z.transpose(1, 2)


def check_codes(codes: Tensor, n_q: int, card: int, least: int = 1) -> None:
    """Raises SlmError unless codes are integers [B,Q',T] with 1 <= Q' <= n_q and T >= least, all inside 0..card-1."""
    if codes.dim() != 3 or codes.is_floating_point():
        raise SlmError(f"codes are {codes.dtype} of shape {list(codes.shape)} but whole numbers [B, Q, T] are needed")
    if not 1 <= codes.shape[1] <= n_q:
        raise SlmError(f"codes have {codes.shape[1]} levels but these codebooks have levels 1 to {n_q}")
    if codes.shape[2] < least:
        raise SlmError(f"codes have {codes.shape[2]} frames but at least {least} is needed")
    bad = (codes < 0) | (codes >= card)
    if bad.any():
        row, level, frame = (int(i) for i in bad.nonzero()[0])
        code = int(codes[row, level, frame])
        raise SlmError(f"code {code} of level {level}, frame {frame}, row {row} is outside 0 to {card - 1}")
