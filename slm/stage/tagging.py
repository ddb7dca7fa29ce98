"""A label for each frame, or one for the whole row, from codes: what a backbone can tell of them.

B batch   Q levels   T frames   C labels   W width of an embedding
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from slm.backbone.transformer import Transformer
from slm.errors import SlmError


class Tagger(nn.Module):
    """Batch: codes [B,Q,T], labels [B,T], or [B] if `pooled`; -1 where there is none."""

    @dataclass
    class Config:
        backbone: Any = field(default_factory=Transformer.Config)
        labels: int = 2  # C
        levels: int = 8  # Q
        card: int = 1024
        pooled: bool = False  # one label a row, from the mean over its frames
        causal: bool = False  # a language model's task: a backbone that hears the future is refused
        dropout: float = 0.0  # of what goes into the backbone

        def build(self, streams: dict | None = None) -> "Tagger":
            """`streams` is what other stages must know; this one finds its codes in the batch."""
            return Tagger(self)

    def __init__(self, config: "Tagger.Config") -> None:
        super().__init__()
        self.config = config
        self.backbone = config.backbone.build()
        if config.causal and not self.backbone.causal:
            raise SlmError("a task that must not hear the future was given a backbone that does; give one with causal=True")
        self.embed = nn.ModuleList(nn.Embedding(config.card, self.backbone.dim) for _ in range(config.levels))
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(self.backbone.dim, config.labels)
        for table in self.embed:
            nn.init.normal_(table.weight, std=config.levels**-0.5)

    def forward(self, batch: dict, player: str = "main") -> dict[str, Tensor]:
        return self.loss(batch)

    def logits(self, codes: Tensor) -> Tensor:
        """codes [B,Q,T] -> [B,T,C], or [B,C] if pooled. SlmError on another number of levels."""
        if codes.dim() != 3 or codes.shape[1] != self.config.levels:
            raise SlmError(f"codes have the shape {list(codes.shape)} but [B, {self.config.levels}, T] is needed")
        x = self.dropout(sum(table(level) for table, level in zip(self.embed, codes.unbind(1))))
        hidden, _ = self.backbone(x)
        return self.head(hidden.mean(1) if self.config.pooled else hidden)

    def loss(self, batch: dict) -> dict[str, Tensor]:
        """Mean cross-entropy in nats a label."""
        return {"label": F.cross_entropy(self.logits(batch["codes"]).float().flatten(0, -2), batch["labels"].flatten(), ignore_index=-1)}

    def write(self, folder: Path) -> None:
        """Weights and config, in `folder`, which `read` loads."""
        from slm_tokenizers.stored import save

        save(self, folder, exact=True)
