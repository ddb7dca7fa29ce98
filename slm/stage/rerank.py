"""Which of several readings of a text fits it best? Text and codes as two vectors that lie near where they belong together.

CLVP, which ranks what Tortoise says (Betker, 2023), after CLIP (Radford et al., 2021).

B rows   L phones   T frames   D width of the common space
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.backbone.transformer import Transformer
from slm.data.batch import pad
from slm.errors import SlmError
from slm.stage.lm import Stream


class Rerank(nn.Module):
    """Batch: rows of the text [L] and of the first level of the codes [T] or [Q,T]. Needs at least two rows to learn."""

    @dataclass
    class Config:
        text: str = "text"
        codes: str = "semantic"
        dim: int = 128  # D
        backbone: Transformer.Config = field(default_factory=lambda: Transformer.Config(128, 2, 2, causal=False))
        drop: float = 0.1  # share of the codes that are not heard while training, so that no single one decides

        def build(self, streams: dict[str, Stream]) -> "Rerank":
            return Rerank(self, streams)

    def __init__(self, config: "Rerank.Config", streams: dict[str, Stream]) -> None:
        super().__init__()
        if config.backbone.causal:
            raise SlmError("what is ranked is there as a whole: give a backbone with causal=False")
        self.config = config
        self.read = Encoder(config.backbone, streams[config.text].card, config.dim)
        self.hear = Encoder(config.backbone, streams[config.codes].card, config.dim)
        self.scale = nn.Parameter(torch.tensor(2.6593))  # ln(1 / .07)

    def forward(self, batch: dict, player: str = "main") -> dict[str, Tensor]:
        return self.loss(batch)

    def vectors(self, batch: dict) -> tuple[Tensor, Tensor]:
        """Unit vectors [B,D] of the texts and of the codes."""
        codes = [row if row.dim() == 1 else row[0] for row in batch[self.config.codes]]
        if self.training and self.config.drop:
            codes = [self._thinned(row) for row in codes]
        return self.read(batch[self.config.text]), self.hear(codes)

    def _thinned(self, row: Tensor) -> Tensor:
        kept = row[torch.rand(len(row), device=row.device) >= self.config.drop]
        return kept if len(kept) else row[:1]

    def loss(self, batch: dict) -> dict[str, Tensor]:
        """Cross-entropy of finding each text's codes among those of the batch, and the other way round, in nats."""
        texts, codes = self.vectors(batch)
        if len(texts) < 2:
            raise SlmError("to tell which codes belong to a text takes a batch of at least two rows")
        scores = texts @ codes.T * self.scale.clamp(max=4.6).exp()
        own = torch.arange(len(scores), device=scores.device)
        return {"match": (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2}

    @torch.no_grad()
    def run(self, batch: dict, seeds: list[int] | None = None) -> dict:
        """The batch with `fit` [B]: the cosine of each text and its own codes. Nothing is drawn."""
        texts, codes = self.vectors(batch)
        return {**batch, "fit": (texts * codes).sum(-1)}


class Encoder(nn.Module):
    """Rows of ids [L] -> unit vectors [B,D]: the mean over a row's own steps."""

    def __init__(self, backbone: Transformer.Config, card: int, dim: int) -> None:
        super().__init__()
        self.backbone = backbone.build()
        self.embed = nn.Embedding(card, self.backbone.dim)
        self.out = nn.Linear(self.backbone.dim, dim)

    def forward(self, rows: list[Tensor]) -> Tensor:
        ids, lengths = pad(rows)
        hidden, _ = self.backbone(self.embed(ids), lengths=lengths)
        real = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        mean = (hidden.float() * real[..., None]).sum(1) / lengths[:, None]
        return F.normalize(self.out(mean), dim=-1).float()
