"""RWKV-4's weighted mean of the past (Peng et al., 2023), for all steps at once by doubling.

    y_t = (sum_{i<t} e^{k_i - (t-1-i) w} v_i + e^{u + k_t} v_t) / (the same sum without v)

The sums over the past are kept as e^top times a numerator and a denominator, so that no key is too large: `top` is the largest
exponent so far. What is known of two neighbouring stretches of steps gives what is known of both (`_join`), so log2(S) rounds
suffice where a recurrence needs S; a recurrence is what one step of it is.

k, v [B,S,D]   w [D] > 0   u [D]   past: top, numerator, denominator, each [B,D]
B batch   S steps   D width
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

NOTHING = -1e38  # the exponent of an empty sum: finite, because -inf - -inf is nan


def wkv(
    k: Tensor, v: Tensor, w: Tensor, u: Tensor, past: tuple[Tensor, Tensor, Tensor] | None = None, run: Tensor | None = None
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """y [B,S,D], and top, numerator, denominator [B,S+1,D] after 0 .. S steps; all in the dtype of k.

    With `run` [B,S] (see `ssd.runs`) the past ends where it grows, and `past` must then be None.
    """
    if past is None:
        past = (torch.full_like(k[:, 0], NOTHING), torch.zeros_like(k[:, 0]), torch.zeros_like(k[:, 0]))
    known = tuple(torch.cat([p[:, None], new], 1) for p, new in zip(past, (k, v, torch.ones_like(k)), strict=True))
    if run is not None:
        run = F.pad(run, (1, 0), value=-1)
    span = 1
    while span < known[0].shape[1]:
        known = _double(known, span, w, run)
        span *= 2
    before = tuple(t[:, :-1] for t in known)
    if run is not None:
        fresh = (run[:, 1:] != run[:, :-1])[..., None]
        before = (before[0].masked_fill(fresh, NOTHING), *(t.masked_fill(fresh, 0) for t in before[1:]))
    _, numerator, denominator = _join(before, (k + u, v, torch.ones_like(k)))
    return numerator / denominator, known


def _double(known: tuple[Tensor, ...], span: int, w: Tensor, run: Tensor | None) -> tuple[Tensor, ...]:
    """From what is known of the last `span` steps, at every step, to the last 2 * `span`."""
    top, numerator, denominator = (t[:, :-span] for t in known)
    top = top - span * w
    if run is not None:
        other = (run[:, span:] != run[:, :-span])[..., None]
        top, numerator, denominator = top.masked_fill(other, NOTHING), numerator.masked_fill(other, 0), denominator.masked_fill(other, 0)
    joined = _join((top, numerator, denominator), tuple(t[:, span:] for t in known))
    return tuple(torch.cat([t[:, :span], new], 1) for t, new in zip(known, joined, strict=True))


def _join(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """The sums of two stretches of steps, those of `a` already decayed to the end of `b`, as one."""
    with torch.no_grad():
        top = torch.maximum(a[0], b[0])
    old, new = (a[0] - top).exp(), (b[0] - top).exp()
    return top, old * a[1] + new * b[1], old * a[2] + new * b[2]
