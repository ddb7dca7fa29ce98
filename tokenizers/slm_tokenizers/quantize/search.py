"""The nearest entry of a codebook: the formula that defines the ids, and the same arithmetic without its copies.

N vectors, D width of a vector, C entries of a codebook, Q levels of codebooks.

The public codecs compute -(|x|² - 2 x·e + |e|²) in that order and take the first of the largest; another order rounds otherwise and
moves near ties. `nearest` is that formula. `search` rounds as it does, step by step, but knows the |e|² beforehand, works in one
block of memory that stays in the cache, and takes the smallest where the formula turns the sign and takes the largest.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from slm.kernels import usable

WIDEST = 256  # vectors that the kernel, which keeps them whole in registers, takes


def squares(embed: Tensor) -> list[Tensor]:
    """embed [Q,C,D] -> |e|² [1,C] of each level, summed as in `nearest`."""
    return [book.t().pow(2).sum(0, keepdim=True) for book in embed]


def search(x: Tensor, embed: Tensor, known: list[Tensor], codes: Tensor) -> None:
    """x [N,D], embed [Q,C,D] -> fills codes [Q',N], a level for each of the Q' squares, each searching what the last left over.

    The fused kernel sums over D in another order: other ids only where two entries are as near as float32 can tell.
    """
    if x.shape[1] <= WIDEST and x.dtype == embed.dtype == torch.float32 and usable(x):
        from slm.kernels.rvq import search as fused

        return fused(x, embed, known, codes)
    scores = x.new_empty(len(x), embed.shape[1])
    for level, (book, square, out) in enumerate(zip(embed, known, codes)):
        torch.mm(x, book.t(), out=scores)
        # Twice a float is exact, before the sum or after it.
        torch.sub(x.pow(2).sum(1, keepdim=True), scores, alpha=2, out=scores).add_(square)
        smallest(scores, out)
        if level + 1 < len(known):
            x = x - F.embedding(out, book)


def smallest(scores: Tensor, out: Tensor) -> None:
    """scores [N,C] -> out [N], where the smallest is, the first of equals. numpy looks at many at once, torch at one by one."""
    if scores.is_cpu and scores.dtype in (torch.float32, torch.float64):
        scores.numpy().argmin(1, out=out.numpy())
    else:
        torch.min(scores, dim=1, out=(scores.new_empty(len(scores)), out))


def nearest(x: Tensor, embed: Tensor) -> Tensor:
    """x [...,D], embed [C,D] -> index [...] of the entry at the smallest squared distance."""
    flat = x.reshape(-1, x.shape[-1])
    entries = embed.t()
    near = -(flat.pow(2).sum(1, keepdim=True) - 2 * flat @ entries + entries.pow(2).sum(0, keepdim=True))
    return near.max(dim=-1).indices.view(x.shape[:-1])
