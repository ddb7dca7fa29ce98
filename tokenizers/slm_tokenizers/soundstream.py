"""SoundStream: a causal convolutional codec whose every prefix of levels is a codec of its own bitrate.

    audio [B,1,N] -> encoder -> latent [B,D,T] -> residual VQ [B,Q,T] -> decoder -> audio [B,1,T*hop]

Zeghidour et al., 2021, "SoundStream: An End-to-End Neural Audio Codec". The same parts in other proportions are EnCodec
(Défossez et al., 2022) and, with a taught first level, SpeechTokenizer (Zhang et al., 2023): see `encodec`, `speechtokenizer`.
Departures: weight norm where the paper has none (norm="none" is the paper's), no FiLM conditioning. It learns in taught.py.

B batch, N samples, D width of a latent, Q levels, T = ceil(N / hop) frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.errors import SlmError
from slm_tokenizers import seanet, stored
from slm_tokenizers.quantize.residual import Codebooks
from slm_tokenizers.seanet import Encoder, Shape
from slm_tokenizers.streaming import StreamDecoder, StreamEncoder


class SoundStream(nn.Module):
    """Audio [B,1,N] at `rate` Hz <-> codes [B,Q,T] long in 0..card-1, one frame each `hop` samples."""

    @dataclass
    class Config:
        """The defaults are the paper's at 24 kHz and 6 kbit/s; `ratios` in the decoder's order, the reverse of the encoder's."""

        rate: int = 24_000  # Hz
        n_q: int = 8
        card: int = 1024
        dim: int = 128
        n_filters: int = 32
        ratios: tuple[int, ...] = (8, 5, 4, 2)
        residuals: int = 3  # units a block, dilated by 1, `dilation`, `dilation` squared
        dilation: int = 3
        residual_kernel: int = 7
        compress: int = 1  # a residual unit's inner width is its outer one divided by this
        shortcut: bool = False
        lstm: int = 0
        causal: bool = True
        norm: str = "weight_norm"
        pad: str = "zero"

        def build(self) -> "SoundStream":
            """A module with random weights. SlmError if the fields contradict each other."""
            return SoundStream(self)

        def shape(self) -> Shape:
            return Shape(
                1, self.dim, self.n_filters, self.ratios, self.causal, self.norm, self.shortcut, self.residuals, self.lstm,
                residual_kernel=self.residual_kernel, dilation=self.dilation, compress=self.compress, pad=self.pad,
            )  # fmt: skip

    def __init__(self, config: "SoundStream.Config") -> None:
        super().__init__()
        check(config)
        self.config = config
        shape = config.shape()
        self.rate, self.hop, self.n_q, self.card = config.rate, shape.hop, config.n_q, config.card
        self.encoder = Encoder(shape)
        self.codebooks = Codebooks(config.n_q, config.card, config.dim)
        self.decoder = Decoder(shape)

    def as_stored(self) -> "SoundStream":
        """Rounds the weights to what is saved, so that codes made now are those of the codec that is loaded later."""
        return stored.rounded(self)

    def frames(self, samples: int) -> int:
        return -(-samples // self.hop)

    def latent(self, audio: Tensor) -> Tensor:
        """audio [B,1,N] -> unquantised latent [B,D,T], silence completing the last frame.

        With `causal` and pad="zero" frame t depends on samples before (t+1)*hop only. SlmError on another shape, or no samples.
        """
        return self.encoder(whole_frames(audio, self.hop)).float()

    @torch.no_grad()
    def encode(self, audio: Tensor, n_q: int | None = None) -> Tensor:
        """audio [B,1,N] at `rate` Hz -> codes [B,Q,T] of the first `n_q` levels, all by default."""
        return self.codebooks.encode(self.latent(audio), n_q)

    @torch.no_grad()
    def decode(self, codes: Tensor, samples: int | None = None) -> Tensor:
        """codes [B,Q',T] of the first Q' levels -> audio [B,1,T*hop], cut to `samples`. SlmError on a code or level out of range."""
        return self.sound(self.codebooks.decode(codes))[..., :samples]

    @torch.no_grad()
    def sound(self, latent: Tensor) -> Tensor:
        """latent [B,D,T], codes' vectors summed or something near them -> audio [B,1,T*hop]"""
        return self.decoder(latent.transpose(1, 2))

    def stream_encoder(self, n_q: int | None = None) -> StreamEncoder:
        """A new recording, coded as it comes, with the codes of `encode`. SlmError if this codec is not causal."""
        return StreamEncoder(self.encoder, self.codebooks, 1, self.hop, self.n_q if n_q is None else n_q, silent_end=True)

    def stream_decoder(self, samples: int | None = None) -> StreamDecoder:
        """New codes, decoded as they come, with the audio of `decode`. SlmError if this codec is not causal."""
        return StreamDecoder(self.decoder.net, self.codebooks, self.hop, samples)


class Decoder(nn.Module):
    """latent [B,T,D] -> audio [B,1,T*hop], time before width as every decoder that learns in taught.py has it."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.net = seanet.Decoder(shape)

    def forward(self, latent: Tensor) -> Tensor:
        return self.net(latent.transpose(1, 2)).float()


def encodec() -> SoundStream.Config:
    """The published 24 kHz EnCodec's proportions, 8 levels: with the same weights, whole frames have the same codes as in `Encodec`."""
    return SoundStream.Config(residuals=1, dilation=2, residual_kernel=3, compress=2, shortcut=True, lstm=2, pad="reflect")


def speechtokenizer() -> SoundStream.Config:
    """SpeechTokenizer's proportions: 16 kHz, 50 frames a second, wide and not causal. Its LSTM hears both directions, this one's one."""
    config = encodec()
    config.rate, config.dim, config.n_filters, config.causal = 16_000, 1024, 64, False
    return config


def whole_frames(audio: Tensor, hop: int) -> Tensor:
    """audio [B,1,N] -> [B,1,ceil(N/hop)*hop], silence at its end. SlmError on another shape, no samples, or NaN."""
    if audio.ndim != 3 or audio.shape[1] != 1:
        raise SlmError(f"the codec hears mono audio [B,1,N], not {list(audio.shape)}")
    if audio.shape[-1] == 0:
        raise SlmError("the codec was given no samples; it needs at least one")
    if not audio.isfinite().all():
        raise SlmError("audio holds NaN or infinite samples")
    return F.pad(audio, (0, -audio.shape[-1] % hop))


def check(config: SoundStream.Config) -> None:
    for name in ("rate", "n_q", "card", "dim", "n_filters", "residual_kernel", "dilation", "compress"):
        if getattr(config, name) < 1:
            raise SlmError(f"{name} is {getattr(config, name)} but must be at least 1")
    if not config.ratios or min(config.ratios) < 1:
        raise SlmError(f"ratios are {tuple(config.ratios)} but must be one or more whole numbers from 1 up")
