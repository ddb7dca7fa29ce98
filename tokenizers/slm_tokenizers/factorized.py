"""A factorised codec: what is said, how, and the rest, each in codes of its own, and who says it as one vector.

    audio [B,1,N] -> encoder -> latent [B,D,T] -> prosody [B,1,T], content [B,2,T], detail [B,3,T], in this order
    their vectors' sum, scaled and shifted by a voice [B,V] -> decoder -> audio [B,1,T*hop]

FACodec of Ju et al., 2024, "NaturalSpeech 3: Zero-Shot Speech Synthesis with Factorized Codec and Diffusion Models". The convolutions
are SEANet's here, and the voice is pooled by its mean and deviation, not by a Transformer. What makes the streams differ is
how they learn: factorizing.py.

B batch, N samples, D width of a latent, Q levels of all streams, T = ceil(N / hop) frames, V width of a voice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.errors import SlmError
from slm_tokenizers import seanet, stored
from slm_tokenizers.quantize.factorised import Factorised
from slm_tokenizers.quantize.learn_factorised import Pulled, pull
from slm_tokenizers.seanet import Encoder, Shape
from slm_tokenizers.soundstream import whole_frames

STREAMS = ("prosody", "content", "detail")


class FACodec(nn.Module):
    """Audio [B,1,N] at `rate` Hz <-> codes [B,Q,T] long in 0..card-1; a voice besides makes it sound like someone."""

    @dataclass
    class Config:
        """The defaults are the paper's: 16 kHz, 80 frames a second, 1 + 2 + 3 levels of 1024."""

        rate: int = 16_000  # Hz
        prosody: int = 1  # levels
        content: int = 2
        detail: int = 3
        card: int = 1024
        narrow: int = 8  # width in which codes are compared
        dim: int = 256
        voice: int = 256
        n_filters: int = 32
        ratios: tuple[int, ...] = (5, 5, 4, 2)  # in the decoder's order
        residuals: int = 3
        dilation: int = 3

        def build(self) -> "FACodec":
            """A module with random weights. SlmError if a field is less than one."""
            return FACodec(self)

        def shape(self) -> Shape:
            return Shape(
                1, self.dim, self.n_filters, self.ratios, False, "weight_norm", False, self.residuals, 0,
                residual_kernel=7, dilation=self.dilation, compress=1,
            )  # fmt: skip

    def __init__(self, config: "FACodec.Config") -> None:
        super().__init__()
        for name in (*STREAMS, "card", "narrow", "dim", "voice", "n_filters"):
            if getattr(config, name) < 1:
                raise SlmError(f"{name} is {getattr(config, name)} but must be at least 1")
        self.config = config
        shape = config.shape()
        self.rate, self.hop, self.card = config.rate, shape.hop, config.card
        self.levels = {name: getattr(config, name) for name in STREAMS}
        self.n_q = sum(self.levels.values())
        self.encoder = Encoder(shape)
        self.books = nn.ModuleDict({n: Factorised(q, config.card, config.dim, config.narrow) for n, q in self.levels.items()})
        self.listener = Listener(config.dim, config.voice)
        self.decoder = Decoder(shape, config.voice)
        centre(self.encoder, self.books)

    def as_stored(self) -> "FACodec":
        """Rounds the weights to what is saved, so that codes made now are those of the codec that is loaded later."""
        return stored.rounded(self)

    def frames(self, samples: int) -> int:
        return -(-samples // self.hop)

    def latent(self, audio: Tensor) -> Tensor:
        """audio [B,1,N] -> unquantised latent [B,D,T]. SlmError on another shape, or no samples."""
        return self.encoder(whole_frames(audio, self.hop)).float()

    def streams(self, latent: Tensor) -> dict[str, Pulled]:
        """latent [B,D,T] -> each stream quantised: prosody and content side by side, detail what both leave over."""
        made = {name: pull(self.books[name], latent) for name in ("prosody", "content")}
        return made | {"detail": pull(self.books["detail"], latent - made["prosody"].latent - made["content"].latent)}

    @torch.no_grad()
    def encode(self, audio: Tensor) -> Tensor:
        """audio [B,1,N] at `rate` Hz -> codes [B,Q,T], prosody's levels first, then content's, then detail's."""
        with torch.autocast(audio.device.type, enabled=False):
            made = self.streams(self.latent(audio))
        return torch.cat([made[name].codes for name in STREAMS], 1)

    @torch.no_grad()
    def voice(self, audio: Tensor) -> Tensor:
        """audio [B,1,N] -> who speaks, as a vector [B,V] of length one."""
        return self.listener(self.latent(audio))

    def split(self, codes: Tensor) -> dict[str, Tensor]:
        """codes [B,Q',T] -> those of each stream by name; streams behind the first Q' levels are left out. SlmError if Q' is too large."""
        if codes.dim() != 3 or not 1 <= codes.shape[1] <= self.n_q:
            raise SlmError(f"codes have the shape {list(codes.shape)} but [B, 1 to {self.n_q}, T] is needed")
        parts = codes.split(self.clipped(codes.shape[1]), 1)
        return {name: part for name, part in zip(STREAMS, parts) if part.shape[1]}

    def clipped(self, total: int) -> list[int]:
        """How many of the first `total` levels each stream has."""
        counts = []
        for levels in self.levels.values():
            counts.append(min(levels, total - sum(counts)))
        return counts

    @torch.no_grad()
    def decode(self, codes: Tensor, samples: int | None = None, voice: Tensor | None = None) -> Tensor:
        """codes [B,Q',T], any prefix of the levels -> audio [B,1,T*hop], cut to `samples`.

        In the voice [B,V] of anyone, or the average voice of the training. SlmError on a code or level out of range.
        """
        latent = sum(self.books[name].decode(part) for name, part in self.split(codes).items())
        return self.decoder(latent.transpose(1, 2), voice)[..., :samples]


@torch.no_grad()
def centre(encoder: nn.Module, books: nn.Module) -> None:
    """Start with latents that move about zero, at about the strength of the audio, instead of resting at a constant.

    Codes are compared by angle. As torch initialises convolutions, each layer weakens the signal by the root of three and adds its bias,
    so that here more than 99 % of a latent's energy would be the same in every frame, every frame would get the same code, and
    commitment would hold it there.
    """
    for name, parameter in (*encoder.named_parameters(), *books.named_parameters()):
        if name.endswith("bias"):
            parameter.zero_()
        elif name.endswith("original0"):  # the lengths of the weights, in weight norm
            parameter.mul_(math.sqrt(3))


class Listener(nn.Module):
    """latent [B,D,T] -> voice [B,V] of length one: what stays the same over time."""

    def __init__(self, dim: int, voice: int) -> None:
        super().__init__()
        self.near = nn.Conv1d(dim, dim, 3, padding=1)
        self.out = nn.Linear(2 * dim, voice)

    def forward(self, latent: Tensor) -> Tensor:
        x = F.elu(self.near(latent))
        pooled = torch.cat([x.mean(-1), (x.var(-1, unbiased=False) + 1e-5).sqrt()], -1)  # [B,2D]
        return F.normalize(self.out(pooled).float(), dim=-1)


class Decoder(nn.Module):
    """latent [B,T,D] and a voice [B,V], the average one if None -> audio [B,1,T*hop]"""

    average: Tensor

    def __init__(self, shape: Shape, voice: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(shape.dim, elementwise_affine=False)
        self.colour = nn.Linear(voice, 2 * shape.dim)
        self.net = seanet.Decoder(shape)
        self.register_buffer("average", torch.zeros(voice))

    def forward(self, latent: Tensor, voice: Tensor | None = None) -> Tensor:
        voice = self.average.expand(len(latent), -1) if voice is None else voice
        scale, shift = self.colour(voice)[:, None].chunk(2, -1)  # [B,1,D]
        return self.net((self.norm(latent) * (1 + scale) + shift).transpose(1, 2)).float()
