"""A stack of different backbones with one residual stream, such as Mamba-2 with an attention layer now and then (Jamba, 2024).

    Hybrid.Config([Mamba2.Config(256, depth=3), Transformer.Config(256, depth=1, positions="none"), Mamba2.Config(256, depth=3)])

Each part is a backbone as it stands, but for the norm behind its last layer: there is one, at the end of the stack.

B batch   S steps   D width
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from slm.backbone.gated_conv import GatedConv
from slm.backbone.mamba2 import Mamba2
from slm.backbone.rwkv import RWKV
from slm.backbone.transformer import Transformer
from slm.errors import SlmError
from slm.nn.norm import RMSNorm


@dataclass
class State:
    """The state of each part."""

    parts: list[Any] = field(default_factory=list)


class Hybrid(nn.Module):
    """x [B,S,D] -> hidden [B,S,D]; causal where all its parts are."""

    @dataclass
    class Config:
        parts: list[Transformer.Config | Mamba2.Config | RWKV.Config | GatedConv.Config] = field(default_factory=list)

        def build(self) -> "Hybrid":
            return Hybrid(self)

    def __init__(self, config: "Hybrid.Config") -> None:
        super().__init__()
        widths = {part.dim for part in config.parts}
        if len(widths) != 1:
            raise SlmError(f"Hybrid: its parts must be of one width, but have dim = {sorted(widths)}.")
        self.config, self.dim = config, widths.pop()
        self.parts = nn.ModuleList(part.build() for part in config.parts)
        for part in self.parts:
            setattr(part, "norm_f" if isinstance(part, Mamba2) else "norm", nn.Identity())
        self.causal = all(part.causal for part in self.parts)
        self.norm = RMSNorm(self.dim)

    def start(self, batch: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> State:
        """The state of `batch` rows that have seen nothing. SlmError: a part is not causal."""
        return State([part.start(batch, device, dtype) for part in self.parts])

    def forward(
        self, x: Tensor, state: State | None = None, lengths: Tensor | None = None, documents: Tensor | None = None, cond: None = None
    ) -> tuple[Tensor, State | None]:
        """x [B,S,D] -> hidden [B,S,D] and, if a state was given, the state after each row's `lengths` [B] real steps.

        documents [B,S]: ids of documents packed side by side; nothing crosses from one to the next (only without a state).
        """
        if cond is not None:
            raise SlmError("Hybrid takes no conditioning vector; use Transformer.Config(adaptive=...) or put it in the stream.")
        after = None if state is None else State()
        for i, part in enumerate(self.parts):
            x, past = part(x, None if state is None else state.parts[i], lengths, documents)
            if after is not None:
                after.parts.append(past)
        return self.norm(x), after
