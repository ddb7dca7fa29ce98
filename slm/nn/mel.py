"""Log-mel spectrograms, the same numbers as the systems that published them.

    LogMel(PRESETS["codec16k"])(audio)      # [B, 1, N] -> [B, M, T]

B batch · N samples · M mel bands · T frames · F = n_fft / 2 + 1 frequency bins.
center=True pads n_fft / 2 on both sides: T = N // hop + 1.  center=False is HiFi-GAN's framing (Kong et al., 2020): it
pads (n_fft - hop) / 2, so that a frame stands for exactly `hop` samples: T = N // hop.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slm.errors import SlmError


class LogMel(nn.Module):
    """Audio [B, 1, N] -> log-mel [B, M, T]; float32 inside, whatever autocast says; differentiable, silence included."""

    @dataclass
    class Config:
        """What makes two mels comparable: all of these must agree.

        rate, fmin and fmax are in Hz; n_fft, hop and win in samples; power 1 is magnitude and 2 is energy; `eps` is added to
        the energy under the root of power 1; the log is taken of max(mel, floor); norm is "slaney" or None.
        """

        rate: int = 16000
        n_fft: int = 1024
        hop: int = 160
        win: int = 640
        n_mels: int = 80
        fmin: float = 0.0
        fmax: float = 8000.0
        scale: str = "slaney"
        norm: str | None = "slaney"
        power: int = 1
        log: str = "ln"
        floor: float = 1e-5
        center: bool = True
        eps: float = 0.0

        def build(self) -> "LogMel":
            return LogMel(self)

    def __init__(self, config: Config):
        super().__init__()
        check(config)
        self.config = config
        self.pad = config.n_fft // 2 if config.center else (config.n_fft - config.hop) // 2
        self.register_buffer("window", torch.hann_window(config.win), persistent=False)
        self.register_buffer("bank", filterbank(config), persistent=False)

    def forward(self, audio: Tensor) -> Tensor:
        """[B, 1, N] -> [B, M, T]. Raises SlmError for another shape or for too few samples to reflect at the borders."""
        mel = self.linear(audio).clamp(min=self.config.floor)
        return mel.log() if self.config.log == "ln" else mel.log10()

    def linear(self, audio: Tensor) -> Tensor:
        """The mel before the logarithm and its floor: [B, 1, N] -> [B, M, T]."""
        if audio.dim() != 3 or audio.shape[1] != 1:
            raise SlmError(f"A mel spectrogram takes audio of shape [batch, 1, samples], not {list(audio.shape)}.")
        if audio.shape[-1] <= self.pad:
            raise SlmError(f"The audio has {audio.shape[-1]} samples, its mel spectrogram needs at least {self.pad + 1}.")
        config = self.config
        with torch.autocast(audio.device.type, enabled=False):
            padded = F.pad(audio.float(), (self.pad, self.pad), mode="reflect").squeeze(1)
            spectrum = torch.stft(padded, config.n_fft, config.hop, config.win, self.window, center=False, return_complex=True)
            return torch.matmul(self.bank, self.strength(spectrum))  # [B, M, T]

    def strength(self, spectrum: Tensor) -> Tensor:
        """Complex [B, F, T] -> magnitude or energy. abs() has gradient 0 at 0, a bare root of the energy has NaN."""
        if self.config.power == 1 and self.config.eps == 0:
            return spectrum.abs()
        energy = spectrum.real.square() + spectrum.imag.square()
        return energy if self.config.power == 2 else (energy + self.config.eps).sqrt()

    def frames(self, samples: int) -> int:
        """How many frames `samples` samples become."""
        return (samples + 2 * self.pad - self.config.n_fft) // self.config.hop + 1


def filterbank(config: LogMel.Config) -> Tensor:
    """Triangular filters [M, F]."""
    from torchaudio.functional import melscale_fbanks

    bins = config.n_fft // 2 + 1
    bank = melscale_fbanks(bins, config.fmin, config.fmax, config.n_mels, config.rate, norm=config.norm, mel_scale=config.scale)
    return bank.T.contiguous()


def check(config: LogMel.Config) -> None:
    """Raise SlmError for a value that has no meaning."""
    legal = {"scale": ("slaney", "htk"), "norm": ("slaney", None), "power": (1, 2), "log": ("ln", "log10")}
    for name, values in legal.items():
        if getattr(config, name) not in values:
            raise SlmError(f"The mel's {name} is {getattr(config, name)!r}; it can be {' or '.join(map(repr, values))}.")
    if not 0 < config.hop <= config.n_fft or not 0 < config.win <= config.n_fft:
        raise SlmError(f"The mel's hop ({config.hop}) and win ({config.win}) must be from 1 to n_fft ({config.n_fft}).")
    if not 0 <= config.fmin < config.fmax <= config.rate / 2:
        raise SlmError(f"The mel covers {config.fmin} to {config.fmax} Hz; at {config.rate} Hz it must lie in 0 to {config.rate / 2:g}.")


PRESETS = {
    "hifigan22k": LogMel.Config(22050, 1024, 256, 1024, 80, 0.0, 8000.0, center=False, eps=1e-9),
    "speecht5-16k": LogMel.Config(16000, 1024, 256, 1024, 80, 80.0, 7600.0, log="log10", floor=1e-10),
    "codec16k": LogMel.Config(16000, 1024, 160, 640, 80, 0.0, 8000.0),
}
