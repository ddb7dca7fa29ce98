"""HiFi-GAN's generator: log-mel in, waveform out (Kong et al., 2020; jik876/hifi-gan holds the original weights).

    HiFiGAN.Config.v1().build()(mel)        # [B, M, T] -> [B, 1, T * hop]

B batch · M input channels (mel bands, or the width of code embeddings) · T frames · hop = product of the rates
Transposed convolutions raise the rate; after each, residual blocks of several kernels run side by side and are averaged.
Parameter names are those of the original, without weight norm: conv_pre, ups.N, resblocks.N.convs1.M, conv_post.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce
from math import isfinite, prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

from slm.errors import SlmError
from slm.nn.mel import PRESETS, LogMel


class HiFiGAN(nn.Module):
    """Built with weight norm, for training; `remove_weight_norm()` folds it for use. `slm_vocoders.load` returns it folded."""

    @dataclass
    class Config:
        """rate: Hz of the audio. rates and kernels: one upsampling each. block 1 has a second convolution after each dilated
        one, block 2 has not. normalize: subtract `mean` and divide by `scale`, buffers that come with the weights.
        mel: what the input is, None where it is not a mel."""

        n_in: int = 80
        rate: int = 22050
        channels: int = 512
        rates: tuple[int, ...] = (8, 8, 2, 2)
        kernels: tuple[int, ...] = (16, 16, 4, 4)
        block: int = 1
        block_kernels: tuple[int, ...] = (3, 7, 11)
        dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
        slope: float = 0.1
        normalize: bool = False
        mel: LogMel.Config | None = None

        @classmethod
        def v1(cls) -> "HiFiGAN.Config":
            """The best one, 13.93 M parameters."""
            return cls(mel=replace(PRESETS["hifigan22k"]))

        @classmethod
        def v2(cls) -> "HiFiGAN.Config":
            """V1 with a quarter of its channels, 0.93 M parameters."""
            return replace(cls.v1(), channels=128)

        @classmethod
        def v3(cls) -> "HiFiGAN.Config":
            """Three upsamplings and shallow blocks, 1.46 M parameters, the fastest on a CPU."""
            return replace(
                cls.v1(), channels=256, rates=(8, 8, 4), kernels=(16, 16, 8), block=2,
                block_kernels=(3, 5, 7), dilations=((1, 2), (2, 6), (3, 12)),
            )  # fmt: skip

        def build(self) -> "HiFiGAN":
            return HiFiGAN(self)

    def __init__(self, config: Config):
        super().__init__()
        check(config)
        self.config = config
        self.rate, self.hop = config.rate, prod(config.rates)
        widths = [config.channels // 2**i for i in range(len(config.rates) + 1)]
        block = ResBlock1 if config.block == 1 else ResBlock2

        self.conv_pre = nn.Conv1d(config.n_in, widths[0], 7, padding=3)
        self.ups = nn.ModuleList(map(upsampling, widths, widths[1:], config.kernels, config.rates))
        self.resblocks = nn.ModuleList(
            block(width, kernel, dilations, config.slope)
            for width in widths[1:]
            for kernel, dilations in zip(config.block_kernels, config.dilations)
        )
        self.conv_post = nn.Conv1d(widths[-1], 1, 7, padding=3)
        if config.normalize:
            self.register_buffer("mean", torch.zeros(config.n_in))
            self.register_buffer("scale", torch.ones(config.n_in))
        self.add_weight_norm()

    def forward(self, mel: Tensor) -> Tensor:
        """[B, M, T] -> audio [B, 1, T * hop] within (-1, 1).

        Raises SlmError for another number of channels, T = 0, and, while not training, NaN or a mel that is no natural logarithm.
        """
        if mel.dim() != 3 or mel.shape[1] != self.config.n_in or mel.shape[2] == 0:
            raise SlmError(f"The vocoder takes [batch, {self.config.n_in}, frames > 0], not {list(mel.shape)}.")
        if not self.training:
            check_mel(mel, self.config.mel is not None)
        if self.config.normalize:
            mel = (mel - self.mean[:, None]) / self.scale[:, None]
        x = self.conv_pre(mel)
        side = len(self.config.block_kernels)
        for i, up in enumerate(self.ups):
            x = up(F.leaky_relu(x, self.config.slope))
            blocks = self.resblocks[i * side : (i + 1) * side]
            x = reduce(torch.add, (block(x) for block in blocks)) / side
        return torch.tanh(self.conv_post(F.leaky_relu(x, 0.01)))  # 0.01 here whatever `slope` is: the original's default

    def pieces(self, mel: Tensor, frames: int) -> Iterator[Tensor]:
        """forward() in pieces of `frames` frames (the last may be shorter), which joined are forward()'s audio."""
        context = self.receptive_field
        for start in range(0, mel.shape[-1], frames):
            left = min(start, context)
            piece = self(mel[..., start - left : start + frames + context])
            yield piece[..., left * self.hop : (left + frames) * self.hop]

    @property
    def receptive_field(self) -> int:
        """How many frames on either side of a frame can change its samples."""
        config = self.config
        last = self.hop - 1 + 3  # the latest sample that conv_post reads for frame 0; never nearer than the earliest
        for rate, kernel in zip(reversed(config.rates), reversed(config.kernels)):
            reach = max(block_reach(config.block, k, d) for k, d in zip(config.block_kernels, config.dilations))
            last = (last + reach + (kernel - rate + 1) // 2) // rate
        return last + 3

    def add_weight_norm(self) -> "HiFiGAN":
        for conv in self.convolutions():
            if not parametrize.is_parametrized(conv):
                weight_norm(conv)
        return self

    def remove_weight_norm(self) -> "HiFiGAN":
        """Fold the norms into plain weights; the same audio, faster."""
        for conv in self.convolutions():
            if parametrize.is_parametrized(conv):
                weight, learns = conv.weight.detach(), conv.parametrizations.weight.original1.requires_grad
                parametrize.remove_parametrizations(conv, "weight")
                # under no_grad, or frozen, torch leaves a tensor here that state_dict() and to() would pass over
                conv.weight = nn.Parameter(weight, requires_grad=learns)
        return self

    def convolutions(self) -> list[nn.Module]:
        return [module for module in self.modules() if isinstance(module, nn.Conv1d | nn.ConvTranspose1d)]


class ResBlock1(nn.Module):
    """Per dilation: a dilated convolution, then a plain one, and a skip around both."""

    def __init__(self, width: int, kernel: int, dilations: tuple[int, ...], slope: float):
        super().__init__()
        self.convs1 = nn.ModuleList(same(width, kernel, dilation) for dilation in dilations)
        self.convs2 = nn.ModuleList(same(width, kernel, 1) for _ in dilations)
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        for dilated, plain in zip(self.convs1, self.convs2):
            x = plain(F.leaky_relu(dilated(F.leaky_relu(x, self.slope)), self.slope)) + x
        return x


class ResBlock2(nn.Module):
    """Per dilation: one dilated convolution and a skip around it."""

    def __init__(self, width: int, kernel: int, dilations: tuple[int, ...], slope: float):
        super().__init__()
        self.convs = nn.ModuleList(same(width, kernel, dilation) for dilation in dilations)
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = conv(F.leaky_relu(x, self.slope)) + x
        return x


def same(width: int, kernel: int, dilation: int) -> nn.Conv1d:
    return nn.Conv1d(width, width, kernel, dilation=dilation, padding=(kernel - 1) * dilation // 2)


def upsampling(inside: int, outside: int, kernel: int, rate: int) -> nn.ConvTranspose1d:
    """Exactly `rate` times as long; where kernel - rate is even this is the original's padding."""
    odd = (kernel - rate) % 2
    return nn.ConvTranspose1d(inside, outside, kernel, rate, padding=(kernel - rate + 1) // 2, output_padding=odd)


def block_reach(block: int, kernel: int, dilations: tuple[int, ...]) -> int:
    """How many samples on either side a residual block sees."""
    dilated = sum(dilations) + (len(dilations) if block == 1 else 0)
    return (kernel - 1) // 2 * dilated


def check_mel(mel: Tensor, log: bool) -> None:
    """Raise SlmError for NaN, and for what cannot be the logarithm of a mel of audio within (-1, 1)."""
    low, high = (float(edge) for edge in mel.detach().aminmax())
    if not isfinite(low) or not isfinite(high):
        raise SlmError("The mel holds NaN or infinite numbers.")
    if log and low < -30:
        raise SlmError(f"The mel goes down to {low:.0f}, which looks like decibels; this vocoder takes natural logarithms.")
    if log and low >= 0 and high > 6:
        raise SlmError(f"The mel lies within {low:.1f} and {high:.1f}, which looks linear; this vocoder takes natural logarithms.")


def check(config: HiFiGAN.Config) -> None:
    """Raise SlmError for shapes that cannot be built."""
    if len(config.rates) != len(config.kernels) or any(k < r for k, r in zip(config.kernels, config.rates)):
        raise SlmError(f"HiFi-GAN needs one kernel a rate, at least as long: rates {config.rates}, kernels {config.kernels}.")
    if len(config.block_kernels) != len(config.dilations) or any(k % 2 == 0 for k in config.block_kernels):
        raise SlmError(f"HiFi-GAN needs dilations for each odd block kernel: kernels {config.block_kernels}, dilations {config.dilations}.")
    if config.block not in (1, 2):
        raise SlmError(f"HiFi-GAN's residual block is 1 or 2, not {config.block!r}.")
    if config.channels % 2 ** len(config.rates):
        raise SlmError(
            f"HiFi-GAN's channels ({config.channels}) halve {len(config.rates)} times: use a multiple of {2 ** len(config.rates)}."
        )
    if config.mel and (config.mel.n_mels, config.mel.rate, config.mel.hop) != (config.n_in, config.rate, prod(config.rates)):
        raise SlmError(
            f"The vocoder takes {config.n_in} channels and makes {prod(config.rates)} samples a frame at {config.rate} Hz, "
            f"its mel has {config.mel.n_mels} bands and {config.mel.hop} samples a frame at {config.mel.rate} Hz."
        )
