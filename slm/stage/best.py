"""Of several readings of a text, the one that fits it best: Tortoise's use of CLVP (Betker, 2023).

B rows   n readings of each   T frames

A reading that has no end, or holds nothing, is discarded before any is ranked, and counted. Each is drawn by its own seed, which the number
of readings does not change: more of them add to those there are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from slm.errors import SlmError
from slm.stage.lm import LM
from slm.stage.rerank import Rerank

APART = 7919  # between the seeds of a row and of the next, so that no two rows share their draws


def readings(lm: LM, batch: dict, seeds: list[int], n: int) -> list[dict]:
    """The batch said n times. SlmError if n is less than one."""
    if n < 1:
        raise SlmError(f"{n} readings were asked for; at least one is needed")
    return [lm.run(batch, [seed * APART + k for seed in seeds]) for k in range(n)]


def ended(ranker: Rerank, said: list[dict]) -> Tensor:
    """n readings of a batch -> whether each may be ranked [B,n]: it came to its end by itself, and not at once."""
    rows = [[stop == "end" and codes.shape[-1] > 0 for stop, codes in zip(one["stop"], one[ranker.config.codes])] for one in said]
    return torch.tensor(rows).T


@torch.no_grad()
def fits(ranker: Rerank, said: list[dict]) -> Tensor:
    """n readings of a batch -> how well each fits its text [B,n], the cosine of both, and -inf where it was discarded."""
    kept = ended(ranker, said)
    found = torch.full(kept.shape, -torch.inf)
    for k, one in enumerate(said):
        rows = kept[:, k].nonzero()[:, 0].tolist()
        if rows:
            ranked = ranker.run({name: [one[name][r] for r in rows] for name in (ranker.config.text, ranker.config.codes)})
            found[rows, k] = ranked["fit"].float().cpu()
    return found


def chosen(said: list[dict], which: list[int]) -> dict:
    """n readings of a batch -> the batch with reading which[b] of each row."""
    names = [name for name, rows in said[0].items() if isinstance(rows, list)]
    return said[0] | {name: [said[k][name][b] for b, k in enumerate(which)] for name in names}


def best(lm: LM, ranker: Rerank, batch: dict, seeds: list[int], n: int) -> dict:
    """Say each row n times -> the batch with the reading that fits best, its `fits` [n] and how many were `discarded`, a number a row.

    A row none of whose readings has an end keeps the first of them, and its `stop` says so. SlmError if n is less than one.
    """
    said = readings(lm, batch, seeds, n)
    found = fits(ranker, said)
    discarded = found.isinf().sum(1).tolist()
    return chosen(said, found.argmax(1).tolist()) | {"fits": list(found), "discarded": discarded}
