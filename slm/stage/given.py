"""What an earlier stage said of a codec's first levels, as a later one hears it.

    B rows   T frames   G levels that were given   C codes a level   E latent width
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from slm.data.batch import pad
from slm.errors import SlmError


def confused(given: Tensor, card: int, share: float) -> Tensor:
    """given [B,G,T] with about `share` of its codes replaced: a row is anything from clean to twice as bad; 0 leaves all."""
    if not share:
        return given
    row = torch.rand(len(given), 1, 1, device=given.device) * 2 * share
    wrong = torch.rand(given.shape, device=given.device) < row
    return torch.where(wrong, torch.randint_like(given, card), given)


def summed(embed: Tensor, codes: Tensor) -> Tensor:
    """embed [Q,C,E], codes [B,G,T] of the first levels -> the sum of their vectors [B,T,E]"""
    return sum(F.embedding(codes[:, q], embed[q]) for q in range(codes.shape[1]))


def believed(embed: Tensor, known: int, given: Tensor, chances: list[Tensor] | None) -> Tensor:
    """given [B,G,T], of which `known` levels count -> the sum of their vectors [B,T,E], or with chances, rows [T,C], the mean vector.

    SlmError for chances where several levels are known.
    """
    if chances is None:
        return summed(embed, given[:, :known])
    if known > 1:
        raise SlmError(f"chances of one level were given, but {known} levels are known")
    return pad(chances, dim=0)[0] @ embed[0]
