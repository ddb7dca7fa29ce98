"""Several streams in one sequence, each behind its start marker.

B rows, S steps, W ids a step, Q levels, T frames, L tokens, V vocabulary. With parts text [L] and acoustic [Q=2, T] in parallel:

    column 0   <text>  h  e  y  <acoustic>  a0  a0  <eos>  .       . is EMPTY (-1): nothing there, or padding on the right
    column 1     .     .  .  .      .       a1  a1    .    .       <eos> only for a part with end=True

A span counts the content alone: its marker is one step before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from slm.errors import SlmError
from slm.stream.layout import EMPTY, LAYOUTS, lay, unlay
from slm.stream.vocabulary import Vocabulary


@dataclass
class Part:
    """One stream of a sequence.

    name    stream of the vocabulary and key of the batch
    levels  (first, stop) codebook levels told here, None for all
    layout  key of LAYOUTS
    learn   whether a model must predict it (or is only given it)
    end     whether <eos> follows, in column 0 on the first step that tells no more of that column (with delay: before the drain steps)
    like    an earlier part with as many frames: where this one is said, so it knows its own number
    stream  the stream that is told, where the batch knows the part by another name; then it holds the part's own levels alone
    """

    name: str
    levels: tuple[int, int] | None = None
    layout: str = "flat"
    learn: bool = True
    end: bool = False
    like: str | None = None
    stream: str | None = None

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise SlmError(f"part {self.name!r} has layout {self.layout!r}; it must be one of {', '.join(LAYOUTS)}")
        if self.levels is None:
            return
        if len(self.levels) != 2 or not 0 <= self.levels[0] < self.levels[1]:
            raise SlmError(f"part {self.name!r} has levels {self.levels!r}; they must be (first, stop) with 0 <= first < stop")
        self.levels = tuple(self.levels)

    @property
    def of(self) -> str:
        """The stream that is told."""
        return self.stream or self.name

    def span(self, Q: int) -> tuple[int, int]:
        """(first, stop) levels of this part when the stream has Q."""
        first, stop = self.levels or (0, Q)
        if stop > Q:
            raise SlmError(f"part {self.name!r} needs levels {first} to {stop - 1} but the codes have {Q}")
        return first, stop


@dataclass
class Merged:
    """ids [B, S, W] global ids or EMPTY; learn [B, S, W] cells to predict; lengths [B] steps; spans: per row (name, start, stop)."""

    ids: Tensor
    learn: Tensor
    lengths: Tensor
    spans: list[list[tuple[str, int, int]]]

    def of(self, name: str) -> Tensor:
        """Whether each step [B, S] belongs to the part, its marker and <eos> included."""
        inside = torch.zeros(self.ids.shape[:2], dtype=torch.bool, device=self.ids.device)
        for row, spans in enumerate(self.spans):
            for i, (part, start, _) in enumerate(spans):
                if part == name:
                    inside[row, start - 1 : self.until(row, i)] = True
        return inside

    def until(self, row: int, i: int) -> int:
        """The step at which the row's next part begins, or the row ends."""
        return self.spans[row][i + 1][1] - 1 if i + 1 < len(self.spans[row]) else int(self.lengths[row])


def merge(parts: list[Part], batch: dict[str, list[Tensor]], vocabulary: Vocabulary) -> Merged:
    """Rows of local ids, [L] or [Q, T] a part, in the order of `parts` -> one right-padded batch of global ids.

    Raises SlmError for a part the batch lacks, unequal numbers of rows, levels the codes lack and ids outside their range.
    """
    rows = _rows(parts, batch)
    merged = [_row(parts, [batch[part.name][row] for part in parts], vocabulary) for row in range(rows)]
    steps = max(len(ids) for ids, _, _ in merged)
    width = max(ids.shape[1] for ids, _, _ in merged)
    return Merged(
        ids=torch.stack([_pad(ids, steps, width, EMPTY) for ids, _, _ in merged]),
        learn=torch.stack([_pad(learn, steps, width, False) for _, learn, _ in merged]),
        lengths=torch.tensor([len(ids) for ids, _, _ in merged], device=merged[0][0].device),
        spans=[spans for _, _, spans in merged],
    )


