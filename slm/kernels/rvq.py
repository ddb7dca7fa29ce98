"""The nearest entries of residual codebooks, all levels in one launch; its twin is `slm_tokenizers.quantize.search`.

The same formula in the same order, |x|^2 - 2 x.e + |e|^2, the first of the smallest: other ids only where two entries are as near
as float32 can tell, for sums over D are taken in another order. float32 is multiplied in full, whatever torch is told elsewhere.

N vectors   D width   C entries of a codebook   Q levels
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from slm.kernels.tile import block, bound, formats, product

VECTORS, ENTRIES = 32, 64  # of a tile


def search(x: Tensor, embed: Tensor, known: list[Tensor], codes: Tensor) -> None:
    """x [N,D], embed [Q,C,D], |e|^2 [1,C] of each level -> fills codes [Q',N], a level for each of the Q' squares."""
    (count, dim), card, squares = x.shape, embed.shape[1], torch.cat(known)
    if count:
        told = formats(x.dtype)._replace(TOLD="ieee")
        _search[(triton.cdiv(count, VECTORS),)](
            x.contiguous(), embed.contiguous(), squares, codes, codes.stride(0), count, dim, card, bound(len(known)),
            bound(triton.cdiv(card, ENTRIES)), VECTORS, ENTRIES, block(dim), *told, num_warps=4)  # fmt: skip


@triton.jit
def _search(x, embed, squares, codes, stride, N, D, C, levels, blocks, BN: tl.constexpr, BC: tl.constexpr, BD: tl.constexpr,
            ROUND: tl.constexpr, FEED: tl.constexpr, WIDE: tl.constexpr, TOLD: tl.constexpr):  # fmt: skip
    """A program: BN vectors through all levels, what is left of them in registers."""
    n, d = tl.program_id(0).to(tl.int64) * BN + tl.arange(0, BN), tl.arange(0, BD)
    left = tl.load(x + n[:, None] * D + d[None, :], mask=(n < N)[:, None] & (d < D)[None, :], other=0.0)
    for level in range(levels):
        size = tl.sum(left * left, 1)
        least, code = tl.full((BN,), float("inf"), WIDE), tl.zeros((BN,), tl.int32)
        for k in range(blocks):
            c = k * BC + tl.arange(0, BC)
            entry = embed + (level * C + c).to(tl.int64)[:, None] * D + d[None, :]
            book = tl.load(entry, mask=(c < C)[:, None] & (d < D)[None, :], other=0.0)
            square = tl.load(squares + level * C + c, mask=c < C, other=float("inf"))
            far = size[:, None] - product(2 * left, tl.trans(book), ROUND, FEED, WIDE, TOLD) + square[None, :]
            near, which = tl.min(far, 1, return_indices=True)
            code = tl.where(near < least, k * BC + which, code)
            least = tl.minimum(least, near)
        tl.store(codes + level * stride + n, code.to(tl.int64), mask=n < N)
        left -= tl.load(embed + (level * C + code).to(tl.int64)[:, None] * D + d[None, :], mask=(d < D)[None, :], other=0.0)
