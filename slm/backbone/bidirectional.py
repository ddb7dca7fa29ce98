"""A causal backbone in both directions: one hears the past, one the future, and their outputs are added.

Vision Mamba (Zhu et al., 2024) has both directions in a block; here each is a stack of its own.

B batch   S steps   D width
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from slm.backbone.mamba2 import Mamba2
from slm.backbone.rwkv import RWKV
from slm.errors import SlmError


class Bidirectional(nn.Module):
    """x [B,S,D] -> hidden [B,S,D]; every step needs the future, so there is no state."""

    causal = False

    @dataclass
    class Config:
        of: Mamba2.Config | RWKV.Config = field(default_factory=Mamba2.Config)  # built twice

        def build(self) -> "Bidirectional":
            return Bidirectional(self)

    def __init__(self, config: "Bidirectional.Config") -> None:
        super().__init__()
        self.config, self.dim = config, config.of.dim
        self.past, self.future = config.of.build(), config.of.build()

    def start(self, batch: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> None:
        """Always an SlmError: there is no state."""
        raise SlmError("Bidirectional keeps no state: every step needs the future.")

    def forward(
        self, x: Tensor, state: None = None, lengths: Tensor | None = None, documents: Tensor | None = None, cond: None = None
    ) -> tuple[Tensor, None]:
        """x [B,S,D] -> hidden [B,S,D]. lengths [B]: real steps of each row; documents [B,S]: see the causal backbones."""
        if state is not None:
            self.start(len(x))
        turn = turned(x, lengths)
        heard, _ = self.past(x, None, lengths, documents, cond)
        back = None if documents is None else documents.gather(1, turn)
        coming, _ = self.future(take(x, turn), None, lengths, back, cond)
        return heard + take(coming, turn), None


def turned(x: Tensor, lengths: Tensor | None) -> Tensor:
    """x [B,S,D] -> the step [B,S] that stands at each place when every row's real part is reversed; padding stays where it is."""
    steps = torch.arange(x.shape[1], device=x.device).expand(len(x), -1)
    ends = torch.full_like(steps[:, :1], x.shape[1]) if lengths is None else lengths[:, None]
    return torch.where(steps < ends, ends - 1 - steps, steps)


def take(x: Tensor, steps: Tensor) -> Tensor:
    """x [B,S,D], steps [B,S] -> x at these steps [B,S,D]; reversing twice gives x."""
    return x.gather(1, steps[..., None].expand_as(x))