def take(ids: Tensor, part: Part, vocabulary: Vocabulary, Q: int, T: int) -> Tensor:
    """Steps [..., S, W] of a part's span -> local codes [..., Q', T], or [..., T] for a stream without levels.

    Q counts the levels of the whole stream, Q' those of the part. Columns to the right of the layout's are ignored.
    SlmError if S is not the layout's number of steps or an id belongs to another range.
    """
    first, stop = part.span(Q)
    table = LAYOUTS[part.layout](stop - first, T)
    codes = unlay(ids[..., : table.shape[1]], table, stop - first, T)
    names = [vocabulary.level(part.of, level) for level in range(first, stop)]
    codes = torch.stack([vocabulary.to_local(name, codes[..., q, :]) for q, name in enumerate(names)], dim=-2)
    return codes[..., 0, :] if names == [part.of] else codes


def _rows(parts: list[Part], batch: dict[str, list[Tensor]]) -> int:
    missing = [part.name for part in parts if part.name not in batch]
    if missing:
        raise SlmError(f"the batch has no {missing[0]!r}; it has {', '.join(batch) or 'nothing'}")
    counts = {part.name: len(batch[part.name]) for part in parts}
    if len(set(counts.values())) != 1 or not min(counts.values()):
        raise SlmError(f"every part needs the same number of rows, at least one; the batch has {counts}")
    return next(iter(counts.values()))


def _row(parts: list[Part], contents: list[Tensor], vocabulary: Vocabulary) -> tuple[Tensor, Tensor, list[tuple[str, int, int]]]:
    pieces, spans, start = [], [], 0
    for part, content in zip(parts, contents, strict=True):
        ids, learn, told = _piece(part, content, vocabulary)
        spans.append((part.name, start + 1, start + 1 + told))
        pieces.append((ids, learn))
        start += len(ids)
    width = max(ids.shape[1] for ids, _ in pieces)
    ids = torch.cat([_pad(ids, len(ids), width, EMPTY) for ids, _ in pieces])
    learn = torch.cat([_pad(learn, len(learn), width, False) for _, learn in pieces])
    return ids, learn, spans


def _piece(part: Part, content: Tensor, vocabulary: Vocabulary) -> tuple[Tensor, Tensor, int]:
    """Marker, content and end of one part: ids [S, W], learn [S, W], and the steps the content takes."""
    codes = content[None] if content.ndim == 1 else content
    if codes.ndim != 2:
        raise SlmError(f"part {part.name!r} has shape {tuple(content.shape)}; it must be [L] or [Q, T]")
    first, stop = part.levels if part.stream and part.levels else part.span(len(codes))
    own = codes if part.stream else codes[first:stop]
    if len(own) != stop - first:
        raise SlmError(f"part {part.name!r} holds levels {first} to {stop - 1} of {part.of!r} but was given {len(own)}")
    codes = torch.stack([vocabulary.to_global(vocabulary.level(part.of, first + level), row) for level, row in enumerate(own)])
    steps = lay(codes, LAYOUTS[part.layout](*codes.shape))  # [S, W]
    told = len(steps)
    if part.end:
        last = (steps[:, 0] != EMPTY).nonzero()
        after = int(last[-1]) + 1 if len(last) else 0
        steps = _pad(steps, max(told, after + 1), steps.shape[1], EMPTY)
        steps[after, 0] = vocabulary.eos
    marker = steps.new_full((1, steps.shape[1]), EMPTY)
    marker[0, 0] = vocabulary.marker(part.of)
    ids = torch.cat([marker, steps])
    learn = (ids != EMPTY) & part.learn
    learn[0] = False
    return ids, learn, told


def _pad(x: Tensor, steps: int, width: int, value: int | bool) -> Tensor:
    padded = x.new_full((steps, width), value)
    padded[: x.shape[0], : x.shape[1]] = x
    return padded
