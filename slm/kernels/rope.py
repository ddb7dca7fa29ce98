"""Rotary positions in one pass each way, without the rolled copy; its twin is `slm.nn.rope.rotate`.

x [B,S,H,E]   cos, sin [S,1,E] or [B,S,1,E], the first half of sin negated
B batch   S steps   H heads   E head width
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from slm.kernels.tile import formats, rows


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x [B,S,H,E] turned by its positions' angles, in x's dtype. No gradient flows to cos and sin."""
    return _Rotation.apply(x, cos, sin)


@triton.jit
def _turn(x, cos, sin, y, xb, xs, cb, cs, sb, ss, S, H, E, BH: tl.constexpr, HALF: tl.constexpr, BACK: tl.constexpr, WIDE: tl.constexpr):
    """A program: BH heads of one step. The transpose of a rotation adds what the other half was multiplied by there."""
    row, t = tl.program_id(0).to(tl.int64) // S, tl.program_id(0).to(tl.int64) % S
    h, e, half = tl.program_id(1) * BH + tl.arange(0, BH)[:, None], tl.arange(0, HALF)[None, :], E // 2
    real = (h < H) & (e < half)
    low = tl.load(x + row * xb + t * xs + h * E + e, mask=real, other=0.0).to(WIDE)
    high = tl.load(x + row * xb + t * xs + h * E + half + e, mask=real, other=0.0).to(WIDE)
    cos += row * cb + t * cs + e
    sin += row * sb + t * ss + e
    cos_low = tl.load(cos, mask=e < half, other=0.0).to(WIDE)
    cos_high = tl.load(cos + half, mask=e < half, other=0.0).to(WIDE)
    sin_low = tl.load(sin, mask=e < half, other=0.0).to(WIDE)
    sin_high = tl.load(sin + half, mask=e < half, other=0.0).to(WIDE)
    if BACK:
        sin_low, sin_high = sin_high, sin_low
    y += (row * S + t) * H * E + h * E + e
    tl.store(y, low * cos_low + high * sin_low, mask=real)
    tl.store(y + half, high * cos_high + low * sin_high, mask=real)


def _launch(x: Tensor, cos: Tensor, sin: Tensor, back: bool) -> Tensor:
    x = rows(x)
    batch, steps, heads, width = x.shape
    cos, sin = (t.expand(batch, steps, 1, width) for t in (cos, sin))
    y = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    if y.numel():
        tile = min(32, triton.next_power_of_2(heads))
        _turn[batch * steps, triton.cdiv(heads, tile)](
            x, cos, sin, y, *x.stride()[:2], *cos.stride()[:2], *sin.stride()[:2], steps, heads, width, tile,
            triton.next_power_of_2(width // 2), back, formats(x.dtype).WIDE, num_warps=4)  # fmt: skip
    return y


class _Rotation(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, cos, sin):
        ctx.save_for_backward(cos, sin)
        return _launch(x, cos, sin, back=False)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        return _launch(dy, *ctx.saved_tensors, back=True), None, None
