"""What a vocoder or a codec is trained to lower: adversarial, feature and spectral distances. Each returns one float32 scalar.

Least squares as in HiFi-GAN (Kong et al., 2020), hinge and relative features as in EnCodec (Defossez et al., 2022),
multi-resolution STFT as in Parallel WaveGAN (Yamamoto et al., 2020), mels at many windows as in DAC (Kumar et al., 2023).
No weights inside: they belong to the recipe (HiFi-GAN: g + 2 * features + 45 * mel).

`real` and `fake` are either audio [B, 1, N], or a critic's answer to it: [(score, [features]), ...] of discriminators.py.
One step, where the critic learns first:
    d = hinge_d(critic(audio), critic(fake.detach()))
    with frozen(critic):
        with torch.no_grad():
            real = critic(audio)
        judged = critic(fake)
        g = hinge_g(judged) + feature_match(real, judged) + mel(real=audio, fake=fake)
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slm.nn.mel import LogMel
from slm_vocoders.discriminators import Judgement


def lsgan_d(real: Judgement, fake: Judgement) -> Tensor:
    """Least squares for the critic: real scores to 1, fake ones to 0. Summed over sub-critics."""
    real_part = sum((1 - score.float()).square().mean() for score, _ in real)
    return real_part + sum(score.float().square().mean() for score, _ in fake)


def lsgan_g(fake: Judgement) -> Tensor:
    """Least squares for the generator: fake scores to 1. Summed over sub-critics."""
    return sum((1 - score.float()).square().mean() for score, _ in fake)


def hinge_d(real: Judgement, fake: Judgement) -> Tensor:
    """Hinge for the critic: real scores above 1, fake ones below -1. Averaged over sub-critics."""
    real_part = sum(F.relu(1 - score.float()).mean() for score, _ in real)
    return (real_part + sum(F.relu(1 + score.float()).mean() for score, _ in fake)) / len(real)


def hinge_g(fake: Judgement) -> Tensor:
    """Hinge for the generator, max(0, 1 - score) as in SoundStream and EnCodec. Averaged over sub-critics."""
    return sum(F.relu(1 - score.float()).mean() for score, _ in fake) / len(fake)


def feature_match(real: Judgement, fake: Judgement, relative: bool = False) -> Tensor:
    """Mean |real - fake| of every layer; no gradient reaches the real side.

    relative=False sums over the layers (HiFi-GAN). relative=True divides each layer by its mean |real| and averages over
    the layers (EnCodec), so a layer's scale, which drifts while the critic learns, does not count.
    """
    distances = []
    for (_, real_layers), (_, fake_layers) in zip(real, fake, strict=True):
        for r, f in zip(real_layers, fake_layers, strict=True):
            r, f = r.detach().float(), f.float()
            distance = F.l1_loss(f, r)
            distances.append(distance / r.abs().mean().clamp(min=1e-8) if relative else distance)
    total = torch.stack(distances)
    return total.mean() if relative else total.sum()


def mel_l1(mel: LogMel, real: Tensor, fake: Tensor) -> Tensor:
    """Mean |log-mel of real - log-mel of fake|; audio [B, 1, N] both."""
    with torch.no_grad():
        target = mel(real)
    return F.l1_loss(mel(fake), target)


class MultiMel(nn.Module):
    """mel_l1 at several windows, averaged: short ones place the onsets, long ones the harmonics. Filters are made once."""

    @dataclass
    class Config:
        """rate in Hz; windows in samples, each with its number of mel bands, hop window / 4, 0 Hz to Nyquist, magnitude, ln."""

        rate: int = 16000
        windows: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048)
        n_mels: tuple[int, ...] = (5, 10, 20, 40, 80, 160)
        floor: float = 1e-5

        def build(self) -> "MultiMel":
            return MultiMel(self)

    def __init__(self, config: Config):
        super().__init__()
        self.mels = nn.ModuleList(
            LogMel.Config(config.rate, w, w // 4, w, m, 0.0, config.rate / 2, floor=config.floor).build()
            for w, m in zip(config.windows, config.n_mels, strict=True)
        )

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        """Audio [B, 1, N] twice -> scalar; N must exceed half the longest window."""
        return torch.stack([mel_l1(mel, real, fake) for mel in self.mels]).mean()


class Plain(nn.Module):
    """Mean |real - fake|, of what is a mel already."""

    @dataclass
    class Config:
        def build(self) -> "Plain":
            return Plain()

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        """Two tensors of one shape -> scalar."""
        return F.l1_loss(fake, real)


def multi_stft(real: Tensor, fake: Tensor, n_ffts: tuple[int, ...] = (512, 1024, 2048), floor: float = 1e-5) -> Tensor:
    """Spectral convergence + L1 of log magnitude, averaged over n_ffts (hop n_fft / 4); audio [B, 1, N] both."""
    total = []
    for n_fft in n_ffts:
        with torch.no_grad():
            target = magnitude(real, n_fft, floor)
        found = magnitude(fake, n_fft, floor)
        convergence = torch.linalg.vector_norm(target - found) / torch.linalg.vector_norm(target)
        total.append(convergence + F.l1_loss(found.log(), target.log()))
    return torch.stack(total).mean()


def magnitude(audio: Tensor, n_fft: int, floor: float) -> Tensor:
    """[B, 1, N] -> [B, F, T], at least `floor`."""
    with torch.autocast(audio.device.type, enabled=False):
        window = torch.hann_window(n_fft, device=audio.device)
        spectrum = torch.stft(audio.float().squeeze(1), n_fft, n_fft // 4, window=window, return_complex=True)
        return spectrum.abs().clamp(min=floor)
