"""A waveform to frames: the convolutions in front of wav2vec 2.0 and HuBERT.

Baevski et al., 2020, "wav2vec 2.0: A Framework for Self-Supervised Learning of Speech Representations", section 2.

B batch, N samples, C channels of a convolution, L its steps, T frames, D width.
Frame t has heard `field` samples from t*hop on, so N samples give T = (N - field) // hop + 1; nothing is padded.

A batch of different lengths is padded on the right, and a row's frames are those of the row alone. Small models normalise
the first convolution over time, which in other implementations lets the padding in; here only a row's own steps count.
The names of the weights are those of transformers.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.data.batch import pad
from slm.errors import SlmError


@dataclass
class Frames:
    """x [B,T,D], of which row b has `count[b]` frames; what lies behind them means nothing."""

    x: Tensor
    count: Tensor  # [B] long

    @property
    def real(self) -> Tensor:
        """[B,T], true where a row has a frame."""
        return inside(self.x.shape[1], self.count)

    @property
    def rows(self) -> Tensor:
        """The real frames of all rows, one after the other [M,D]."""
        return self.x[self.real]


class Convolutions(nn.Module):
    """audio [B,1,N] -> [B,T,C], each layer a convolution, perhaps a norm, and GELU.

    norm "group" normalises each channel of the first layer over time, "layer" the channels of every layer at each step.
    """

    def __init__(self, widths: tuple[int, ...], kernels: tuple[int, ...], strides: tuple[int, ...], bias: bool, norm: str):
        super().__init__()
        if not len(widths) == len(kernels) == len(strides) or not widths or min(*widths, *kernels, *strides) < 1:
            raise SlmError(f"widths {widths}, kernels {kernels} and strides {strides} must be as many whole numbers from 1 up each")
        if norm not in ("group", "layer"):
            raise SlmError(f"norm is {norm!r} but must be 'group' or 'layer'")
        self.kernels, self.strides = kernels, strides
        self.hop = math.prod(strides)
        self.field = 1
        for kernel, stride in zip(reversed(kernels), reversed(strides)):
            self.field = (self.field - 1) * stride + kernel  # samples
        inner = zip((1, *widths), widths, kernels, strides)
        kinds = [norm if norm == "layer" or i == 0 else None for i in range(len(widths))]
        self.conv_layers = nn.ModuleList(Convolution(*shape, bias, kind) for shape, kind in zip(inner, kinds))

    def forward(self, audio: Tensor, lengths: Tensor) -> Frames:
        """audio [B,1,N], lengths [B] in samples -> [B,T,C]. SlmError if a row is shorter than `field`."""
        check(audio, lengths, self.field)
        x, count = audio, lengths
        for layer, kernel, stride in zip(self.conv_layers, self.kernels, self.strides):
            count = (count - kernel) // stride + 1
            x = layer(x, count)  # [B,C,L]
        return Frames(x.transpose(1, 2), count)


class Convolution(nn.Module):
    """x [B,C,L] -> [B,C',(L - kernel) // stride + 1]"""

    def __init__(self, width: int, out: int, kernel: int, stride: int, bias: bool, norm: str | None):
        super().__init__()
        self.conv = nn.Conv1d(width, out, kernel, stride, bias=bias)
        nn.init.kaiming_normal_(self.conv.weight)
        self.norm = norm
        if norm:
            self.layer_norm = nn.GroupNorm(out, out) if norm == "group" else nn.LayerNorm(out)

    def forward(self, x: Tensor, count: Tensor) -> Tensor:
        x = self.conv(x)
        if self.norm == "group":
            x = over_time(self.layer_norm, x, count)
        elif self.norm == "layer":
            x = self.layer_norm(x.transpose(1, 2)).transpose(1, 2)
        return F.gelu(x)


def over_time(norm: nn.GroupNorm, x: Tensor, count: Tensor) -> Tensor:
    """x [B,C,L], each channel brought to mean 0 and variance 1 over the first `count` [B] steps of its row."""
    if bool((count == x.shape[-1]).all()):
        return norm(x)
    real = inside(x.shape[-1], count)[:, None]  # [B,1,L]
    wide, steps = x.float(), count[:, None, None]
    mean = (wide * real).sum(-1, keepdim=True) / steps
    centred = (wide - mean) * real
    spread = (centred.square().sum(-1, keepdim=True) / steps + norm.eps).sqrt()
    return (centred / spread * norm.weight[:, None] + norm.bias[:, None]).to(x.dtype)


def rectangle(audio: Tensor | list[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows [1,N] of any lengths, or a batch [B,1,N] without padding -> audio [B,1,N], lengths [B]."""
    if isinstance(audio, list):
        return pad(audio)
    return audio, torch.full((len(audio),), audio.shape[-1], device=audio.device)


def levelled(audio: Tensor, lengths: Tensor) -> Tensor:
    """audio [B,1,N], each row brought to mean 0 and variance 1, zeros behind its end."""
    real = inside(audio.shape[-1], lengths)[:, None]
    samples = lengths[:, None, None]
    centred = (audio - (audio * real).sum(-1, keepdim=True) / samples) * real
    return centred / (centred.square().sum(-1, keepdim=True) / samples + 1e-7).sqrt()


def inside(steps: int, count: Tensor) -> Tensor:
    """count [B] -> [B,steps], true in the first `count` of each row"""
    return torch.arange(steps, device=count.device) < count[:, None]


def check(audio: Tensor, lengths: Tensor, least: int) -> None:
    if audio.dim() != 3 or audio.shape[1] != 1 or not audio.is_floating_point():
        raise SlmError(f"audio is {audio.dtype} of shape {list(audio.shape)} but floats [B, 1, N] are needed")
    if lengths.shape != audio.shape[:1] or int(lengths.max()) > audio.shape[-1]:
        raise SlmError(f"lengths are {lengths.tolist()} but one for each of {audio.shape[0]} rows, up to {audio.shape[-1]}, is needed")
    if int(lengths.min()) < least:
        raise SlmError(f"audio has {int(lengths.min())} samples but this encoder needs at least {least} for one frame")
    if not audio.isfinite().all():
        raise SlmError("audio holds NaN or infinite samples")
