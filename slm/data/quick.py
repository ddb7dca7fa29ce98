"""Recordings played faster or slower, each speed another speaker: pitch, formants and tempo move together (Ko et al., 2015).

    N samples   Q levels   T frames   L phones

A tokenizer that asks for another rate than its codec's hears that: 14,400 samples of a second are .9 s at 16,000 Hz.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

STEP = 400  # Hz: rates are multiples of it, so that other rates can be brought to them


@dataclass
class Quick:
    """A tokenizer that hears everything about `speed` times as fast."""

    codec: Any
    speed: float = 1.0

    @property
    def rate(self) -> int:
        return self.codec.rate if self.speed == 1 else round(self.codec.rate / self.speed / STEP) * STEP

    @property
    def mark(self) -> str:
        """What tells its speakers and utterances from those of other speeds."""
        return "" if self.speed == 1 else f" x{self.codec.rate / self.rate:.3f}"

    @property
    def made(self) -> str:
        """What tells its codes from others, for a cache."""
        from slm.codes import fingerprint

        return fingerprint(self.codec) + self.mark

    def encode(self, audio: Tensor) -> Tensor:
        """audio [1,1,N] at `rate` -> codes [1,Q,T]"""
        return self.codec.encode(audio)

    def lasting(self, duration: Tensor) -> Tensor:
        """Frames of each phone as recorded [L] -> as heard [L], none of them 0; their sum is what was heard, or one beside it."""
        if self.speed == 1:
            return duration
        ends = (duration.cumsum(0) * (self.rate / self.codec.rate)).round().long().tolist()
        last, out = 0, []
        for end in ends:
            out.append(max(1, end - last))
            last += out[-1]
        return duration.new_tensor(out)
