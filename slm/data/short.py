"""Short pieces of the utterances of any text-to-speech data: so many frames at most, between two phones, with hardly a prompt."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from slm.data.aligned import Aligned
from slm.data.madeup import MadeUpUtterances
from slm.data.utterances import Utterances


@dataclass
class Short:
    """Config: the utterances of `of`, cut to `longest` frames; a batch holds `frames` of them, padding included."""

    of: Aligned | MadeUpUtterances = field(default_factory=Aligned)
    longest: int = 150
    frames: int = 2000
    seed: int = 0

    def build(self, tokenizers: dict[str, Any]) -> Utterances:
        whole = self.of.build(tokenizers)
        return Utterances(whole.batches.items, whole.embed, self.frames, self.seed, prompt=(1, 1), longest=self.longest)
