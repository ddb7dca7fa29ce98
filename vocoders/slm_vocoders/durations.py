"""How long each unit is said, where a language model tells units without their repetitions (Lee et al., 2022).

B rows   S units   D width

Two convolutions over the units and what FastSpeech calls a variance predictor (Ren et al., 2021): d = ln(frames + 1), learned by the mean
squared distance, said as clamp(round(exp(d) - 1), 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Durations(nn.Module):
    """units [B,S] -> d [B,S]. What lies behind the end of a row is not heard by it."""

    @dataclass
    class Config:
        card: int = 100
        width: int = 128
        kernel: int = 3
        dropout: float = 0.5

        def build(self) -> "Durations":
            return Durations(self)

    def __init__(self, config: "Durations.Config") -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.card, config.width)
        self.convs = nn.ModuleList(nn.Conv1d(config.width, config.width, config.kernel, padding=config.kernel // 2) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in range(2))
        self.out = nn.Linear(config.width, 1)

    def forward(self, units: Tensor, lengths: Tensor | None = None) -> Tensor:
        """units [B,S] long, any id behind the end; lengths [B], None if all are S -> d [B,S]"""
        real = torch.ones_like(units, dtype=torch.bool)
        if lengths is not None:
            real = torch.arange(units.shape[1], device=units.device) < lengths[:, None]
        x = self.embed(units * real) * real[..., None]  # [B,S,D]
        for conv, norm in zip(self.convs, self.norms):
            x = norm(F.relu(conv(x.transpose(1, 2)).transpose(1, 2)))
            x = F.dropout(x, self.config.dropout, self.training) * real[..., None]
        return self.out(x).squeeze(-1)

    @torch.no_grad()
    def frames(self, units: Tensor, lengths: Tensor | None = None) -> Tensor:
        """units [B,S] -> how many frames each is said [B,S] long, at least 1"""
        return (self(units, lengths).float().exp() - 1).round().clamp(min=1).long()

    def loss(self, rows: list[Tensor]) -> Tensor:
        """rows of units as they are said, [T] each with repetitions -> mean squared distance of d, a scalar.

        The first and the last run of a row are not learned from: the row may begin or end in the middle of them.
        """
        told = [torch.unique_consecutive(row, return_counts=True) for row in rows]
        lengths = torch.tensor([len(units) for units, _ in told], device=rows[0].device)
        units = nn.utils.rnn.pad_sequence([units for units, _ in told], batch_first=True)
        runs = nn.utils.rnn.pad_sequence([runs for _, runs in told], batch_first=True)
        place = torch.arange(units.shape[1], device=units.device)
        whole = (place > 0) & (place < lengths[:, None] - 1)
        gap = (self(units, lengths).float() - (runs + 1.0).log()).square() * whole
        return gap.sum() / whole.sum().clamp(min=1)
