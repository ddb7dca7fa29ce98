"""The order in which a grid of codes is told: one table of indices, one gather to lay out, one gather to undo.

Q codebook levels, T frames, S steps of the language model, W ids a step, V vocabulary. A layout is a function (Q, T) -> table [S, W]
of indices q*T + t into codes.flatten() of codes [Q, T], EMPTY (-1) where nothing is told. Q=2, T=3, cell "qt":

    flat      00 | 10 | 01 | 11 | 02 | 12          coarse_first  00 | 01 | 02 | 10 | 11 | 12
    parallel  00 10 | 01 11 | 02 12                delay         00 .. | 01 10 | 02 11 | .. 12

In flat and coarse_first every id sees all earlier ones, so the likelihood is exact; parallel and delay take the ids of one step as
independent given the past (MusicGen, Copet et al., 2023). A new layout is one function whose number of steps is affine in T.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from slm.errors import SlmError
from slm.stream.vocabulary import Vocabulary

EMPTY = -1
Layout = Callable[[int, int], Tensor]


def flat(Q: int, T: int) -> Tensor:
    """Frame after frame, within a frame from coarse to fine: [T*Q, 1]."""
    return torch.arange(Q * T).view(Q, T).T.reshape(-1, 1)


def coarse_first(group: int) -> Layout:
    """Groups of `group` levels one after the other, each told flat (the last may be smaller): [Q*T, 1]. AudioLM (Borsos et al., 2022)."""

    def table(Q: int, T: int) -> Tensor:
        return torch.cat([first * T + flat(min(group, Q - first), T) for first in range(0, Q, group)])

    return table


def parallel(Q: int, T: int) -> Tensor:
    """All levels of a frame at once: [T, Q]."""
    return torch.arange(Q * T).view(Q, T).T.contiguous()


def delay(Q: int, T: int) -> Tensor:
    """Level q of frame t at step t+q, so that it sees the coarser levels of its frame: [T+Q-1, Q]."""
    level = torch.arange(Q)
    frame = torch.arange(T + Q - 1)[:, None] - level  # [S, Q]
    return torch.where((frame >= 0) & (frame < T), level * T + frame, EMPTY)


LAYOUTS: dict[str, Layout] = {
    "flat": flat,
    "coarse_first": coarse_first(1),
    "coarse_first_2": coarse_first(2),
    "coarse_first_4": coarse_first(4),
    "parallel": parallel,
    "delay": delay,
}


def lay(codes: Tensor, table: Tensor, empty: int = EMPTY) -> Tensor:
    """codes [..., Q, T] -> steps [..., S, W], `empty` where the table is EMPTY; SlmError if the table is for another Q*T."""
    flattened = codes.flatten(-2)
    _check_cells(table, flattened.shape[-1])
    padded = torch.nn.functional.pad(flattened, (0, 1), value=empty)  # index -1 finds the added last cell
    return padded[..., table.to(codes.device)]


def unlay(steps: Tensor, table: Tensor, Q: int, T: int) -> Tensor:
    """steps [..., S, W] -> codes [..., Q, T], the exact inverse of `lay`; SlmError if shapes and table do not belong together."""
    if steps.shape[-2:] != table.shape:
        raise SlmError(f"steps of shape {tuple(steps.shape)} do not end in the table's shape {tuple(table.shape)}")
    _check_cells(table, Q * T)
    where = (table.flatten() != EMPTY).nonzero()[:, 0]
    place = torch.empty(Q * T, dtype=torch.long)
    place[table.flatten()[where]] = where
    return steps.flatten(-2)[..., place.to(steps.device)].unflatten(-1, (Q, T))


def levels(table: Tensor, T: int) -> Tensor:
    """Codebook level of every cell [S, W], EMPTY where the table is."""
    return torch.where(table == EMPTY, EMPTY, table // max(T, 1))


def frame_of(table: Tensor, T: int) -> Tensor:
    """Frame of the first cell that each step tells [S], EMPTY for a step that tells none: which frame a hint for the step is about."""
    frame = torch.where(table == EMPTY, EMPTY, table % max(T, 1))
    column = (table != EMPTY).int().argmax(1, keepdim=True)  # the first that is told
    return frame.gather(1, column)[:, 0]


def open_ended(layout: Layout, Q: int) -> bool:
    """Whether `layout` can be told without knowing T: what comes before the end of column 0 is the same however long it goes on."""
    short, long = levels(layout(Q, 2), 2), levels(layout(Q, 3), 3)
    last = int((short[:, 0] != EMPTY).nonzero()[-1])
    return torch.equal(short[: last + 1], long[: last + 1])


def frames(S: int, Q: int, layout: Layout) -> int:
    """Frames T that `layout` tells in S steps; SlmError if no whole number of frames takes S steps."""
    one, two = len(layout(Q, 1)), len(layout(Q, 2))
    T, rest = divmod(S - (2 * one - two), two - one)
    if rest or T < 0:
        raise SlmError(f"{S} steps hold no whole number of frames of {Q} levels; {one} steps hold one and each more takes {two - one}")
    return T


def legal(vocabulary: Vocabulary, name: str, levels_row: Tensor) -> Tensor:
    """Codebook levels [..., W] of stream `name` -> BoolTensor [..., W, V] of the ids allowed there; EMPTY cells allow none."""
    highest = int(levels_row.max()) if levels_row.numel() else EMPTY
    masks = torch.zeros(highest + 2, vocabulary.size, dtype=torch.bool, device=levels_row.device)
    for level in set(levels_row.flatten().tolist()) - {EMPTY}:
        start, stop = vocabulary.range(vocabulary.level(name, level))
        masks[level, start:stop] = True
    return masks[levels_row]  # level -1 finds the last row, which stays empty


def _check_cells(table: Tensor, cells: int) -> None:
    told = int((table != EMPTY).sum())
    if told != cells:
        raise SlmError(f"the layout table tells {told} cells but the codes have {cells}")
