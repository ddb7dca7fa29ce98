"""Units of a tokenizer, merged: what comes together often becomes one id, so that a language model takes fewer steps a second.

BASE TTS (Łajszczak et al., 2024), section 2.3: byte-pair merges over its speech codes, 8192 ids, about 40 % fewer of them.

B batch, N samples, T units, S ids, K units there are.

Merges are found on units of one tokenizer and mean nothing on those of another; hence they hold it, remember its fingerprint, and
refuse to speak with another in its place. unit_bpe.py finds and applies them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slm.errors import SlmError
from slm_tokenizers.semantic import unit_bpe

NONE = -1  # behind the end of a row


class MergedUnits(nn.Module):
    """audio [B,1,N] at `rate` Hz -> ids [B,1,S] long in 0..card-1, each of one unit or more, of `hop` samples each.

    As a stage it is trained by one pass over the data, not by steps: see `fit`.
    """

    n_q = 1

    @dataclass
    class Config:
        source: Any = None  # the config of a tokenizer of one level, or the folder of one
        card: int = 8192  # ids that are asked for; there are fewer where no pair came twice
        merges: list[tuple[int, int]] = field(default_factory=list)  # the i-th makes id K + i
        origin: str | None = None  # fingerprint of the tokenizer on whose units the merges were found

        def build(self, streams: dict | None = None) -> "MergedUnits":
            """`streams` is what other stages must know; this one hears units and needs none."""
            return MergedUnits(self)

    def __init__(self, config: "MergedUnits.Config") -> None:
        super().__init__()
        self.source = units_of(config.source)
        if config.card < self.source.card:
            raise SlmError(f"card is {config.card} but there are {self.source.card} units, each of which is an id")
        self.config = replace(config, source=self.source.config)
        self.rate, self.hop = self.source.rate, self.source.hop
        self._take(unit_bpe.UnitBPE(self.source.card, list(config.merges)))
        self._known: tuple[nn.Module, str] | None = None  # so that a source is hashed once

    @property
    def card(self) -> int:
        return self.bpe.card

    @torch.no_grad()
    def encode(self, audio: Tensor | list[Tensor]) -> Tensor:
        """audio [B,1,N], or rows [1,N] of any lengths -> ids [B,1,S]; -1 behind the end of a row.

        SlmError on less than a unit, if no merges were found yet, or if they were found on units of another tokenizer.
        """
        self.check()
        units = self.source.encode(audio)[:, 0]  # [B,T]
        ids = [self.merge(row[row != NONE]) for row in units]
        return nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=NONE)[:, None]

    def merge(self, units: Tensor) -> Tensor:
        """units [T] -> ids [S]. SlmError on a unit that is none."""
        return self.bpe.encode(units)

    def part(self, ids: Tensor) -> Tensor:
        """ids [S] -> the units [T] they were made of, exactly. SlmError on an id that is none."""
        return self.bpe.decode(ids)

    def fit(self, data: Any, train: Any) -> list[dict[str, float]]:
        """Find merges in the units, or in units of the audio, of batches 0 to train.steps - 1; one entry: ids a unit after merging.

        SlmError on a unit that is none.
        """
        rows = [row for step in range(train.steps) for row in self.rows(data.at(step))]
        found = unit_bpe.learn(rows, self.source.card, self.config.card)
        self._take(found)
        self._known = None
        self.config.merges, self.config.origin = list(found.merges), self.origin()
        return [{"length": sum(len(self.merge(row)) for row in rows) / max(1, sum(map(len, rows)))}]

    @torch.no_grad()
    def rows(self, batch: dict) -> list[Tensor]:
        """The units [T] of each row of a batch."""
        if "units" in batch:
            return [row.flatten().cpu() for row in batch["units"]]
        return [row[row != NONE].cpu() for row in self.source.encode(batch["audio"])[:, 0]]

    def write(self, folder: Path) -> None:
        """Source and merges, in `folder`, which `slm_tokenizers.load` reads."""
        from slm_tokenizers.stored import save

        save(self, folder, exact=True)

    def origin(self) -> str:
        from slm.codes import fingerprint

        if self._known is None or self._known[0] is not self.source:
            self._known = (self.source, fingerprint(self.source))
        return self._known[1]

    def check(self) -> None:
        if not self.config.merges:
            raise SlmError("these units have no merges yet; fit them first")
        if self.config.origin not in (None, self.origin()):
            raise SlmError(f"the merges were found on units of {self.config.origin}, but these are of {self.origin()}")

    def _take(self, bpe: unit_bpe.UnitBPE) -> None:
        """The merges are weights too, so that other ones have another fingerprint."""
        self.bpe = bpe
        self.register_buffer("merges", torch.tensor(bpe.merges, dtype=torch.long).view(-1, 2))


def units_of(described: Any) -> nn.Module:
    """The config of a tokenizer of one level, or the folder of one -> that, which no longer learns. SlmError if it has more levels."""
    from slm.codes import load_tokenizer

    if not isinstance(described, str) and not hasattr(described, "build"):
        raise SlmError(f"source is {described!r} but must be the config or the folder of a tokenizer of units")
    source = load_tokenizer(described) if isinstance(described, str) else described.build()
    if getattr(source, "n_q", 0) != 1:
        raise SlmError(f"merges are over one level of units, and {type(source).__name__} has {getattr(source, 'n_q', 0)}")
    return source.eval().requires_grad_(False)
