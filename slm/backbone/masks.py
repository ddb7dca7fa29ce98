"""Who may look at whom: the past, a window of it, a prefix that sees itself, documents side by side, real steps only.

B batch   S queries   K keys   H heads
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass
class Reach:
    """What the steps of a call see and where they are kept; the same for all layers.

    turn: cos, sin [(B,)S,1,E], or None.   mask: as `attend` takes it; None: everything, or the past if `causal`.
    places: None to write at first .. in the cache, else [B,S] places to write at.
    """

    turn: tuple[Tensor, Tensor] | None
    mask: Tensor | None
    causal: bool
    first: int = 0
    places: Tensor | None = None


def visible(query: Tensor, key: Tensor, causal: bool, window: int | None = None, prefix: Tensor | None = None) -> Tensor:
    """Places of the queries [S] or [B,S] and of the keys [K] -> bool [(B,)S,K], True is seen.

    A step sees itself and window-1 steps before it (and after it, where not causal); the first `prefix` [B] steps see each other.
    """
    back = query[..., None] - key
    seen = back >= 0 if causal else torch.ones_like(back, dtype=torch.bool)
    if prefix is not None:
        seen = seen | (key < prefix[:, None, None])
    return seen if window is None else seen & (back.abs() < window)


def own_document(run: Tensor) -> tuple[Tensor, Tensor]:
    """Runs [B,S] (see `ssd.runs`) -> bool [B,S,S], True within a document, and each step's place in its document [B,S]."""
    here = torch.arange(run.shape[1], device=run.device)
    begins = torch.where(F.pad(run.diff(dim=1), (1, 0)) > 0, here, 0).cummax(1).values
    return run[:, :, None] == run[:, None], here - begins


def real_keys(seen: Tensor, lengths: Tensor) -> Tensor:
    """seen [(B,)S,S] without the padding behind each row's `lengths` [B]; padding sees itself, because a softmax needs something."""
    steps = seen.shape[-1]
    real = torch.arange(steps, device=seen.device) < lengths[:, None, None]
    return (seen & real) | torch.eye(steps, dtype=torch.bool, device=seen.device)


def as_mask(seen: Tensor, bias: Tensor | None) -> Tensor:
    """bool [(B,)S,K] and perhaps a bias [(B,)H,S,K] -> what `attend` takes, [(B,)(H or 1),S,K]"""
    seen = seen[..., None, :, :]
    return seen if bias is None else torch.where(seen, bias, -torch.inf)
