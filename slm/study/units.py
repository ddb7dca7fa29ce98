"""What a study measures of an encoder trained in two rounds: what clusters of its layers tell of the phones.

T frames of 20 ms   K units
"""

from __future__ import annotations

from pathlib import Path

import torch

from slm.data.sounds import Sounds
from slm.data.splits import HELD_OUT
from slm.study.figures import Figure, pnmi
from slm.study.heldout import Item, phone_counts
from slm.train.loop import Train
from slm_tokenizers.semantic.mfcc import Mfcc
from slm_tokenizers.semantic.units import Units

CARD, LAYER = 100, 2


def measure(folder: Path, items: list[Item], seed: int = 0, data: Sounds | None = None) -> dict[str, Figure]:
    """folder: a run with first/ and second/ -> PNMI of equally many clusters of cepstra, of a layer of the first and of the second round.

    The clusters are found on training speech (`data`), the phones are those of the held-out items.
    """
    crops = (data or Sounds(held_out=HELD_OUT, seconds=2.0, batch=8, seed=seed)).build({})
    found = {}
    for name, units in {
        "MFCC": Units.Config(Mfcc.Config(), card=CARD),
        "first": Units.Config(str(folder / "first"), layer=LAYER, card=CARD),
        "second": Units.Config(str(folder / "second"), layer=LAYER, card=CARD),
    }.items():
        tokenizer = units.build().eval()
        tokenizer.fit(crops, Train(steps=200, seed=seed))
        with torch.inference_mode():
            codes = [tokenizer.encode(item.audio[None])[0, 0] for item in items]
        found[f"PNMI, {name}"] = pnmi(phone_counts(items, codes, CARD))
    return found
