"""Cross-entropy over a large merged vocabulary, whose softmax is never in memory; its twin is torch's own.

    loss_n = w_n ((1 - e) (lse_n - s_n[target]) + e (lse_n - mean s_n))      lse_n = log sum_v exp s_n[v]      e smoothing

`linear_cross_entropy` takes hidden states and the head as well: the scores of some rows at a time become their own gradient in
place, so that N V scores never exist together (Wijmans et al., 2024, "Cut Your Losses"; Hsu et al., 2024, Liger).

scores s [N,V]   target, weights w, loss [N]   hidden [N,D]   head [V,D]
N rows   V vocabulary   D width
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from slm.kernels.tile import bound, formats

IGNORE = -100
BLOCK = 4096  # scores of a row at a time
SCORES = 1 << 27  # most that `linear_cross_entropy` keeps at a time


def cross_entropy(scores: Tensor, target: Tensor, weights: Tensor | None = None, smooth: float = 0.0, ignore: int = IGNORE) -> Tensor:
    """loss [N] in float32 or wider, 0 where the target is `ignore`; in [0, V) is for the caller to see to."""
    return _CrossEntropy.apply(scores, target, weights, smooth, ignore)


def linear_cross_entropy(
    hidden: Tensor, head: Tensor, target: Tensor, weights: Tensor | None = None, smooth: float = 0.0, ignore: int = IGNORE
) -> Tensor:
    """The sum of the losses of the scores hidden @ head^T, a scalar. No gradient flows to `weights`."""
    return _LinearCrossEntropy.apply(hidden, head, target, weights, smooth, ignore)


@triton.jit
def _forward(scores, target, weights, loss, lse, stride, V, smooth, ignore, blocks,
             BV: tl.constexpr, WEIGHTED: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """A program: one row; the largest score and the sum of exponents below it, kept up to date block by block."""
    n = tl.program_id(0).to(tl.int64)
    goal = tl.load(target + n)
    scores += n * stride
    most = tl.full((1,), float("-inf"), WIDE)
    mass, total = tl.zeros((1,), WIDE), tl.zeros((1,), WIDE)
    for k in range(blocks):
        v = k * BV + tl.arange(0, BV)
        s = tl.load(scores + v, mask=v < V, other=float("-inf")).to(WIDE)
        higher = tl.maximum(most, tl.max(s, 0))
        safe = tl.where(higher == float("-inf"), 0.0, higher)  # a block of forbidden ids only
        mass = mass * tl.exp(most - safe) + tl.sum(tl.exp(s - safe), 0)
        most = higher
        total += tl.sum(tl.where(v < V, s, 0.0), 0)
    sum_ = most + tl.log(mass)
    counted = goal != ignore
    hit = tl.load(scores + goal, mask=counted, other=0.0).to(WIDE)
    cost = sum_ - hit
    if smooth > 0:
        cost = (1 - smooth) * cost + smooth * (sum_ - total / V)
    if WEIGHTED:
        cost *= tl.load(weights + n).to(WIDE)
    one = tl.arange(0, 1)
    tl.store(loss + n + one, tl.where(counted, cost, 0.0))
    tl.store(lse + n + one, sum_)


@triton.jit
def _back(dloss, scores, target, weights, lse, dscores, stride, V, smooth, ignore,
          BV: tl.constexpr, WEIGHTED: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """A program: one block of one row; `dscores` may be `scores`."""
    n, v = tl.program_id(0).to(tl.int64), tl.program_id(1) * BV + tl.arange(0, BV)
    goal = tl.load(target + n)
    scale = tl.where(goal == ignore, 0.0, tl.load(dloss + n).to(WIDE))
    if WEIGHTED:
        scale *= tl.load(weights + n).to(WIDE)
    s = tl.load(scores + n * stride + v, mask=v < V, other=0.0).to(WIDE)
    even = tl.full((BV,), 1.0, WIDE) * smooth / V
    gradient = tl.exp(s - tl.load(lse + n)) - even - tl.where(v == goal, 1 - V * even, 0.0)
    tl.store(dscores + n * stride + v, gradient * scale, mask=v < V)


def _losses(scores: Tensor, target: Tensor, weights: Tensor | None, smooth: float, ignore: int) -> tuple[Tensor, Tensor]:
    """loss [N] and the log of the sum of exponents [N]."""
    rows, size = scores.shape
    wide = torch.promote_types(scores.dtype, torch.float32)
    loss, lse = (torch.empty(rows, dtype=wide, device=scores.device) for _ in range(2))
    tile = min(BLOCK, triton.next_power_of_2(size))
    if rows:
        _forward[(rows,)](scores, target, loss if weights is None else weights, loss, lse, scores.stride(0), size, smooth, ignore,
                          bound(triton.cdiv(size, tile)), tile, weights is not None, formats(scores.dtype).WIDE, num_warps=8)  # fmt: skip
    return loss, lse


def _gradient(
    dloss: Tensor, scores: Tensor, target: Tensor, weights: Tensor | None, lse: Tensor, out: Tensor, smooth: float, ignore: int
) -> None:
    rows, size = scores.shape
    tile = min(BLOCK, triton.next_power_of_2(size))
    if rows:
        _back[rows, triton.cdiv(size, tile)](
            dloss, scores, target, lse if weights is None else weights, lse, out, scores.stride(0), size, smooth, ignore,
            tile, weights is not None, formats(scores.dtype).WIDE, num_warps=8)  # fmt: skip


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scores, target, weights, smooth, ignore):
        scores = scores.contiguous()
        loss, lse = _losses(scores, target, weights, smooth, ignore)
        ctx.save_for_backward(scores, target, weights, lse, loss)
        ctx.told = smooth, ignore
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx, dloss):
        scores, target, weights, lse, loss = ctx.saved_tensors
        out = torch.empty_like(scores)
        _gradient(dloss.contiguous(), scores, target, weights, lse, out, *ctx.told)
        dweights = None
        if weights is not None and ctx.needs_input_grad[2]:
            dweights = (dloss * _losses(scores, target, None, *ctx.told)[0]).to(weights.dtype)
        return out, None, dweights, None, None


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, head, target, weights, smooth, ignore):
        wide = torch.promote_types(hidden.dtype, torch.float32)
        total = torch.zeros((), dtype=wide, device=hidden.device)
        trained = any(ctx.needs_input_grad[:2])
        dhidden = torch.empty(hidden.shape, dtype=hidden.dtype, device=hidden.device) if trained else None
        dhead = torch.zeros(head.shape, dtype=wide, device=head.device) if trained else None
        book, many = head.to(hidden.dtype), max(1, SCORES // len(head))
        for begin in range(0, len(hidden), many):
            rows = slice(begin, begin + many)
            scores, some = hidden[rows] @ book.t(), None if weights is None else weights[rows]
            loss, lse = _losses(scores, target[rows], some, smooth, ignore)
            total += loss.sum()
            if trained:
                _gradient(torch.ones_like(loss), scores, target[rows], some, lse, scores, smooth, ignore)
                dhidden[rows] = scores @ book
                dhead += scores.t() @ hidden[rows]
        ctx.save_for_backward(dhidden, dhead)
        ctx.dtype = head.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, dtotal):
        dhidden, dhead = ctx.saved_tensors
        return (dtotal * dhidden).to(dhidden.dtype), (dtotal * dhead).to(ctx.dtype), None, None, None, None
