"""VQ-VAE on a waveform: convolutions that halve the rate, one codebook, and the way back.

    audio [B,1,N] -> encoder -> latent [B,D,T] -> nearest code [B,Q,T] -> decoder -> audio [B,1,T*hop]

van den Oord et al., 2017, "Neural Discrete Representation Learning": straight-through gradient, EMA codebook (appendix A.1).
Its decoder is an autoregressive WaveNet; this one mirrors the encoder, so that a whole signal is made at once, and hears
spectral distances in place of a likelihood. Not causal. It learns in taught.py; melvq.py is the same on mel.

B batch, N samples, D width of a latent, Q levels (one in the paper), T = ceil(N / hop) frames, hop = 2^layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.errors import SlmError
from slm_tokenizers import stored
from slm_tokenizers.quantize.residual import Codebooks
from slm_tokenizers.soundstream import whole_frames


class VQVAE(nn.Module):
    """Audio [B,1,N] at `rate` Hz <-> codes [B,Q,T] long in 0..card-1, one frame each `hop` samples."""

    @dataclass
    class Config:
        """The defaults are the paper's on speech: six strided convolutions, 512 codes."""

        rate: int = 16_000  # Hz
        n_q: int = 1
        card: int = 512
        dim: int = 64
        width: int = 256
        layers: int = 6
        residuals: int = 2

        def build(self) -> "VQVAE":
            """A module with random weights. SlmError if a field is less than one."""
            return VQVAE(self)

    def __init__(self, config: "VQVAE.Config") -> None:
        super().__init__()
        for name in ("rate", "n_q", "card", "dim", "width", "layers"):
            if getattr(config, name) < 1:
                raise SlmError(f"{name} is {getattr(config, name)} but must be at least 1")
        self.config = config
        self.rate, self.hop, self.n_q, self.card = config.rate, 2**config.layers, config.n_q, config.card
        self.encoder = encoder(1, config.width, config.dim, config.layers, config.residuals)
        self.codebooks = Codebooks(config.n_q, config.card, config.dim)
        self.decoder = Decoder(config.dim, config.width, 1, config.layers, config.residuals)

    def as_stored(self) -> "VQVAE":
        """Rounds the weights to what is saved, so that codes made now are those of the codec that is loaded later."""
        return stored.rounded(self)

    def frames(self, samples: int) -> int:
        return -(-samples // self.hop)

    def latent(self, audio: Tensor) -> Tensor:
        """audio [B,1,N] -> unquantised latent [B,D,T]. SlmError on another shape, or no samples."""
        return self.encoder(whole_frames(audio, self.hop)).float()

    @torch.no_grad()
    def encode(self, audio: Tensor, n_q: int | None = None) -> Tensor:
        """audio [B,1,N] at `rate` Hz -> codes [B,Q,T]"""
        return self.codebooks.encode(self.latent(audio), n_q)

    @torch.no_grad()
    def decode(self, codes: Tensor, samples: int | None = None) -> Tensor:
        """codes [B,Q,T] -> audio [B,1,T*hop], cut to `samples`. SlmError on a code or level out of range."""
        return self.decoder(self.codebooks.decode(codes).transpose(1, 2))[..., :samples]


class Residual(nn.Module):
    """x [B,W,L] -> [B,W,L]: a convolution over three steps beside a skip path."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.near = nn.Conv1d(width, width, 3, padding=1)
        self.mix = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(F.elu(self.near(F.elu(x))))


def encoder(channels: int, width: int, dim: int, layers: int, residuals: int) -> nn.Sequential:
    """x [B,channels,L] -> [B,dim,L / 2^layers]; L a multiple of 2^layers."""
    parts: list[nn.Module] = [nn.Conv1d(channels, width, 3, padding=1)]
    for _ in range(layers):
        parts += [nn.ELU(), nn.Conv1d(width, width, 4, stride=2, padding=1)]
    parts += [Residual(width) for _ in range(residuals)]
    return nn.Sequential(*parts, nn.ELU(), nn.Conv1d(width, dim, 3, padding=1))


class Decoder(nn.Module):
    """latent [B,T,D] -> [B,channels,T * 2^layers]"""

    def __init__(self, dim: int, width: int, channels: int, layers: int, residuals: int) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.Conv1d(dim, width, 3, padding=1), *(Residual(width) for _ in range(residuals))]
        for _ in range(layers):
            parts += [nn.ELU(), nn.ConvTranspose1d(width, width, 4, stride=2, padding=1)]
        self.net = nn.Sequential(*parts, nn.ELU(), nn.Conv1d(width, channels, 3, padding=1))

    def forward(self, latent: Tensor) -> Tensor:
        return self.net(latent.transpose(1, 2)).float()
