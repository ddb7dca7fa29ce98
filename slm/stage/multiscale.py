"""The ids of one step, one after another: a small causal Transformer over the columns that a step tells.

    N steps   W columns   D width of the model over steps   L width of this one

A language model over steps takes the ids of one step as independent of each other. With this model behind it they are not: column w
is said from what the steps before amount to and from the columns before it, so the likelihood is exact in every layout. Over parallel
frames that is UniAudio's global and local model (Yang et al., 2023), over delayed ones Moshi's (Défossez et al., 2024); the form is
the RQ-Transformer's (Lee et al., 2022). It knows neither levels nor what is legal.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor, nn

from slm.backbone.cache import State
from slm.backbone.transformer import Transformer
from slm.errors import SlmError
from slm.stream.layout import EMPTY


class Depth(nn.Module):
    """hidden [N,D] of the steps before and the step's ids [N,W] -> what each of its columns is said from [N,W,D]."""

    @dataclass
    class Config:
        backbone: Transformer.Config = field(default_factory=lambda: Transformer.Config(dim=128, depth=2, heads=2))
        own: bool = False  # embeddings of its own (Moshi) rather than those of the model over steps

        def build(self, dim: int, size: int) -> "Depth":
            return Depth(self, dim, size)

    def __init__(self, config: "Depth.Config", dim: int, size: int) -> None:
        """dim: D.   size: ids of the vocabulary."""
        super().__init__()
        self.config = config
        self.backbone = config.backbone.build()
        if not self.backbone.causal:
            raise SlmError("a step's columns are said one after the other: the model over them must be causal")
        inner = self.backbone.dim
        self.embed = nn.Embedding(size, inner) if config.own else None
        self.hear = nn.Identity() if config.own else nn.Linear(dim, inner, bias=False)
        self.enter = nn.Linear(dim, inner)
        self.leave = nn.Linear(inner, dim)
        if self.embed is not None:
            nn.init.normal_(self.embed.weight, std=0.3)

    def forward(self, hidden: Tensor, ids: Tensor, embed: nn.Embedding) -> Tensor:
        """embed: of the model over steps. The last column's id is not looked at."""
        told = F.pad(self.told(ids[:, :-1], embed), (0, 0, 1, 0))  # one column late
        y, _ = self.backbone(self.enter(hidden)[:, None] + told)
        return self.leave(y)

    def told(self, ids: Tensor, embed: nn.Embedding) -> Tensor:
        """ids [N,W] -> [N,W,L], 0 where one is EMPTY"""
        table = embed if self.embed is None else self.embed
        return self.hear(table(ids.clamp(min=0))) * (ids != EMPTY)[..., None]

    def start(self, rows: int, columns: int) -> State:
        """The state of `rows` steps of which no column was told."""
        return self.backbone.start(rows, capacity=columns)

    def step(self, hidden: Tensor, before: Tensor | None, embed: nn.Embedding, state: State) -> tuple[Tensor, State]:
        """hidden [N,D], ids [N] of the column before (None: there is none) -> what the next column is said from [N,D], and the state."""
        x = self.enter(hidden)[:, None]
        if before is not None:
            x = x + self.told(before[:, None], embed)
        y, state = self.backbone(x, state)
        return self.leave(y)[:, 0], state
