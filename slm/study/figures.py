"""Figures of held-out items, and how sure the difference of two is.

A figure keeps one part an item (a distance, errors and words, counts of phones and codes), so that items can be drawn again:
a paired bootstrap (Efron, 1979) over items, each difference taken between figures of the same draw.

    n items   P phones   K codes   R draws
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from slm.errors import SlmError

DRAWS = 1000


@dataclass
class Figure:
    """`parts` [n,...], one an item; `reduce` makes the figure of their weighted sum: weights [R,n] -> [R]."""

    parts: np.ndarray
    reduce: Callable[[np.ndarray], np.ndarray]

    def of(self, weights: np.ndarray) -> np.ndarray:
        """weights [R,n] -> the figure of each draw [R]"""
        flat = self.parts.reshape(len(self.parts), -1)
        pieces = [
            self.reduce((w @ flat).reshape(len(w), *self.parts.shape[1:])) for w in np.array_split(weights, max(1, len(weights) // 20))
        ]
        return np.concatenate(pieces)

    @property
    def value(self) -> float:
        return float(self.of(np.ones((1, len(self.parts))))[0])


def mean(values: np.ndarray) -> Figure:
    """values [n] -> their mean"""
    values = np.asarray(values, float)
    return Figure(np.stack([values, np.ones_like(values)], 1), lambda s: s[:, 0] / s[:, 1])


def ratio(top: np.ndarray, bottom: np.ndarray) -> Figure:
    """top, bottom [n] -> sum of one over sum of the other, as errors over words"""
    return Figure(np.stack([np.asarray(top, float), np.asarray(bottom, float)], 1), lambda s: s[:, 0] / np.maximum(s[:, 1], 1e-12))


def pnmi(counts: np.ndarray) -> Figure:
    """counts [n,P,K] of frames with a phone and a code -> what the code tells of the phone, as a share of the phone's entropy.

    Phone-normalised mutual information (Hsu et al., 2021, HuBERT); 0 if codes are independent of phones, 1 if they decide them.
    """
    return Figure(np.asarray(counts, np.float32), _pnmi)


def _pnmi(counts: np.ndarray) -> np.ndarray:
    p = counts / counts.sum((1, 2), keepdims=True)  # [R,P,K]
    phone, code = p.sum(2), p.sum(1)
    return (entropy(phone) + entropy(code) - entropy(p.reshape(len(p), -1))) / entropy(phone)


def entropy(p: np.ndarray) -> np.ndarray:
    """p [R,X] -> nats [R]"""
    return -(p * np.log(np.where(p > 0, p, 1))).sum(1)


@dataclass(frozen=True)
class Difference:
    """One figure minus another, its 95 % interval, and in how many items."""

    value: float
    low: float
    high: float
    n: int


def difference(one: Figure, other: Figure, seed: int = 0) -> Difference:
    """one - other with its interval over items. SlmError if they are not figures of the same number of items."""
    n = len(one.parts)
    if n != len(other.parts):
        raise SlmError(f"a figure of {n} items cannot be compared with one of {len(other.parts)}")
    weights = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=DRAWS).astype(np.float32)
    gaps = one.of(weights) - other.of(weights)
    low, high = np.quantile(gaps, [0.025, 0.975])
    return Difference(one.value - other.value, float(low), float(high), n)
