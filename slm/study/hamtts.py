"""What a study measures of a first stage that may have a latent sequence beside its phones: what it says, and what codes cost it.

Q levels   P prompt frames   T frames   L phones   E width of the sequence   n recordings
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from slm.condition.latent import LVS, shuffled
from slm.data.augmented import heard
from slm.data.beside import Beside
from slm.data.continued import Continued, Row
from slm.data.madeup import MadeUpUtterances
from slm.study import hard
from slm.study.figures import Figure, mean
from slm.study.heldout import Item
from slm.study.spoken import nats

SLIP = (20, 20)  # frames of a segment that is replaced or repeated


def measure(
    folder: Path, items: list[Item], seed: int, voices: Continued, sentences: tuple[str, ...], codec: str | None = None
) -> dict[str, Figure]:
    """The figures of slm/study/hard.py, an item a sentence, and those of `likelihood`, an item a recording of `voices`."""
    return hard.measure(folder, items, seed, voices, sentences, codec) | likelihood(folder, items, voices)


@torch.inference_mode()
def likelihood(folder: Path, items: list[Item], voices: Continued) -> dict[str, Figure]:
    """A run with the stage ar -> nats a code of held-out recordings behind a prompt of their voice, as they are and after slips.

    With a latent sequence also nats with the one of the same phones in another order, and the L1 distance from the aligner's.
    """
    from slm.model import load

    model = load(folder)
    stage = model.stages["ar"]
    rows = told(Beside(replace(voices, melody=None)) if stage.latent else replace(voices, melody=None), model.tokenizers, items)
    plain = [{name: row[name] for name in ("text", "acoustic")} for row in rows]
    found = {"nats": nats(stage, plain, "acoustic"), "nats, after slips": nats(stage, slipped(plain), "acoustic")}
    if stage.latent is None:
        return found
    other = [row | {LVS: stage.latent.predict([shuffled(row["text"])])[0]} for row in plain]
    each = [stage.latent.losses(stage.latent.told({name: [x] for name, x in row.items()})) for row in rows]
    distance = mean(np.array([float(losses[LVS]) for losses in each]))
    return found | {"nats, another LVS": nats(stage, other, "acoustic"), "distance": distance}


def told(voices: Continued | Beside, tokenizers: dict, items: list[Item]) -> list[Row]:
    """A row of each held-out recording that is aligned, the first level of its codes alone, drawn alike for every run."""
    of = voices.of if isinstance(voices, Beside) else voices
    known, draw = {item.id for item in items}, np.random.default_rng(0)
    spoken = voices.build(tokenizers)
    chosen = [u for u in spoken.batches.items if u.id in known or isinstance(of.of, MadeUpUtterances)]
    rows = [spoken.row(item, draw) for item in sorted(chosen, key=lambda u: u.id)]
    return [row | {"acoustic": row["acoustic"][:1]} for row in rows]


def slipped(rows: list[Row]) -> list[Row]:
    """The same rows, each heard with one segment replaced or repeated."""
    codes = heard([row["acoustic"] for row in rows], 1.0, SLIP, np.random.default_rng(1))
    return [row | {"acoustic_heard": own} for row, own in zip(rows, codes)]
