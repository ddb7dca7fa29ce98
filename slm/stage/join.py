"""Several ragged pieces in one sequence, and one of them taken out again: for stages that see all of a sequence at once.

B rows   S steps of the whole   T steps of a piece   D width
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def join(*pieces: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Right-padded pieces ([B,T,D], lengths [B]) -> one right-padded [B,S,D] with each row's pieces end to end, and its lengths."""
    counts = [(x, lengths.tolist()) for x, lengths in pieces]
    rows = [torch.cat([x[b, : n[b]] for x, n in counts]) for b in range(len(pieces[0][0]))]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True), sum(lengths for _, lengths in pieces)


def take(x: Tensor, start: Tensor, steps: int) -> Tensor:
    """x [B,S,D] -> [B,steps,D] from each row's step `start` [B] on; beyond the end of x its last step again."""
    at = start[:, None] + torch.arange(steps, device=x.device)
    return x.gather(1, at.clamp(max=x.shape[1] - 1)[..., None].expand(-1, -1, x.shape[-1]))
