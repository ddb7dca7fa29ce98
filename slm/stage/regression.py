"""Training of anything that knows its own losses: no discriminators, no stream.

The generator has `losses(batch) -> {name: scalar}` and `write(out)`, as a mel quantiser or a factorised codec without critics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


class Regression(nn.Module):
    """Hands each batch to the generator, whose config is any with `build()`."""

    @dataclass
    class Config:
        generator: Any  # the config of a module with `losses` and `write`

        def build(self, streams: dict | None = None) -> "Regression":
            """`streams` is what other stages must know; this one needs none."""
            return Regression(self)

    def __init__(self, config: "Regression.Config") -> None:
        super().__init__()
        self.config = config
        self.generator = config.generator.build()

    def forward(self, batch: dict, player: str = "main") -> dict[str, Tensor]:
        return self.generator.losses(batch)
