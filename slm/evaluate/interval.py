"""How sure a figure is: percentile bootstrap intervals (Efron, 1979) and a paired sign-flip permutation test (Fisher, 1935).

n utterances. Numbers in, numbers out: nothing here knows of speech.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def bootstrap(values: Sequence[float] | np.ndarray, weights: Sequence[float] | np.ndarray | None = None, seed: int = 0,
              draws: int = 2000, level: float = 0.95) -> tuple[float, float]:
    """The interval of sum(values) / sum(weights) when the n utterances are drawn again; without weights that is the mean.

    Example: errors and words of every utterance give the interval of the pooled WER.
    """
    top = np.asarray(values, float)
    bottom = np.ones_like(top) if weights is None else np.asarray(weights, float)
    picked = np.random.default_rng(seed).integers(0, len(top), size=(draws, len(top)))  # [draws,n]
    ratios = top[picked].sum(1) / np.maximum(bottom[picked].sum(1), 1e-12)
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class Paired:
    """`difference`: mean of own - other with its interval; `p`: how often chance alone gives one as large, signs being random."""

    difference: float
    low: float
    high: float
    p: float
    n: int


def paired_test(own: Sequence[float], other: Sequence[float], seed: int = 0, draws: int = 10_000) -> Paired:
    """Is `own` larger than `other`, utterance by utterance? One-sided; exact up to 12 pairs, `draws` random sign flips beyond."""
    gap = np.asarray(own, float) - np.asarray(other, float)
    n = len(gap)
    if n <= 12:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)  # [2^n,n], the first row is what was seen
    else:
        flips = np.random.default_rng(seed).integers(0, 2, size=(draws, n))
        signs = np.concatenate([np.ones((1, n), int), 1 - 2 * flips])
    reached = (signs @ gap >= gap.sum() - 1e-9).mean()
    low, high = bootstrap(gap, seed=seed)
    return Paired(float(gap.mean()), low, high, float(reached), n)


def mean_by(groups: Sequence[str], values: Sequence[float]) -> list[float]:
    """One mean a group, in order of first appearance: utterances of one speaker are not independent, speakers are."""
    found: dict[str, list[float]] = {}
    for group, value in zip(groups, values, strict=True):
        found.setdefault(group, []).append(value)
    return [float(np.mean(v)) for v in found.values()]
