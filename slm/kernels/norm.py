"""Root-mean-square norm of groups of channels, gated or not, in one pass each way; its twins are in `slm.nn.norm`.

    v = x silu(gate)      y = v / rms(v) * weight

Back, the root is computed anew rather than kept: the pass reads x and gate in any case.

x, gate, y [R,D]   weight [D]
R rows   D width   G groups of D / G = W channels
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from slm.kernels.tile import bound, formats, helper

ELEMENTS = 4096  # of a tile


def rms_norm(x: Tensor, weight: Tensor, gate: Tensor | None = None, groups: int = 1, eps: float = 1e-5) -> Tensor:
    """x, gate [..., D] -> the norm of x silu(gate) [..., D] in x's dtype, each of `groups` equal groups by itself."""
    flat = x.reshape(-1, x.shape[-1])
    gate = None if gate is None else gate.reshape(flat.shape).to(x.dtype)
    return _Norm.apply(flat, weight, gate, groups, eps).view(x.shape)


@helper
def _sigmoid(x):
    return 1 / (1 + tl.exp(-x))


@triton.jit
def _forward(x, gate, weight, y, xr, gr, R, D, W, eps, ROWS: tl.constexpr, BW: tl.constexpr, GATED: tl.constexpr, WIDE: tl.constexpr):
    """A program: ROWS rows of one group."""
    r, w = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS), tl.arange(0, BW)
    at = tl.program_id(1) * W + w
    real = (r < R)[:, None] & (w < W)[None, :]
    v = tl.load(x + r[:, None] * xr + at[None, :], mask=real, other=0.0).to(WIDE)
    if GATED:
        z = tl.load(gate + r[:, None] * gr + at[None, :], mask=real, other=0.0).to(WIDE)
        v = v * z * _sigmoid(z)
    scale = 1 / tl.sqrt(tl.sum(v * v, 1) / W + eps)
    by = tl.load(weight + at, mask=w < W, other=0.0).to(WIDE)
    tl.store(y + r[:, None] * D + at[None, :], v * scale[:, None] * by[None, :], mask=real)


@triton.jit
def _back(dy, x, gate, weight, dx, dgate, dweight, xr, gr, R, D, W, eps, turns,
          ROWS: tl.constexpr, BW: tl.constexpr, GATED: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """A program: `turns` times ROWS rows of one group, and their share of the weight's gradient."""
    w = tl.arange(0, BW)
    at = tl.program_id(1) * W + w
    by = tl.load(weight + at, mask=w < W, other=0.0).to(WIDE)
    shares = tl.zeros((BW,), WIDE)
    for turn in range(turns):
        r = (tl.program_id(0).to(tl.int64) * turns + turn) * ROWS + tl.arange(0, ROWS)
        real = (r < R)[:, None] & (w < W)[None, :]
        u = tl.load(x + r[:, None] * xr + at[None, :], mask=real, other=0.0).to(WIDE)
        g = tl.load(dy + r[:, None] * D + at[None, :], mask=real, other=0.0).to(WIDE)
        v = u
        if GATED:
            z = tl.load(gate + r[:, None] * gr + at[None, :], mask=real, other=0.0).to(WIDE)
            s = _sigmoid(z)
            v = u * z * s
        scale = 1 / tl.sqrt(tl.sum(v * v, 1) / W + eps)
        normed = v * scale[:, None]
        shares += tl.sum(g * normed, 0)
        g = g * by[None, :]
        dv = scale[:, None] * (g - normed * (tl.sum(g * normed, 1) / W)[:, None])
        if GATED:
            tl.store(dgate + r[:, None] * D + at[None, :], dv * u * s * (1 + z * (1 - s)), mask=real)
            dv = dv * z * s
        tl.store(dx + r[:, None] * D + at[None, :], dv, mask=real)
    tl.store(dweight + tl.program_id(0).to(tl.int64) * D + at, shares, mask=w < W)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, gate, groups, eps):
        x, gate = _side_by_side(x), None if gate is None else _side_by_side(gate)
        (count, dim), width = x.shape, x.shape[1] // groups
        covered = triton.next_power_of_2(width)
        ctx.tile = max(1, ELEMENTS // covered), covered, gate is not None, formats(x.dtype).WIDE
        y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        other = x if gate is None else gate
        if count:
            _forward[triton.cdiv(count, ctx.tile[0]), groups](
                x, other, weight, y, x.stride(0), other.stride(0), count, dim, width, eps, *ctx.tile, num_warps=8)  # fmt: skip
        ctx.save_for_backward(x, weight, gate)
        ctx.groups, ctx.eps = groups, eps
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        x, weight, gate = ctx.saved_tensors
        (count, dim), rows, other = x.shape, ctx.tile[0], x if gate is None else gate
        turns = max(1, count // (rows * 512))  # some 512 programs, each with one partial sum
        programs = triton.cdiv(count, rows * turns)
        dx, dgate = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for _ in range(2))
        dweight = torch.empty(programs, dim, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
        if count:
            _back[programs, ctx.groups](
                dy.contiguous(), x, other, weight, dx, dgate, dweight, x.stride(0), other.stride(0), count, dim, dim // ctx.groups, ctx.eps,
                bound(turns), *ctx.tile, num_warps=8)  # fmt: skip
        return dx, dweight.sum(0).to(weight.dtype), None if gate is None else dgate, None, None


def _side_by_side(x: Tensor) -> Tensor:
    return x if x.stride(1) == 1 else x.contiguous()
