"""A generator that works at frame rate alone, so that a CPU can train it: ConvNeXt blocks, then the inverse STFT (Vocos, Siuzdak, 2023).

    Vocos.Config(64).build()(x)        # [B, M, T] -> [B, 1, T * hop]

B batch · M input channels · T frames · N = T * hop samples
It is what the default codec decodes with, and takes HiFi-GAN's place behind embeddings of codes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

from slm.errors import SlmError
from slm_vocoders.source import Filter


class Vocos(nn.Module):
    """Frames of anything [B, M, T] -> audio [B, 1, T * hop]."""

    @dataclass
    class Config:
        """rate in Hz, hop and n_fft in samples. `low` blocks of `width` work at frame rate, then `high` of
        `high_width` at `fine` times it. sourced: the audio is the sum of a part as without it and of a source that it shapes."""

        n_in: int = 128
        rate: int = 16000
        hop: int = 320
        n_fft: int = 640
        fine: int = 2
        width: int = 256
        low: int = 4
        high_width: int = 192
        high: int = 3
        sourced: bool = False

        def build(self) -> "Vocos":
            return Vocos(self)

    def __init__(self, config: "Vocos.Config"):
        from slm_tokenizers.codec import Codec, Decoder

        super().__init__()
        c = self.config = config
        if c.fine < 1 or c.hop % c.fine:
            raise SlmError(f"Vocos divides a frame of {c.hop} samples into {c.fine}, which must be a whole number of samples each.")
        shape = {"dec_width": c.width, "dec_low": c.low, "dec_high_width": c.high_width, "dec_high": c.high}
        self.trunk = Decoder(Codec.Config(hop=c.hop, dim=c.n_in, n_fft=c.n_fft, fine=c.fine, **shape))
        self.head, self.trunk.head = self.trunk.head, nn.Identity()  # what the trunk hands over may be wanted twice
        self.filter = Filter(c.high_width, c.n_fft, c.hop // c.fine) if c.sourced else None
        self.rate, self.hop = c.rate, c.hop

    def forward(self, x: Tensor, source: Tensor | None = None) -> Tensor:
        """[B, M, T], and [B, 1, N] if it is sourced -> audio [B, 1, N]. Raises SlmError for another number of channels or T = 0."""
        if x.dim() != 3 or x.shape[1] != self.config.n_in or x.shape[2] == 0:
            raise SlmError(f"The vocoder takes [batch, {self.config.n_in}, frames > 0], not {list(x.shape)}.")
        features = self.trunk(x.transpose(1, 2))
        audio = self.head(features)
        return audio if self.filter is None else audio + self.filter(features, source)

    def pieces(self, x: Tensor, frames: int, source: Tensor | None = None) -> Iterator[Tensor]:
        """forward() in pieces of `frames` frames (the last may be shorter), which joined are forward()'s audio."""
        context = self.receptive_field
        for start in range(0, x.shape[-1], frames):
            left = min(start, context)
            there = slice(start - left, start + frames + context)
            heard = None if source is None else source[..., there.start * self.hop : there.stop * self.hop]
            piece = self(x[..., there], heard)
            yield piece[..., left * self.hop : (left + frames) * self.hop]

    @property
    def receptive_field(self) -> int:
        """How many frames on either side of a frame can change its samples, or a few more."""
        from slm_tokenizers.codec import KERNEL

        c, side = self.config, KERNEL // 2
        spill = -(-c.n_fft // (c.hop // c.fine))  # fine frames that overlap in the inverse STFT
        return c.low * side + -(-(c.high * side + spill) // c.fine) + 1

    def remove_weight_norm(self) -> "Vocos":
        """There is none; vocoders are asked alike."""
        return self
