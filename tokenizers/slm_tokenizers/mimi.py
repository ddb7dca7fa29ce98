"""Mimi: a causal codec at 12.5 frames a second whose first level is semantic; what Moshi and CSM speak.

    audio [B,1,N] -> SEANet -> Transformer -> 25 to 12.5 Hz -> latent [B,D,T] -> split residual VQ [B,Q,T]
    codes [B,Q,T] -> latent -> 12.5 to 25 Hz -> Transformer -> SEANet -> audio [B,1,T*hop]

Défossez et al., 2024, "Moshi: a speech-text foundation model for real-time dialogue", section 3.3. The weights come from a
checkpoint, or from learning_mimi.py. `mimi_stream` runs it chunk by chunk.

B batch, N samples, D width of the latent, Q levels, T = ceil(N / hop) frames.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.errors import SlmError
from slm_tokenizers.mono import check_audio, cut
from slm_tokenizers.quantize.split import Split
from slm_tokenizers.seanet import Decoder, Encoder, Shape
from slm_tokenizers.windowed import Windowed


class Mimi(nn.Module):
    """Audio [B,1,N] at `rate` Hz <-> codes [B,Q,T] long in 0..card-1, one frame each `hop` samples."""

    causal = True

    @dataclass
    class Config:
        """The defaults are the published model, whose users take its first 8 levels (Moshi) or all 32 (CSM)."""

        rate: int = 24_000  # Hz
        n_q: int = 32
        semantic: int = 1  # of these levels
        card: int = 2048
        code_dim: int = 256
        dim: int = 512
        n_filters: int = 64
        ratios: tuple[int, ...] = (8, 6, 5, 4)
        squeeze: int = 2  # frames of the Transformers a code frame
        depth: int = 8
        heads: int = 8
        mlp: int = 2048
        window: int = 250  # frames of the Transformers
        base: float = 10_000.0  # of the rotary positions
        eps: float = 1e-5

        def build(self) -> "Mimi":
            """A module with random weights. SlmError if the fields contradict each other."""
            return Mimi(self)

        def shape(self) -> Shape:
            return Shape(
                dim=self.dim, n_filters=self.n_filters, ratios=self.ratios, norm="none", shortcut=False, lstm=0, last_kernel=3, pad="zero"
            )

        def transformer(self) -> Windowed.Config:
            return Windowed.Config(self.dim, self.depth, self.heads, self.mlp, self.window, self.base, self.eps)

    def __init__(self, config: Config):
        super().__init__()
        check(config)
        self.config = config
        self.rate, self.n_q, self.card = config.rate, config.n_q, config.card
        self.hop = math.prod(config.ratios) * config.squeeze
        self.encoder = Encoder(config.shape())
        self.encoder_transformer = config.transformer().build()
        self.downsample = Downsample(config.dim, config.squeeze)
        self.quantizer = Split(config.n_q, config.semantic, config.card, config.dim, config.code_dim)
        self.upsample = Upsample(config.dim, config.squeeze)
        self.decoder_transformer = config.transformer().build()
        self.decoder = Decoder(config.shape())

    @torch.no_grad()
    def encode(self, audio: Tensor, n_q: int | None = None) -> Tensor:
        """audio [B,1,N] -> codes [B,Q,T] of the first `n_q` levels, all by default.

        Frame t has heard samples before (t+1)*hop only, so a short row of a batch, padded on the right, has in every frame that
        it fills the codes that it has alone. The last frame is completed layer by layer, as published, not with silent samples.
        SlmError on other channels, no samples, NaN, or a level count that the codebooks do not have.
        """
        check_audio(audio)
        return self.quantizer.encode(self.latent(audio), n_q)

    def latent(self, audio: Tensor) -> Tensor:
        """audio [B,1,N] -> unquantised latent [B,D,T]"""
        z = self.encoder_transformer(self.encoder(audio).transpose(1, 2))
        return self.downsample(z.transpose(1, 2))

    @torch.no_grad()
    def decode(self, codes: Tensor, samples: int | None = None) -> Tensor:
        """codes [B,Q',T] of the first Q' levels -> audio [B,1,samples], by default samples = T*hop.

        SlmError on a code or level out of range, or more samples than T*hop.
        """
        return cut(self.sound(self.quantizer.decode(codes)), samples)

    def sound(self, latent: Tensor) -> Tensor:
        """latent [B,D,T], codes' vectors summed or something near them -> audio [B,1,T*hop]"""
        z = self.decoder_transformer(self.upsample(latent).transpose(1, 2))
        return self.decoder(z.transpose(1, 2))


class Downsample(nn.Module):
    """x [B,D,L] -> [B,D,ceil(L/ratio)], causal; beyond its ends the first and the last frame go on."""

    def __init__(self, dim: int, ratio: int):
        super().__init__()
        self.conv = nn.Conv1d(dim, dim, 2 * ratio, ratio, bias=False)
        self.ratio = ratio

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (self.ratio, -x.shape[-1] % self.ratio), mode="replicate"))


class Upsample(nn.Module):
    """x [B,D,L] -> [B,D,L*ratio], causal, each channel by itself."""

    def __init__(self, dim: int, ratio: int):
        super().__init__()
        self.conv = nn.ConvTranspose1d(dim, dim, 2 * ratio, ratio, groups=dim, bias=False)
        self.stride = ratio

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)[..., : x.shape[-1] * self.stride]


def check(config: Mimi.Config) -> None:
    for name in ("rate", "n_q", "card", "code_dim", "dim", "n_filters", "mlp"):
        if getattr(config, name) < 1:
            raise SlmError(f"{name} is {getattr(config, name)} but must be at least 1")
    if not config.ratios or min(config.ratios) < 1:
        raise SlmError(f"ratios are {tuple(config.ratios)} but must be one or more whole numbers from 1 up")
    if config.squeeze < 2:
        raise SlmError(f"squeeze is {config.squeeze} but must be at least 2 frames of the Transformers a code frame")
