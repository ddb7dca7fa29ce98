"""A depthwise convolution over time that can be gone on with, and the last steps it must remember for that.

B batch   S steps   M channels   R reach: the steps that are heard before the present one
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from slm.kernels import usable


def widen(x: Tensor, past: Tensor | None, before: int, after: int = 0) -> Tensor:
    """x [B,S,M] behind the steps before it, `past` [B,before,M] or zeros, and without a past in front of `after` zeros."""
    return F.pad(x, (0, 0, before, after)) if past is None else torch.cat([past.to(x.dtype), x], 1)


def tail(window: Tensor, reach: int, lengths: Tensor | None) -> Tensor:
    """The last R steps [B,R,M] before each row's next real step, from a window [B,R+S,M] of which `lengths` [B] steps are real."""
    if lengths is None:
        return window[:, window.shape[1] - reach :].clone()  # a slice would keep the whole window in memory
    at = lengths[:, None] + torch.arange(reach, device=window.device)  # window[:, 0] lies R steps back
    return window.gather(1, at[..., None].expand(-1, -1, window.shape[2]))


def convolve(window: Tensor, weight: Tensor, bias: Tensor, steps: int, run: Tensor | None = None, centre: int | None = None) -> Tensor:
    """window [B,K-1+S,M], weight [M,1,K], bias [M] -> [B,S,M]; output t hears window[:, t : t + K].

    Tap by tap in the layout at hand: on a CPU twice as fast as a depthwise conv1d and its transposes. With `run` [B,S] (see
    `ssd.runs`) a tap is silent where it would hear another document; `centre` is the tap that hears the step itself, by default the last.
    """
    taps = weight[:, 0].t().to(window.dtype)  # [K,M]
    if steps == 1 and window.shape[1] == len(taps) and run is None:
        return (window * taps).sum(1, keepdim=True) + bias.to(window.dtype)
    taps = taps.contiguous()
    centre = len(taps) - 1 if centre is None else centre
    y = torch.addcmul(bias.to(window.dtype), window[:, centre : centre + steps], taps[centre])
    for k in (k for k in range(len(taps)) if k != centre):
        heard = window[:, k : k + steps]
        if run is not None:
            heard = heard * _same(run, centre - k)[..., None]
        y = torch.addcmul(y, heard, taps[k])
    return y


def convolve_silu(x: Tensor, past: Tensor | None, weight: Tensor, bias: Tensor, run: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """x [B,S,M] behind `past` [B,K-1,M] -> silu(convolution) [B,S,M], fused where kernels are, and the window, if there was a past."""
    reach = weight.shape[-1] - 1
    if usable(x):
        from slm.kernels.conv import conv_silu

        return conv_silu(x, weight, bias, past, run), None if past is None else widen(x, past, reach)
    window = widen(x, past, reach)
    return F.silu(convolve(window, weight, bias, x.shape[1], run)), None if past is None else window


def _same(run: Tensor, back: int) -> Tensor:
    """Whether each step and the one `back` steps before it (after it, if negative) are of one document, [B,S]."""
    steps = run.shape[1]
    other = F.pad(run, (back, 0), value=-1)[:, :steps] if back > 0 else F.pad(run, (0, -back), value=-1)[:, -steps:]
    return run == other
