"""Critics of waveforms: multi-period and multi-scale (HiFi-GAN, Kong et al., 2020), complex STFT (EnCodec, Defossez et al., 2022).

And one of mels. Each is called with audio [B, 1, N], that one with mels, and returns one (score, [features]) for every sub-critic, so
`mpd(x) + stft(x)` is itself a critic's answer and everything in losses.py takes it. A score is any shape that starts with the (folded)
batch.

B batch · N samples · p period · C channels · T frames · F frequency bins · M mel bands
`scale` multiplies the paper's channels: 1 is 41 M parameters for MPD and 30 M for MSD, 1/4 trains on a CPU.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from slm.errors import SlmError

Judgement = list[tuple[Tensor, list[Tensor]]]


@contextmanager
def frozen(critic: nn.Module) -> Iterator[nn.Module]:
    """Within, the critic passes gradients on but collects none: the generator's step is a third cheaper."""
    wanted = [p for p in critic.parameters() if p.requires_grad]
    for p in wanted:
        p.requires_grad_(False)
    try:
        yield critic
    finally:
        for p in wanted:
            p.requires_grad_(True)


class Tower(nn.Module):
    """Convolutions with leaky ReLU between them, then one to a single channel. The score is the last feature, as in HiFi-GAN."""

    def __init__(self, convs: list[nn.Module], last: nn.Module, slope: float):
        super().__init__()
        self.convs = nn.ModuleList(convs)
        self.last = last
        self.slope = slope

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        features = []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), self.slope)
            features.append(x)
        score = self.last(x)
        return score, [*features, score]


class MPD(nn.Module):
    """Multi-period: every p-th sample together, once for each p. Sees the pitch periods that a spectrum smears."""

    @dataclass
    class Config:
        periods: tuple[int, ...] = (2, 3, 5, 7, 11)
        scale: float = 1.0

        def build(self) -> "MPD":
            return MPD(self)

    def __init__(self, config: Config):
        super().__init__()
        self.periods = config.periods
        self.towers = nn.ModuleList(period_tower(config.scale) for _ in config.periods)

    def forward(self, audio: Tensor) -> Judgement:
        """[B, 1, N] -> one (score, features) for each period."""
        return [tower(fold(audio, period)) for period, tower in zip(self.periods, self.towers, strict=True)]


def fold(audio: Tensor, period: int) -> Tensor:
    """[B, 1, N] -> [B * p, 1, ceil(N / p)]. The paper's (5, 1) convolutions over [B, 1, N / p, p] never mix the columns,
    so the columns may join the batch; one-dimensional convolutions take half the time on a CPU."""
    audio = F.pad(audio, (0, -audio.shape[-1] % period), mode="reflect")
    return audio.unflatten(-1, (-1, period)).permute(0, 3, 1, 2).flatten(0, 1)


def period_tower(scale: float) -> Tower:
    sizes = [1, *(width(c, scale) for c in (32, 128, 512, 1024, 1024))]
    strides = (3, 3, 3, 3, 1)
    convs = [weight_norm(nn.Conv1d(a, b, 5, s, padding=2)) for a, b, s in zip(sizes, sizes[1:], strides)]
    return Tower(convs, weight_norm(nn.Conv1d(sizes[-1], 1, 3, padding=1)), 0.1)


class MSD(nn.Module):
    """Multi-scale: the waveform as it is, then averaged to half the rate, and again."""

    @dataclass
    class Config:
        scales: int = 3
        scale: float = 1.0

        def build(self) -> "MSD":
            return MSD(self)

    def __init__(self, config: Config):
        super().__init__()
        norms = [spectral_norm if i == 0 else weight_norm for i in range(config.scales)]
        self.towers = nn.ModuleList(scale_tower(config.scale, norm) for norm in norms)

    def forward(self, audio: Tensor) -> Judgement:
        """[B, 1, N] -> one (score, features) for each scale, the finest first."""
        judgement = []
        for i, tower in enumerate(self.towers):
            audio = F.avg_pool1d(audio, 4, 2, padding=2) if i else audio
            judgement.append(tower(audio))
        return judgement


