"""Which phone is due: every step of a stream is told the features of the phone it speaks.

    B rows   L phones   T frames   D width

The idea of RALL-E (Xin et al., 2024): a step attends to the phone its duration says, and its neighbours. Here the phone's
features, from a convolution over a few phones to each side, are added to the step, which any causal backbone can use. With
the durations known, no phone can be skipped, said twice or go on for ever.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.errors import SlmError


class Guide(nn.Module):
    """Phones to features, and features to frames."""

    @dataclass
    class Config:
        text: str = "text"  # stream of the phones
        duration: str = "duration"  # stream of their lengths in frames
        depth: int = 3
        kernel: int = 5
        dropout: float = 0.0

        def build(self, card: int, dim: int) -> "Guide":
            return Guide(self, card, dim)

    def __init__(self, config: "Guide.Config", card: int, dim: int) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(card, dim)
        nn.init.normal_(self.embed.weight, std=0.3)
        self.convs = nn.ModuleList(nn.Conv1d(dim, dim, config.kernel, padding=config.kernel // 2) for _ in range(config.depth))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(config.depth))
        self.place = nn.Linear(4, dim)

    def phones(self, text: list[Tensor], voice: Tensor | None = None) -> list[Tensor]:
        """Rows of phone ids [L] -> rows of features [L,D]; a row is computed without its batch mates' padding."""
        lengths = [len(row) for row in text]
        ids = nn.utils.rnn.pad_sequence(text, batch_first=True)
        real = (torch.arange(ids.shape[1], device=ids.device) < torch.tensor(lengths, device=ids.device)[:, None])[..., None]
        x = self.embed(ids)
        if voice is not None:
            x = x + voice[:, None]
        x = x * real
        for conv, norm in zip(self.convs, self.norms):
            y = F.gelu(conv(norm(x).mul(real).transpose(1, 2)).transpose(1, 2))
            x = (x + F.dropout(y, self.config.dropout, self.training)) * real
        return [row[:n] for row, n in zip(x, lengths)]

    def due(self, batch: dict, lengths: Tensor, at: int | None = None) -> Tensor:
        """Text and durations of a batch -> the hint of each frame [B,T,D]; at: of rows that are those frames from this one on.

        SlmError if the durations are of other lengths [B].
        """
        features = self.phones(batch[self.config.text])
        rows = [self.frames(f, d) for f, d in zip(features, batch[self.config.duration])]
        if at is not None:
            rows = [row[at : at + n] for row, n in zip(rows, lengths.tolist())]
        if (short := [len(row) for row in rows]) != lengths.tolist():
            raise SlmError(f"durations sum to {short} frames where the codes have {lengths.tolist()}")
        return nn.utils.rnn.pad_sequence(rows, batch_first=True)

    def frames(self, features: Tensor, duration: Tensor) -> Tensor:
        """features [L,D], duration [L] frames -> [T,D], T their sum: each phone's features, and where in the phone a frame lies."""
        index = torch.repeat_interleave(torch.arange(len(duration), device=duration.device), duration)
        start = (duration.cumsum(0) - duration)[index]
        into = (torch.arange(len(index), device=duration.device) - start).float()
        whole = duration[index].float()
        place = torch.stack([into / whole, (into / 10).clamp(max=3), ((whole - into) / 10).clamp(max=3), (whole / 20).clamp(max=3)], -1)
        return features[index] + self.place(place)
