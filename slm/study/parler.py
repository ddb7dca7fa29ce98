"""What a study measures of a stage that is told in words how to sound: is what it says as it was asked?

Each text is asked for in each third of each attribute, the others in the middle, in wordings that no training heard.

    n texts or recordings   A attributes   K bins   Q levels   T frames
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from slm.data import attributes
from slm.data.aligned import Aligned
from slm.data.attributes import NAMES, Bins
from slm.data.described import describe, heard
from slm.data.madeup import MadeUpUtterances
from slm.data.replacing import write_json
from slm.errors import SlmError
from slm.study.figures import Figure, mean
from slm.study.heldout import Item, following
from slm.study.spoken import nats

BINS = "attributes.json"  # in the folder of a run
ROWS = 24  # said at a time
MIDDLE = 1


def measure(
    folder: Path,
    items: list[Item],
    seed: int,
    data: Aligned | MadeUpUtterances,
    texts: int = 24,
    words: tuple[int, int] = (4, 9),
) -> dict[str, Figure]:
    """A run with the stage lm -> its figures on the first `texts` texts of so many words, and on the items that `data` holds.

    FOLDER/described.json tells of everything said.

    `in order` of an attribute: of two requests for a text that differ in it alone, is what was asked to be more of it measured to be
    more? 1 always, -1 never, 0 by chance: Kendall's rank correlation within a text. `right bin`: the share of what lies in the third
    that was asked for, 1/3 by chance. `endless`: the share cut off at the cap or because it went round in circles.
    """
    from slm.model import load

    model, bins = load(folder), attributes.read(folder / BINS)
    said = say(model, chosen(items, texts, words), bins.count, seed)
    write_json(folder / "described.json", said)
    return figures(said, bins) | likelihoods(model, data, bins, {item.id for item in items})


def likelihoods(model: Any, data: Aligned | MadeUpUtterances, bins: Bins, ids: set[str]) -> dict[str, Figure]:
    """Nats a code of the recordings `ids` of `data`, beside a description of all their attributes and beside that of another's."""
    stage, codec, letters = model.stages["lm"], model.tokenizers["acoustic"], model.tokenizers["description"]
    levels = stage.parts[-1].levels[1]
    rows = [u for u in data.build(model.tokenizers).batches.items if u.id in ids or isinstance(data, MadeUpUtterances)]
    if not rows:
        raise SlmError("none of the held-out recordings is aligned; run slm align")
    sounds = [dict(zip(NAMES, row)) for row in bins.of(heard(rows, codec, levels, None)).tolist()]
    draw = np.random.default_rng(0)
    words = [letters.encode(describe(sound, None, draw, held_out=True)) for sound in sounds]
    other = [following(len(rows), i, lambda j, own=own: sounds[j] != own) for i, own in enumerate(sounds)]
    own = [{"text": u.text, "acoustic": u.codes[:levels], "description": told} for u, told in zip(rows, words)]
    mixed = [row | {"description": words[j]} for row, j in zip(own, other)]
    return {"nats": nats(stage, own, "acoustic"), "nats, another's description": nats(stage, mixed, "acoustic")}


def chosen(items: list[Item], texts: int, words: tuple[int, int]) -> list[str]:
    """The first different texts that have at least and at most so many words. SlmError if there are none."""
    fit = [item.text for item in items if words[0] <= len(item.text.split()) <= words[1]]
    found = list(dict.fromkeys(fit))[:texts]
    if not found:
        raise SlmError(f"none of the {len(items)} held-out texts has {words[0]} to {words[1]} words")
    return found


def requests(texts: list[str], bins: int, seed: int) -> list[dict[str, Any]]:
    """Every text in every bin of every attribute. The order of the words is the same in all bins: only what is asked differs."""
    asked = []
    for i, text in enumerate(texts):
        for a, name in enumerate(NAMES):
            for bin in range(bins):
                wanted = {other: MIDDLE for other in NAMES} | {name: bin}
                told = describe(wanted, None, np.random.default_rng([seed, i, a]), held_out=True)
                asked.append({"text": text, "attribute": name, "bin": bin, "description": told})
    return asked


def say(model: Any, texts: list[str], bins: int, seed: int) -> list[dict[str, Any]]:
    """All requests with what was measured of each, `values` [A], and `stop`, why it ended. The three of a text draw by the same seed."""
    stage, codec, text, letters = model.stages["lm"], *(model.tokenizers[name] for name in ("acoustic", "text", "description"))
    asked = requests(texts, bins, seed)
    for start in range(0, len(asked), ROWS):
        rows = asked[start : start + ROWS]
        phones = [text.encode(row["text"]) for row in rows]
        batch = {"text": phones, "description": [letters.encode(row["description"]) for row in rows]}
        with torch.inference_mode():
            done = stage.run(batch, [seed * len(asked) + (start + i) // bins for i in range(len(rows))])
        for row, own, codes, stop in zip(rows, phones, done["acoustic"], done["stop"]):
            row |= {"values": attributes.of_codes(codec, codes, int((own > 0).sum())).tolist(), "stop": stop}
    return asked


def figures(said: list[dict[str, Any]], bins: Bins) -> dict[str, Figure]:
    """What was said -> figures of each attribute, an item a text; by chance too, as figures of as many."""
    found = {}
    for a, name in enumerate(NAMES):
        rows = [row for row in said if row["attribute"] == name]
        values = torch.tensor([row["values"] for row in rows])
        right = (bins.of(values)[:, a] == torch.tensor([row["bin"] for row in rows])).double().view(-1, bins.count)
        found[f"{name}: in order"] = mean(order(values[:, a].view(-1, bins.count).numpy()))
        found[f"{name}: right bin"] = mean(right.mean(1).numpy())
    texts = len(said) // (len(NAMES) * bins.count)
    found["in order by chance"], found["right bin by chance"] = mean(np.zeros(texts)), mean(np.full(texts, 1 / bins.count))
    stops = np.array([row["stop"] in ("length", "loop") for row in said], float)
    return found | {"endless": mean(stops.reshape(texts, -1).mean(1))}


def order(values: np.ndarray) -> np.ndarray:
    """values [n,K], asked to grow with K -> of all pairs, those that do less those that fall, as a share [n]"""
    low, high = np.triu_indices(values.shape[1], 1)
    return np.sign(values[:, high] - values[:, low]).mean(1)
