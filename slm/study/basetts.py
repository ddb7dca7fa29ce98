"""What a study measures of a language model over merged units: nats a second of speech, which do not depend on how it is cut into ids.

U ids   T units   n recordings

A sequence of merged ids is one of several that stand for the same units, so its nats are at least those of the units themselves: where
merging costs no more by this count, it costs no more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from slm.data.madeup import MadeUpUtterances
from slm.data.texts import TextRows, Texts
from slm.study.figures import Figure, ratio
from slm.study.heldout import Item

BITS = 1 / np.log(2)


def measure(folder: Path, items: list[Item], seed: int, data: Texts) -> dict[str, Figure]:
    """A run with the stage lm -> bits and ids a second of the held-out recordings in `data`, and bits beside another's text."""
    from slm.model import load

    model = load(folder)
    rows = data.build(model.tokenizers)
    known = {item.id for item in items}
    chosen = [u for u in rows.batches.items if u.id in known or isinstance(data.of, MadeUpUtterances)]
    draw = np.random.default_rng(seed)
    told = [rows.row(item, draw) for item in sorted(chosen, key=lambda u: u.id)]
    return figures(model.stages["lm"], told, seconds(rows, model.tokenizers, told))


def seconds(rows: TextRows, tokenizers: dict[str, Any], told: list[dict]) -> np.ndarray:
    """How long each recording is, by its units: the same for merged ids as for those they were made of."""
    tokenizer = tokenizers[rows.config.codes]
    part = getattr(tokenizer, "part", lambda ids: ids)
    return np.array([len(part(row[rows.config.codes])) * tokenizer.hop / tokenizer.rate for row in told])


@torch.inference_mode()
def figures(lm: Any, told: list[dict], lengths: np.ndarray) -> dict[str, Figure]:
    """Rows with text, units and prompt, and seconds of each -> bits a second, their floor with another's text, ids a second."""
    mixed = [row | {"text": told[i - 1]["text"]} for i, row in enumerate(told)]
    own, other = (ratio(np.array([bits(lm, row) for row in rows]), lengths) for rows in (told, mixed))
    ids = ratio(np.array([len(row["units"]) for row in told], float), lengths)
    return {"bits a second": own, "bits a second, another's text": other, "ids a second": ids}


def bits(lm: Any, row: dict) -> float:
    """What a row's units cost, <eos> included."""
    nats = float(lm.loss({name: [content] for name, content in row.items()})["units"])
    return nats * (len(row["units"]) + 1) * BITS
