"""Batches of several kinds, in turns that are drawn: the data of a model of several tasks. B rows"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from slm.errors import SlmError


@dataclass
class Mixture:
    """Config: data by task, in the order in which the model numbers its tasks; `shares` of the batches, all alike if not given; what has
    none is not read, and what is the same is read once."""

    of: dict[str, Any] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    seed: int = 0

    def build(self, tokenizers: dict[str, Any]) -> "Mixed":
        if not self.of or set(self.shares) - set(self.of):
            raise SlmError(f"a mixture of {', '.join(self.of) or 'nothing'} was given shares of {', '.join(self.shares) or 'nothing'}")
        if not any(self.shares.get(name, 1.0) for name in self.of):
            raise SlmError(f"a mixture of {', '.join(self.of)} in which none of them has a share")
        built: list[tuple[Any, Any]] = []
        for data in (data for name, data in self.of.items() if self.shares.get(name, 1.0)):
            if all(data != known for known, _ in built):
                built.append((data, data.build(tokenizers)))
        return Mixed(self, {name: rows for name, data in self.of.items() for known, rows in built if data == known})


class Mixed:
    """`at(step)` -> a batch of one of the data with `task` [1] a row; a function of (seed, step)."""

    def __init__(self, config: Mixture, data: dict[str, Any]) -> None:
        self.config, self.data, self.names = config, data, list(config.of)
        shares = np.array([config.shares.get(name, 1.0) for name in self.names])
        self.shares = shares / shares.sum()

    def at(self, step: int, rank: int = 0, world: int = 1) -> dict:
        number = int(np.random.default_rng([self.config.seed, step]).choice(len(self.names), p=self.shares))
        batch = self.data[self.names[number]].at(step, rank, world)
        rows = len(next(iter(batch.values())))
        return {**batch, "task": [torch.tensor([number])] * rows}
