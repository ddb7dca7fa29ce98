"""Short rows first, long ones later: a curriculum (Bengio et al., 2009).

In a row of a second a frame says one of a dozen phones, in one of five seconds one of sixty. A model that has to find out by itself which
is due, as VALL-E's first stage, finds it in short rows after some hundred steps and keeps it as they grow; in long ones it learns the
sound of speech first, and hardly heeds the text before some thousand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from slm.errors import SlmError


@dataclass
class Lessons:
    """Config. first: data, and for how many steps each is learned from, in order; then: what is learned from ever after."""

    first: list[tuple[int, Any]] = field(default_factory=list)
    then: Any = None

    def build(self, tokenizers: dict[str, Any]) -> "Lesson":
        if self.then is None or any(steps < 1 for steps, _ in self.first):
            raise SlmError("Lessons: each of the first needs at least one step, and something must follow them")
        return Lesson([(steps, data.build(tokenizers)) for steps, data in self.first], self.then.build(tokenizers))


class Lesson:
    """`at(step)` -> the batch of that step of the data whose turn it is."""

    def __init__(self, first: list[tuple[int, Any]], then: Any) -> None:
        self.first, self.then = first, then

    def __len__(self) -> int:
        return len(self.then)

    def at(self, step: int, rank: int = 0, world: int = 1) -> dict:
        until = 0
        for steps, data in self.first:
            until += steps
            if step < until:
                return data.at(step, rank, world)
        return self.then.at(step, rank, world)
