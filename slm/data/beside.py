"""Speech that goes on (continued.py) with units of another tokenizer beside its codes, one a frame: what an aligner hears.

With `noisy`, rows also have the codes of the recordings made worse (rough.py).

    L phones   P prompt frames   T frames   Q levels

The rows are those of `Continued`, cut and drawn alike: until they are made, the units and what is worse are further levels of the codes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slm.config import LATER
from slm.data.aligned import Aligned, read_phones
from slm.data.batches import drawn
from slm.data.continued import Continuations, Continued, Row
from slm.data.prosody import tokenizer
from slm.data.texts import encoded, made_up
from slm.data.utterances import Utterance, shorten
from slm.errors import SlmError

APART = 2  # frames that two tokenizers may differ in at the end of a recording


@dataclass
class Beside:
    """Config. units: the tokenizer of one level whose codes are added; it must count the codec's frames.

    noisy: how many levels rows have of what is worse, under that name and as `again`; `of` must hear it then (Aligned.rough).
    """

    of: Continued = field(default_factory=Continued)
    units: str = "units"
    noisy: int = field(default=0, metadata=LATER)

    def build(self, tokenizers: dict[str, Any]) -> "BesideRows":
        of = self.of.of
        heard, codec = tokenizers[self.units], tokenizers[of.codec]
        if heard.rate * codec.hop != codec.rate * heard.hop:
            rates = f"{heard.rate / heard.hop:g} and {codec.rate / codec.hop:g}"
            raise SlmError(f"units and codes must have the same frames, and those of {self.units!r} and {of.codec!r} come {rates} a second")
        items = of.build(tokenizers).batches.items
        found = framed(of, heard, items) if isinstance(of, Aligned) else made_up(of, tokenizers, self.units)
        wide = [replace(item, codes=torch.cat([item.codes, found[item.id][None], *self.worse(item)])) for item in items]
        pitch = self.of.melody.of(items, tokenizer(tokenizers)) if self.of.melody else None
        return BesideRows(self, Continuations(self.of, wide, pitch))

    def worse(self, item: Utterance) -> list[Tensor]:
        if self.noisy and item.rough is None:
            raise SlmError("Beside: noisy wants recordings made worse, and they are not heard so; set rough of what they are read by")
        return [item.rough[: self.noisy]] if self.noisy else []


def framed(of: Aligned, heard: Any, items: list[Utterance]) -> dict[str, Tensor]:
    """id -> units [T] of each utterance's frames: the end made even, and long pauses shortened, as those of its codes."""
    units = encoded(of, heard)
    phones = {id: row for folder in of.folders for id, row in read_phones(Path(folder)).items()}
    found = {}
    for item in items:
        if item.id not in units:
            raise SlmError(f"utterance {item.id} has codes and no units; remove what is damaged below {of.cache} and try again")
        duration = torch.tensor([frames for _, frames in phones[item.id]])
        if item.duration[-1] < of.longest:
            duration[-1] = item.duration[-1]  # what is behind the last phone belongs to it
        row = even(units[item.id], int(duration.sum()))[None]
        found[item.id] = shorten(item.text, duration, row, of.longest)[2][0]
    return found


def even(units: Tensor, frames: int) -> Tensor:
    """units [U] -> [T]: the last is repeated where a frame lacks one. SlmError if they are not about as many."""
    if abs(len(units) - frames) > APART:
        raise SlmError(f"a recording of {frames} frames has {len(units)} units; it must be one a frame")
    return units[torch.arange(frames).clamp(max=len(units) - 1)]


class BesideRows:
    """`at(step)` -> the batch of `Continued` with units [P+T], or [T] where the codes are the target's alone, and perhaps noisy [Q,·]."""

    def __init__(self, config: Beside, spoken: Continuations) -> None:
        self.config, self.spoken, self.batches = config, spoken, spoken.batches

    def __len__(self) -> int:
        return len(self.spoken)

    def at(self, step: int, rank: int = 0, world: int = 1) -> dict[str, list[Tensor]]:
        return drawn(self.batches, self.row, self.spoken.seed, step, rank, world)

    def row(self, item: Utterance, draw: np.random.Generator) -> Row:
        row = self.parted(self.spoken.row(item, draw))
        return row | {"prompt_codes": row["prompt_codes"][: len(row["acoustic"])]}

    def parted(self, row: Row) -> Row:
        """A row whose units, and what is worse, are levels of its codes -> the same by their names."""
        *codes, units = row["acoustic"][: -self.config.noisy or None]
        told = row | {"acoustic": torch.stack(codes), self.config.units: units}
        return told | {name: row["acoustic"][-self.config.noisy :] for name in ("noisy", "again") if self.config.noisy}