def scale_tower(scale: float, norm) -> Tower:
    # out, kernel, stride, groups of the paper; narrow towers keep as many groups as divide their channels
    plan = ((128, 15, 1, 1), (128, 41, 2, 4), (256, 41, 2, 16), (512, 41, 4, 16), (1024, 41, 4, 16), (1024, 41, 1, 16), (1024, 5, 1, 1))
    convs, inside = [], 1
    for channels, kernel, stride, groups in plan:
        out = width(channels, scale)
        groups = math.gcd(groups, math.gcd(inside, out))
        convs.append(norm(nn.Conv1d(inside, out, kernel, stride, padding=kernel // 2, groups=groups)))
        inside = out
    return Tower(convs, norm(nn.Conv1d(inside, 1, 3, padding=1)), 0.1)


def width(channels: int, scale: float) -> int:
    """The paper's channels, scaled; at least one."""
    return max(1, round(channels * scale))


class MultiSTFT(nn.Module):
    """Complex spectrograms at several resolutions, each judged by a small 2-D tower over time and frequency."""

    @dataclass
    class Config:
        n_ffts: tuple[int, ...] = (2048, 1024, 512, 256, 128)
        channels: int = 32

        def build(self) -> "MultiSTFT":
            return MultiSTFT(self)

    def __init__(self, config: Config):
        super().__init__()
        self.n_ffts = config.n_ffts
        self.towers = nn.ModuleList(spectral_tower(config.channels) for _ in config.n_ffts)
        for n_fft in config.n_ffts:
            self.register_buffer(f"window{n_fft}", torch.hann_window(n_fft), persistent=False)

    def forward(self, audio: Tensor) -> Judgement:
        """[B, 1, N] -> one (score, features) for each n_fft; a feature is [B, C, T, F / stride]."""
        if audio.shape[-1] < max(self.n_ffts):
            raise SlmError(f"The audio has {audio.shape[-1]} samples, the largest window of the critic {max(self.n_ffts)}.")
        return [tower(self.spectrum(audio, n_fft)) for n_fft, tower in zip(self.n_ffts, self.towers, strict=True)]

    def spectrum(self, audio: Tensor, n_fft: int) -> Tensor:
        """[B, 1, N] -> [B, 2, T, F]: real and imaginary part, divided by the window's norm; hop n_fft / 4, no padding."""
        window = self.get_buffer(f"window{n_fft}")
        with torch.autocast(audio.device.type, enabled=False):
            x = torch.stft(audio.float().squeeze(1), n_fft, n_fft // 4, window=window, center=False, return_complex=True)
            x = torch.view_as_real(x) / window.square().sum().sqrt()
        return x.permute(0, 3, 2, 1)


def spectral_tower(channels: int) -> Tower:
    convs = [weight_norm(nn.Conv2d(2, channels, (3, 9), padding=(1, 4)))]
    for d in (1, 2, 4):
        convs.append(weight_norm(nn.Conv2d(channels, channels, (3, 9), (1, 2), padding=(d, 4), dilation=(d, 1))))
    convs.append(weight_norm(nn.Conv2d(channels, channels, (3, 3), padding=1)))
    return Tower(convs, weight_norm(nn.Conv2d(channels, 1, (3, 3), padding=1)), 0.2)


class MelPatches(nn.Module):
    """Mels [B, 1, M, T] as pictures, each judged patch by patch (Isola et al., 2017), once for each range of bands."""

    @dataclass
    class Config:
        """bands: from which to which a tower hears; the lowest hold the harmonics."""

        bands: tuple[tuple[int, int], ...] = ((0, 80), (0, 32))
        channels: int = 24

        def build(self) -> "MelPatches":
            return MelPatches(self)

    def __init__(self, config: Config):
        super().__init__()
        self.bands = config.bands
        self.towers = nn.ModuleList(mel_tower(config.channels) for _ in config.bands)

    def forward(self, mel: Tensor) -> Judgement:
        """[B, 1, M, T] -> one (score, features) for each range."""
        return [tower(mel[:, :, low:high]) for (low, high), tower in zip(self.bands, self.towers, strict=True)]


def mel_tower(channels: int) -> Tower:
    sizes = [1, channels, 2 * channels, 4 * channels, 4 * channels]
    shapes = ((5, (2, 1)), (5, 2), (5, 2), (3, 1))  # kernel, stride over bands and time
    convs = [weight_norm(nn.Conv2d(a, b, k, stride, padding=k // 2)) for a, b, (k, stride) in zip(sizes, sizes[1:], shapes)]
    return Tower(convs, weight_norm(nn.Conv2d(sizes[-1], 1, 3, padding=1)), 0.2)
