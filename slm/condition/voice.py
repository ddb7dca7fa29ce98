"""A voice as one vector: the codec's latents of a few seconds, pooled over time.

    B rows   T frames   E latent width   W inner width   D width of the vector

Statistics pooling as in x-vectors (Snyder et al., 2018): mean and deviation over the row's own frames, so that neither
the length of a prompt nor its batch mates change what is heard in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Voice(nn.Module):
    """latents [B,T,E], lengths [B] -> vector [B,D]"""

    @dataclass
    class Config:
        latent: int = 128
        width: int = 192
        dim: int = 256
        dropout: float = 0.0

        def build(self) -> "Voice":
            return Voice(self)

    def __init__(self, config: "Voice.Config") -> None:
        super().__init__()
        self.config = config
        self.convs = nn.ModuleList(
            nn.Conv1d(config.latent if i == 0 else config.width, config.width, 5, padding=2) for i in range(2)
        )
        self.out = nn.Linear(2 * config.width, config.dim)
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, latents: Tensor, lengths: Tensor) -> Tensor:
        real = (torch.arange(latents.shape[1], device=latents.device) < lengths[:, None])[:, None]  # [B,1,T]
        x = latents.transpose(1, 2) * real
        for conv in self.convs:
            x = F.gelu(conv(x)) * real
        x = x.float()
        count = lengths[:, None].clamp(min=1)
        mean = x.sum(-1) / count
        deviation = ((((x - mean[..., None]) * real) ** 2).sum(-1) / count + 1e-5).sqrt()
        pooled = F.dropout(torch.cat([mean, deviation], -1), self.config.dropout, self.training)
        return self.norm(self.out(pooled))
