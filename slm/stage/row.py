"""What one row of a part has said, and what its layout tells next, whether or not its end is known.

    S steps   W columns   Q levels   T frames

A part of unknown length is laid out for as many frames as it may have at most, and again for those it has when its end is found:
an open-ended layout has told the same until then. So levels that lag behind (delay) are told to the last frame and no further.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from slm.stream.layout import EMPTY, LAYOUTS, frame_of, levels
from slm.stream.part import Part
from slm.stream.sample import StopReason, looping

CHECK = 16  # frames between looks for loops


@dataclass
class Row:
    """One row of a part of Q levels: `frames` of them, or at most so many while it is `open`; `said`: the global ids of each level.

    begins: such ids, of each level, that are not to be drawn because they are known.
    """

    part: Part
    levels: int
    frames: int
    open: bool
    begins: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.said: list[list[int]] = [[] for _ in range(self.levels)]
        self.reason: StopReason = "length" if self.open else "end"
        self.looked = 0  # whole frames at the last look for loops
        self._plan()

    def _plan(self) -> None:
        table = LAYOUTS[self.part.layout](self.levels, self.frames)
        self.cells, self.about = levels(table, self.frames).tolist(), frame_of(table, self.frames).tolist()
        told = (table[:, 0] != EMPTY).nonzero()
        self.last = int(told[-1]) + 1 if len(told) else 0  # the step of <eos>
        self.steps = max(len(table), self.last + 1) if self.part.end else len(table)
        self.width = table.shape[1]

    def level(self, step: int, column: int) -> int:
        """What is told there, EMPTY for nothing."""
        return self.cells[step][column] if step < len(self.cells) else EMPTY

    def known(self, level: int) -> int | None:
        """The id that comes next there, None where it must be drawn."""
        begins, at = self.begins[level] if self.begins else [], len(self.said[level])
        return begins[at] if at < len(begins) else None

    def finish(self, reason: StopReason) -> None:
        """No further frame is begun; of those that are, what is missing is still told."""
        self.open, self.reason, self.frames = False, reason, len(self.said[0])
        self._plan()

    def look(self) -> None:
        """Finish if it goes round in circles."""
        whole = min(map(len, self.said))
        if not self.open or whole == self.looked or whole % CHECK:
            return
        self.looked = whole
        if looping(torch.tensor([ids[:whole] for ids in self.said]).T):
            self.finish("loop")
