"""Which items make up the batch of step k: a pure function of (seed, k). There is no iterator, so there is no position to save.

Items are sorted by cost (a length, in any unit) and cut into buckets of similar cost. A bucket holds a whole number of full batches, so the
number of batches is the same in every epoch and step k lies in epoch k // n. Each epoch shuffles the items inside their bucket, cuts the
buckets into batches and shuffles the batches. A batch costs (its costliest item) x (its number of items), padding included, and never
more than the budget.

Several processes take turns in the one sequence of batches: at step k, rank r of w reads batch k * w + r.
"""

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from slm.data.batch import Batch, collate
from slm.data.draw import permutation
from slm.errors import SlmError

CLOSE = 0.8  # a bucket's items cost at least this share of its costliest …
NEAR = 0.5  # … or this much where too few are that close to fill one batch: then a batch stays short rather than wasteful

T = TypeVar("T")


class Bucket(NamedTuple):
    items: np.ndarray  # indices, the costliest first
    size: int  # items in a full batch


class Batches(Generic[T]):
    """Length-bucketed batches of `items` (in a fixed order) under a budget.

    cost: item -> a positive number. budget: the most that a batch may cost, in that unit, for each process. rows: the most items in one.
    shuffle=False: batches from the costliest down, the same in every epoch. len() is the number of batches in an epoch.
    SlmError if there are no items, a cost is not positive and finite, or an item alone costs more than the budget.
    """

    def __init__(
        self,
        items: Sequence[T],
        cost: Callable[[T], float],
        budget: float,
        seed: int,
        shuffle: bool = True,
        rows: int | None = None,
    ):
        self.items = list(items)
        self.seed, self.shuffle = seed, shuffle
        costs = np.array([cost(item) for item in self.items], dtype=np.float64)
        _check(costs, budget, rows)
        self.buckets = _buckets(costs, budget, rows or len(self.items))
        self._batches = sum(-(-len(bucket.items) // bucket.size) for bucket in self.buckets)
        self._plan: tuple[int, list[np.ndarray]] | None = None  # the epoch used last: a saving, not a state

    def __len__(self) -> int:
        return self._batches

    def at(self, step: int, rank: int = 0, world: int = 1) -> list[T]:
        """The items of one batch, never empty."""
        if step < 0 or not 0 <= rank < world:
            raise SlmError(f"There is no batch for step {step} on rank {rank} of {world}.")
        epoch, index = divmod(step * world + rank, self._batches)
        return [self.items[i] for i in self._epoch(epoch)[index]]

    def epoch(self, step: int, world: int = 1) -> float:
        """How many times the items have been seen before `step`, in epochs and a fraction."""
        return step * world / self._batches

    def _epoch(self, epoch: int) -> list[np.ndarray]:
        if self._plan is None or self._plan[0] != epoch:
            self._plan = (epoch, self._order(epoch))
        return self._plan[1]

    def _order(self, epoch: int) -> list[np.ndarray]:
        batches = []
        for number, (items, size) in enumerate(self.buckets):
            if self.shuffle:
                items = items[permutation(len(items), self.seed, epoch, number)]
            batches += [items[i : i + size] for i in range(0, len(items), size)]
        if not self.shuffle:
            return batches
        return [batches[i] for i in permutation(len(batches), self.seed, epoch)]


def _check(costs: np.ndarray, budget: float, rows: int | None) -> None:
    if len(costs) == 0:
        raise SlmError("There are no items to make batches of.")
    fine = np.isfinite(costs) & (costs > 0)
    if not fine.all():
        raise SlmError(f"Every item's cost must be a positive number, but item {int(fine.argmin())} costs {costs[fine.argmin()]:g}.")
    if costs.max() > budget:
        over = int((costs > budget).sum())
        raise SlmError(f"{over} of {len(costs)} items cost up to {costs.max():g} each, but a whole batch may cost {budget:g}.")
    if rows is not None and rows < 1:
        raise SlmError(f"A batch must have room for at least 1 item, not {rows}.")


def _buckets(costs: np.ndarray, budget: float, rows: int) -> list[Bucket]:
    order = np.argsort(-costs, kind="stable")
    falling = -costs[order]
    buckets, start = [], 0
    while start < len(order):
        top = -falling[start]
        size = min(int(budget // top), rows)
        close = int(np.searchsorted(falling, -CLOSE * top, side="right")) - start
        near = int(np.searchsorted(falling, -NEAR * top, side="right")) - start
        count = close // size * size or min(size, near)
        buckets.append(Bucket(order[start : start + count], size))
        start += count
    return buckets


def drawn(batches: Batches[T], row: Callable[[T, np.random.Generator], dict], seed: int, step: int, rank: int = 0, world: int = 1) -> Batch:
    """The batch of a step: a row of each of its items, made with random numbers that depend on (seed, step, rank) alone."""
    draw = np.random.default_rng([seed, step * world + rank])
    return collate([row(item, draw) for item in batches.at(step, rank, world)])
