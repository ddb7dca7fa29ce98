"""A vocoder on discrete codes: each level's embedding, summed, then HiFi-GAN (Polyak et al., 2021).

B batch · Q levels · T frames · D width of an embedding
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from slm.errors import SlmError
from slm_vocoders.hifigan import HiFiGAN
from slm_vocoders.vocos import Vocos


class CodeHiFiGAN(nn.Module):
    """codes [B, Q, T] -> audio [B, 1, T * hop]."""

    @dataclass
    class Config:
        """card: codes a level. The vocoder's n_in is the width of the embeddings, its rates multiply to the codec's hop."""

        n_q: int = 8
        card: int = 1024
        vocoder: HiFiGAN.Config | Vocos.Config = field(
            default_factory=lambda: HiFiGAN.Config(128, 16000, 256, (8, 5, 4, 2), (16, 11, 8, 4))
        )

        def build(self) -> "CodeHiFiGAN":
            return CodeHiFiGAN(self)

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.n_q * config.card, config.vocoder.n_in)
        self.vocoder = config.vocoder.build()
        self.register_buffer("offset", torch.arange(config.n_q)[:, None] * config.card, persistent=False)
        self.rate, self.hop = self.vocoder.rate, self.vocoder.hop

    @property
    def receptive_field(self) -> int:
        return self.vocoder.receptive_field

    def forward(self, codes: Tensor) -> Tensor:
        """[B, Q, T] long -> [B, 1, T * hop]. Raises SlmError for another number of levels or a code outside 0 .. card - 1."""
        return self.vocoder(self.embedded(codes))

    def pieces(self, codes: Tensor, frames: int) -> Iterator[Tensor]:
        """forward() in pieces of `frames` frames, which joined are forward()'s audio."""
        yield from self.vocoder.pieces(self.embedded(codes), frames)

    def embedded(self, codes: Tensor) -> Tensor:
        """[B, Q, T] -> [B, D, T]."""
        n_q, card = self.config.n_q, self.config.card
        if codes.dim() != 3 or codes.shape[1] != n_q:
            raise SlmError(f"The vocoder takes codes [batch, {n_q}, frames], not {list(codes.shape)}.")
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < card:
            raise SlmError(f"The vocoder's codes go from 0 to {card - 1}, these from {int(codes.min())} to {int(codes.max())}.")
        return self.embed(codes + self.offset).sum(1).transpose(1, 2)

    def remove_weight_norm(self) -> "CodeHiFiGAN":
        self.vocoder.remove_weight_norm()
        return self
