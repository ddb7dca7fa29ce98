"""How high a voice is in each frame, as numbers that a vocoder adds to those of its units (Polyak et al., 2021).

B batch · T frames · D width of the vocoder's input
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slm.errors import SlmError

MIDDLE = 150.0  # Hz


class Contour(nn.Module):
    """Hz [B, T], 0 where there is no voice -> [B, D, T]."""

    @dataclass
    class Config:
        """bins: one of so many steps of `PitchBins`, the first of which is no voice; 0: the logarithm, and whether there is a voice."""

        bins: int = 0

        def build(self, dim: int) -> "Contour":
            """dim: D."""
            return Contour(self, dim)

    def __init__(self, config: "Contour.Config", dim: int):
        from slm.data.prosody import PitchBins

        super().__init__()
        self.config = config
        self.steps = PitchBins.Config(config.bins).build() if config.bins else None
        self.inside = nn.Embedding(config.bins, dim) if config.bins else nn.Linear(2, dim)

    def forward(self, hertz: Tensor) -> Tensor:
        """[B, T] -> [B, D, T]. Raises SlmError for NaN or a negative number."""
        if not bool(((hertz >= 0) & hertz.isfinite()).all()):
            raise SlmError("The pitch must be Hz in every frame, or 0 where there is no voice; this one holds negative numbers or NaN.")
        return self.inside(self.steps.encode(hertz) if self.steps else numbers(hertz)).transpose(1, 2)


def numbers(hertz: Tensor) -> Tensor:
    """[B, T] -> ln(Hz / MIDDLE), and whether there is a voice [B, T, 2]"""
    voiced = (hertz > 0).float()
    return torch.stack([(hertz.clamp(min=1) / MIDDLE).log() * voiced, voiced], -1)
