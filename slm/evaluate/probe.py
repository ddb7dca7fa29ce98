"""What can a simple listener tell from a representation? A linear classifier learns it on some speakers and is asked about others.

A stream that tells its thing and hides the others' is shown by a table of such figures, each beside what guessing would reach.
Numbers in, numbers out: nothing here knows of speech, tokenizers or speakers.

n frames, D width of a feature, Q codebooks, G groups (speakers, say), E classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.errors import SlmError
from slm.evaluate.interval import bootstrap

DECAY = 1e-4  # of the squared weights, whose features have variance 1


@dataclass(frozen=True)
class Probed:
    """Share of right answers on groups that were not learned from, with its interval over groups, and that of the commonest class."""

    accuracy: float
    low: float
    high: float
    chance: float
    n: int  # frames asked about


def probe(features: Tensor, labels: Tensor, groups: Sequence[str], share: float = 0.4, seed: int = 0) -> Probed:
    """How well a linear classifier tells `labels` [n] from `features`, floats [n,D], or codes [n,Q] long.

    groups: whose each frame is [n]; `share` of the groups, drawn by `seed`, are asked about and never learned from. Speakers, if
    they are not the label; utterances, if they are. Classes of the one side only, and labels below 0, are left out.
    SlmError if the lengths differ, there are fewer than two groups, or nothing is left to learn or to ask.
    """
    if not len(features) == len(labels) == len(groups) or features.dim() != 2:
        raise SlmError(f"features {list(features.shape)}, labels [{len(labels)}] and groups [{len(groups)}] are not of the same frames")
    names = np.array(groups)
    aside = held(groups, share, seed)
    asked, learned = aside & (labels >= 0), ~aside & (labels >= 0)
    both = torch.tensor(np.intersect1d(labels[learned].numpy(), labels[asked].numpy()))  # [E]
    learned, asked = (side & torch.isin(labels, both) for side in (learned, asked))
    if len(both) < 2:
        raise SlmError(f"{len(both)} classes occur both where a probe learns and where it is asked, but at least 2 must")
    classes = torch.searchsorted(both, labels.contiguous())
    model = fit(features[learned], classes[learned], len(both))
    right = (model(features[asked]).argmax(-1) == classes[asked]).numpy()
    commonest = classes[learned].bincount(minlength=len(both)).argmax()
    chance = float((classes[asked] == commonest).float().mean())
    _, each = np.unique(names[asked.numpy()], return_inverse=True)
    hits, frames = np.bincount(each, right), np.bincount(each)
    return Probed(float(right.mean()), *bootstrap(hits, frames, seed), chance, len(right))


def matrix(streams: Mapping[str, Tensor], facts: Mapping[str, tuple[Tensor, Sequence[str]]], seed: int = 0) -> dict[str, dict[str, Probed]]:
    """Features of the same n frames by name, and facts about them, labels [n] and groups [n] -> stream -> fact -> Probed."""
    return {name: {fact: probe(x, *told, seed=seed) for fact, told in facts.items()} for name, x in streams.items()}


def held(groups: Sequence[str], share: float, seed: int) -> Tensor:
    """groups [n] -> [n], true where the group is one of those set aside, at least one and never all. SlmError if there is one only."""
    names, each = np.unique(np.array(groups), return_inverse=True)
    if len(names) < 2:
        raise SlmError(f"a probe learns from some groups and is asked about others, but there is only {len(names)}")
    count = min(max(1, round(share * len(names))), len(names) - 1)
    aside = np.random.default_rng(seed).permutation(len(names))[:count]
    return torch.from_numpy(np.isin(each, aside))


def fit(features: Tensor, classes: Tensor, card: int, steps: int = 60) -> nn.Module:
    """features [n,D] or codes [n,Q], classes [n] -> the classifier, [n,…] -> logits [n,E], by `steps` of L-BFGS on the cross-entropy."""
    model = Linear(features, card) if features.is_floating_point() else Table(features, card)
    optimiser = torch.optim.LBFGS(model.parameters(), max_iter=steps, history_size=10, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = F.cross_entropy(model(features), classes) + DECAY * model.weight.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    return model.requires_grad_(False)


class Linear(nn.Module):
    """x [n,D], brought to mean 0 and variance 1 as the `features` were -> logits [n,E]"""

    def __init__(self, features: Tensor, card: int) -> None:
        super().__init__()
        self.mean, self.deviation = features.mean(0), features.std(0, unbiased=False).clamp(min=1e-6)
        self.weight = nn.Parameter(torch.zeros(card, features.shape[1]))
        self.bias = nn.Parameter(torch.zeros(card))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear((x - self.mean) / self.deviation, self.weight, self.bias)


class Table(nn.Module):
    """codes [n,Q] -> logits [n,E]: a row for each code of each codebook, added up. One that was never seen says nothing."""

    def __init__(self, codes: Tensor, card: int) -> None:
        super().__init__()
        self.size = int(codes.max()) + 1
        self.weight = nn.Parameter(torch.zeros(codes.shape[1] * self.size, card))
        self.bias = nn.Parameter(torch.zeros(card))

    def forward(self, codes: Tensor) -> Tensor:
        known = (codes >= 0) & (codes < self.size)
        rows = codes.clamp(0, self.size - 1) + self.size * torch.arange(codes.shape[1])
        return self.bias + F.embedding_bag(rows, self.weight, mode="sum", per_sample_weights=known.float())
