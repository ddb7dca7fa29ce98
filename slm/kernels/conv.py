"""Causal depthwise convolution and SiLU in one pass each way; its twin is `slm.backbone.convolve.convolve_silu`.

    z_t = bias + sum_k weight_k x_{t-reach+k}      y = silu(z)      reach = taps - 1

A tap is silent where it would hear another run. Back, z is computed anew at the `reach` steps that heard x_t.

x, y [B,S,M]   weight [M,1,taps]   bias [M]   past [B,reach,M] the inputs before the first step   run [B,S]
B batch   S steps   M channels
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from slm.kernels.tile import formats, helper, rows

STEPS, CHANNELS = 32, 64  # of a tile


def conv_silu(x: Tensor, weight: Tensor, bias: Tensor, past: Tensor | None = None, run: Tensor | None = None) -> Tensor:
    """x [B,S,M] -> silu(conv(x)) [B,S,M] in x's dtype; without `past` there was silence before. `run` and `past` exclude each other."""
    past = None if past is None else past.to(x.dtype).contiguous()
    return _Convolution.apply(x, weight[:, 0], bias, past, run)


@helper
def _heard(x, past, run, t, m, S, M, xs, reach, real, mine, PAST: tl.constexpr, RUN: tl.constexpr):
    """The inputs [L,M] at the steps t [L] (as far back as -reach) that a step of run `mine` hears."""
    seen = real & (t >= 0)[:, None]
    if RUN:
        theirs = tl.load(run + t, mask=(t >= 0) & (t < S), other=-1)
        seen = seen & (theirs == mine)[:, None]
    v = tl.load(x + t[:, None] * xs + m[None, :], mask=seen, other=0.0)
    if PAST:
        v += tl.load(past + (t + reach)[:, None] * M + m[None, :], mask=real & (t < 0)[:, None] & (t + reach >= 0)[:, None], other=0.0)
    return v


@triton.jit
def _forward(x, weight, bias, past, run, y, xb, xs, S, M, TAPS: tl.constexpr, L: tl.constexpr, BM: tl.constexpr,
             PAST: tl.constexpr, RUN: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    t, m = tl.program_id(1) * L + tl.arange(0, L), tl.program_id(2) * BM + tl.arange(0, BM)
    x += row * xb
    past += row * (TAPS - 1) * M
    run += row * S
    real = (t < S)[:, None] & (m < M)[None, :]
    mine = tl.load(run + t, mask=t < S, other=0) if RUN else 0
    z = tl.zeros((L, BM), WIDE) + tl.load(bias + m, mask=m < M, other=0.0).to(WIDE)[None, :]
    for k in tl.static_range(TAPS):
        tap = tl.load(weight + m * TAPS + k, mask=m < M, other=0.0).to(WIDE)
        v = _heard(x, past, run, t - (TAPS - 1 - k), m, S, M, xs, TAPS - 1, real, mine, PAST, RUN)
        z += tap[None, :] * v.to(WIDE)
    tl.store(y + (row * S + t)[:, None] * M + m[None, :], z / (1 + tl.exp(-z)), mask=real)


@triton.jit
def _back(dy, x, weight, bias, past, run, dx, dpast, dweight, dbias, xb, xs, S, M, tiles, TAPS: tl.constexpr, L: tl.constexpr,
          BM: tl.constexpr, PAST: tl.constexpr, RUN: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """A program: L steps from -reach on, BM channels; their dx, and the share of weight and bias of the steps themselves."""
    row, reach = tl.program_id(0).to(tl.int64), TAPS - 1
    t, m = tl.program_id(1) * L - reach + tl.arange(0, L), tl.program_id(2) * BM + tl.arange(0, BM)
    x += row * xb
    past += row * reach * M
    run += row * S
    known = (m < M)[None, :]
    mine = tl.load(run + t, mask=(t >= 0) & (t < S), other=-1) if RUN else 0
    b = tl.load(bias + m, mask=m < M, other=0.0).to(WIDE)
    grad = tl.zeros((L, BM), WIDE)
    share = ((row * tiles + tl.program_id(1)) * M + m) * TAPS
    for ahead in tl.static_range(TAPS):  # step t + ahead heard x_t through tap reach - ahead
        u = t + ahead
        real = ((u >= 0) & (u < S))[:, None] & known
        theirs = tl.load(run + u, mask=(u >= 0) & (u < S), other=-2) if RUN else 0
        z = tl.zeros((L, BM), WIDE) + b[None, :]
        for k in tl.static_range(TAPS):
            tap = tl.load(weight + m * TAPS + k, mask=m < M, other=0.0).to(WIDE)
            z += tap[None, :] * _heard(x, past, run, u - (reach - k), m, S, M, xs, reach, real, theirs, PAST, RUN).to(WIDE)
        s = 1 / (1 + tl.exp(-z))
        dz = tl.load(dy + (row * S + u)[:, None] * M + m[None, :], mask=real, other=0.0).to(WIDE) * s * (1 + z * (1 - s))
        back = tl.load(weight + m * TAPS + (reach - ahead), mask=m < M, other=0.0).to(WIDE)
        if RUN:
            grad += tl.where((theirs == mine)[:, None], dz * back[None, :], 0.0)
        else:
            grad += dz * back[None, :]
        if ahead == 0:
            tl.store(dbias + (row * tiles + tl.program_id(1)) * M + m, tl.sum(dz, 0), mask=m < M)
            for k in tl.static_range(TAPS):
                v = _heard(x, past, run, u - (reach - k), m, S, M, xs, reach, real, theirs, PAST, RUN).to(WIDE)
                tl.store(dweight + share + k, tl.sum(dz * v, 0), mask=m < M)
    tl.store(dx + (row * S + t)[:, None] * M + m[None, :], grad, mask=((t >= 0) & (t < S))[:, None] & known)
    if PAST:
        tl.store(dpast + (row * reach + t + reach)[:, None] * M + m[None, :], grad, mask=(t < 0)[:, None] & known)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, past, run):
        x, weight = rows(x), weight.contiguous()
        run = None if run is None else run.contiguous()
        batch, steps, channels = x.shape
        ctx.tile = weight.shape[1], STEPS, CHANNELS, past is not None, run is not None, formats(x.dtype).WIDE
        y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        _forward[batch, triton.cdiv(steps, STEPS), triton.cdiv(channels, CHANNELS)](
            x, weight, bias, x if past is None else past, x if run is None else run, y, *x.stride()[:2], steps, channels,
            *ctx.tile)  # fmt: skip
        ctx.save_for_backward(x, weight, bias, past, run)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        x, weight, bias, past, run = ctx.saved_tensors
        batch, steps, channels = x.shape
        tiles, wide = triton.cdiv(steps + weight.shape[1] - 1, STEPS), torch.promote_types(x.dtype, torch.float32)
        dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        dpast = None if past is None else torch.empty_like(past)
        dweight = torch.empty(batch, tiles, *weight.shape, dtype=wide, device=x.device)
        dbias = torch.empty(batch, tiles, channels, dtype=wide, device=x.device)
        _back[batch, tiles, triton.cdiv(channels, CHANNELS)](
            dy.contiguous(), x, weight, bias, x if past is None else past, x if run is None else run, dx, dx if past is None else dpast,
            dweight, dbias, *x.stride()[:2], steps, channels, tiles, *ctx.tile)  # fmt: skip
        return dx, dweight.sum((0, 1)).to(weight.dtype), dbias.sum((0, 1)).to(bias.dtype), dpast, None
