"""One step of Mamba-2's mixer between its two projections, in one launch; its twin is `slm.backbone.mamba2.Mixer.step`.

The window of the convolution moves on, its output through SiLU becomes x, B and C, the state takes them in, and what it says is
multiplied by silu(z). The norm that follows spans heads, hence is another launch: `slm.kernels.norm.rms_norm(..., groups=G)`.

B batch   H heads   P head width   I = H P   G groups   N state width   M = I + 2 G N channels   reach = taps of the convolution - 1
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from slm.kernels.tile import formats, helper


@torch.no_grad()
def step(
    projected: Tensor,
    window: Tensor,
    state: Tensor,
    taps: Tensor,
    bias: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    groups: int,
    real: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """projected [B,I+M+H] = z | x B C | dt, window [B,reach,M], state [B,H,P,N] -> y silu(z) [B,I], and both after the step, anew.

    taps [M,1,reach+1] and bias [M] are the convolution's. Where `real` [B] is False the row stays as it was.
    """
    batch, reach, channels = window.shape
    heads, width, n = state.shape[1:]
    projected, window, state = projected.contiguous(), window.contiguous(), state.contiguous()
    y = torch.empty(batch, heads * width, dtype=projected.dtype, device=projected.device)
    after, next_state = torch.empty_like(window), torch.empty_like(state)
    _step[batch, heads](
        projected, window, state, taps.contiguous(), bias, dt_bias, A_log, D, projected if real is None else real, y, after, next_state,
        channels, heads, heads // groups, width, n, groups * n, reach, triton.next_power_of_2(width), triton.next_power_of_2(n),
        real is not None, formats(state.dtype).WIDE, num_warps=4)  # fmt: skip
    return y, after, next_state


@helper
def _heard(mixed, window, after, taps, bias, m, known, write, awake, M, REACH: tl.constexpr, WIDE: tl.constexpr):
    """silu(convolution) of the channels m; where `write`, their window moves on by one step if the row is awake."""
    newest = tl.load(mixed + m, mask=known, other=0.0)
    z = tl.load(bias + m, mask=known, other=0.0).to(WIDE)
    z += newest.to(WIDE) * tl.load(taps + m * (REACH + 1) + REACH, mask=known, other=0.0).to(WIDE)
    for k in tl.static_range(REACH):
        old = tl.load(window + k * M + m, mask=known, other=0.0)
        z += old.to(WIDE) * tl.load(taps + m * (REACH + 1) + k, mask=known, other=0.0).to(WIDE)
        if k + 1 < REACH:
            new = tl.load(window + (k + 1) * M + m, mask=known, other=0.0)
        else:
            new = newest.to(old.dtype)
        tl.store(after + k * M + m, tl.where(awake, new, old), mask=known & write)
    return z / (1 + tl.exp(-z))


@triton.jit
def _step(projected, window, state, taps, bias, dt_bias, A_log, D, real, y, after, next_state, M, H, share, P, N, GN, REACH: tl.constexpr,
          BP: tl.constexpr, BN: tl.constexpr, RAGGED: tl.constexpr, WIDE: tl.constexpr):  # fmt: skip
    """A program: one head of one row. Heads of a group compute B and C each for itself; the first of them moves their window on."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    p, n = tl.arange(0, BP), tl.arange(0, BN)
    awake = (tl.load(real + row) if RAGGED else 1) != 0
    projected += row * (H * P + M + H)
    mixed = projected + H * P
    window += row * REACH * M
    after += row * REACH * M
    first = head % share == 0
    u = _heard(mixed, window, after, taps, bias, head * P + p, p < P, p < P, awake, M, REACH, WIDE)
    b = _heard(mixed, window, after, taps, bias, H * P + head // share * N + n, n < N, (n < N) & first, awake, M, REACH, WIDE)
    c = _heard(mixed, window, after, taps, bias, H * P + GN + head // share * N + n, n < N, (n < N) & first, awake, M, REACH, WIDE)
    dt = tl.load(mixed + M + head).to(WIDE) + tl.load(dt_bias + head).to(WIDE)
    dt = tl.where(dt > 20, dt, tl.log(1 + tl.exp(tl.minimum(dt, 20.0))))  # softplus
    dt = tl.where(awake, dt, 0.0)
    decay = tl.exp(-dt * tl.exp(tl.load(A_log + head).to(WIDE)))
    cell = (row * H + head) * P * N + p[:, None] * N + n[None, :]
    inside = (p < P)[:, None] & (n < N)[None, :]
    h = tl.load(state + cell, mask=inside, other=0.0).to(WIDE) * decay + (u * dt)[:, None] * b[None, :]
    tl.store(next_state + cell, h, mask=inside)
    z = tl.load(projected + head * P + p, mask=p < P, other=0.0).to(WIDE)
    said = (tl.sum(h * c[None, :], 1) + tl.load(D + head).to(WIDE) * u) * z / (1 + tl.exp(-z))
    tl.store(y + row * H * P + head * P + p, said, mask=p < P)
