"""What studies of speech language models share: nats beside those of counted pairs, edits between units, and who is another speaker.

Q levels   T frames   U units   n items
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from slm.errors import SlmError
from slm.stage.lm import LM
from slm.study.figures import Figure, ratio
from slm.study.heldout import following

LEANS = (1.0, 5.0, 25.0, 125.0, 625.0, 3125.0)  # times that pairs are leant on how common an id is


class Bigram:
    """The next id given the one before, counted on training rows; each count leans on how common an id is, as if seen `lean` times.

    Rows are codes [Q,T], told frame by frame as a language model is told them, or [U]; level q counts from q * card on.
    """

    def __init__(self, rows: list[Tensor], card: int, levels: int, lean: float = 5.0) -> None:
        self.card, self.levels = card, levels
        size = card * levels
        pairs, alone = torch.zeros(size, size), torch.ones(size)
        for row in rows:
            ids = told(row, card)
            pairs.index_put_((ids[:-1], ids[1:]), torch.ones(len(ids) - 1), accumulate=True)
            alone += torch.bincount(ids, minlength=size)
        alone = (alone.view(levels, card) / alone.view(levels, card).sum(1, keepdim=True)).flatten()  # within its level
        self.pairs, self.alone, self.lean = pairs, alone, lean

    def nats(self, row: Tensor) -> tuple[float, int]:
        """The surprise of a row's ids but the first, and how many they are."""
        ids = told(row, self.card)
        before, after = ids[:-1], ids[1:]
        level = after // self.card
        # levels take turns, so that what follows an id lies all in one level
        seen = self.pairs[before].view(len(before), self.levels, self.card)[torch.arange(len(before)), level].sum(1)
        p = (self.pairs[before, after] + self.lean * self.alone[after]) / (seen + self.lean)
        return float(-p.log().sum()), len(after)


def told(row: Tensor, card: int) -> Tensor:
    """codes [Q,T] -> ids [T*Q], frame by frame, each level in a range of its own; [U] as it is"""
    return row if row.dim() == 1 else (row + card * torch.arange(len(row))[:, None]).T.flatten()


@torch.inference_mode()
def nats(lm: LM, rows: list[dict[str, Tensor]], name: str) -> Figure:
    """Nats an id of part `name`, a row an item; each row is heard alone."""
    losses, counts = [], []
    for row in rows:
        counts.append(row[name].numel())
        losses.append(float(lm.loss({key: [value] for key, value in row.items()})[name]) * counts[-1])
    return ratio(np.array(losses), np.array(counts))


def counted(bigram: Bigram, rows: list[Tensor]) -> Figure:
    """Nats an id of the counted pairs, a row an item, with the one of LEANS under which these rows cost least: a high floor."""
    found = []
    for lean in LEANS:
        bigram.lean = lean
        found.append(np.array([bigram.nats(row) for row in rows], float).T)
    return ratio(*min(found, key=lambda costs: costs[0].sum()))


def edits(a: Tensor, b: Tensor) -> int:
    """Insertions, deletions and substitutions from one row to the other (Levenshtein, 1965)."""
    from rapidfuzz.distance import Levenshtein

    return Levenshtein.distance(a.tolist(), b.tolist())


def share(a: Tensor, b: Tensor) -> float:
    """Edits from one row to the other over the length of the longer, 1 at most."""
    return edits(a, b) / max(len(a), len(b), 1)


def unit_errors(pairs: list[tuple[Tensor, Tensor]]) -> Figure:
    """Edits from what was to be said to what was heard, over units; letters are counted alike."""
    return ratio(np.array([edits(a, b) for a, b in pairs], float), np.array([max(1, len(a)) for a, _ in pairs]))


def others(speakers: list[str]) -> list[int]:
    """The next of each, in a circle, that is another speaker's. SlmError if there is one speaker alone."""
    if len(set(speakers)) < 2:
        raise SlmError(f"a voice is measured beside another one, and all of the {len(speakers)} recordings that suit are of one speaker")
    return [following(len(speakers), i, lambda j, own=own: speakers[j] != own) for i, own in enumerate(speakers)]
