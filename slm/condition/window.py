"""Which phones a frame may look at: the duration-guided mask of RALL-E (Xin et al., 2024).

    B rows   S steps   K steps so far   L phones   T frames

The step that says a frame of phone i looks, in every layer, at phones i-k to i+k, at what is said of those (pitch, duration), and at
all earlier frames. Whatever else stands before the codes, markers included, has a weight of exactly 0 there. Two numbers a step decide:
which phone it tells of (as a key), and which phone the frame behind it belongs to (as a query: a step says the next one).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from slm.errors import SlmError
from slm.stream.part import Merged

OPEN, SHUT = -1, -2  # a key that every frame sees, and one that none does; a query that sees all of its past is OPEN too


class Window:
    """Masks for a language model over `along`, each of one id a phone, and then `codes`, timed by `duration`."""

    @dataclass
    class Config:
        reach: int = 1  # k: phones to each side
        along: tuple[str, ...] = ("text", "pitch", "duration")
        duration: str = "duration"
        codes: str = "acoustic"

        def build(self) -> "Window":
            return Window(self)

    def __init__(self, config: "Window.Config") -> None:
        if config.reach < 0:
            raise SlmError(f"Window: reach = {config.reach} must be at least 0")
        if config.duration not in config.along or config.codes in config.along:
            raise SlmError(f"Window: {config.duration!r} must be among the parts {config.along} that stand before {config.codes!r}")
        self.config = config

    def keys(self, name: str, steps: int) -> Tensor:
        """Of a part of so many steps: the phone that its marker and each step tell of [1+S]."""
        if name == self.config.codes:
            return torch.full((1 + steps,), OPEN)
        if name not in self.config.along:
            raise SlmError(f"part {name!r} is neither one of {', '.join(self.config.along)} nor the codes {self.config.codes!r}")
        return torch.tensor([SHUT, *range(steps)])

    def queries(self, name: str, steps: int, duration: Tensor | None) -> Tensor:
        """The phone whose frame is said after the marker and after each step [1+S]; behind the last step, the last phone."""
        if name != self.config.codes:
            return torch.full((1 + steps,), OPEN)
        phone = torch.repeat_interleave(torch.arange(len(duration)), duration.cpu())
        if steps != len(phone) or not steps:
            raise SlmError(f"the durations of a row sum to {len(phone)} frames, at least 1 being needed, and its codes take {steps} steps")
        return torch.cat([phone, phone[-1:]])

    def seen(self, keys: Tensor, queries: Tensor) -> Tensor:
        """keys [...,K], queries [...,S] -> bool [...,S,K], True is seen; that no step sees the future is left to the backbone."""
        keys, queries = keys[..., None, :], queries[..., None]
        near = (keys >= 0) & ((keys - queries).abs() <= self.config.reach)
        return near | (keys == OPEN) | (queries == OPEN)

    def of(self, merged: Merged, batch: dict) -> tuple[Tensor, Tensor]:
        """keys, queries [B,S] of a merged batch"""
        durations = batch.get(self.config.duration)
        keys, queries = (torch.full(merged.ids.shape[:2], OPEN) for _ in range(2))
        for b, spans in enumerate(merged.spans):
            for name, start, stop in spans:
                keys[b, start - 1 : stop] = self.keys(name, stop - start)
                queries[b, start - 1 : stop] = self.queries(name, stop - start, durations[b] if durations else None)
        return keys.to(merged.ids.device), queries.to(merged.ids.device)


class Sight:
    """The same, step by step: what each row has told so far, and what it looks at next."""

    def __init__(self, window: Window, merged: Merged, batch: dict) -> None:
        """merged, batch: what was heard before."""
        keys, _ = window.of(merged, batch)
        self.window, self.rows = window, [row[:n].tolist() for row, n in zip(keys, merged.lengths.tolist())]

    def begin(self, name: str, steps: list[int], batch: dict) -> None:
        """A part of so many steps in each row comes next; the batch has the durations, if they are said."""
        durations = list(batch.get(self.window.config.duration) or [None]) * len(steps)
        self.keys = [self.window.keys(name, n).tolist() for n in steps]
        self.queries = [self.window.queries(name, n, d).tolist() for n, d in zip(steps, durations)]

    def step(self, step: int, active: list[bool]) -> Tensor:
        """Bool [B,1,K] for that step of the part, the marker being step 0; rows that are not active hear nothing and may see all."""
        for row, keys, on in zip(self.rows, self.keys, active):
            if on:
                row.append(keys[step])
        longest = max(len(row) + (not on) for row, on in zip(self.rows, active))
        keys = torch.tensor([row + [OPEN] * (longest - len(row)) for row in self.rows])
        queries = torch.tensor([[queries[step] if on else OPEN] for queries, on in zip(self.queries, active)])
        return self.window.seen(keys, queries)
