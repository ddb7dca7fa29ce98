"""Byte-pair merges over units, which recipes/speech_lm/basetts.py says: a tokenizer of its own, for which nothing is learned by gradients.

    slm train recipes/represent/phonetic.py --out runs/phonetic             # units; or hubert.py's, or speechcodes.py's
    slm train recipes/speech_lm/merges.py --out runs/units                  # leaves runs/units/merged

BASE TTS (Łajszczak et al., 2024) merges 256 codes to 8192 ids from 100,000 hours. Here 100 units become 1024 ids, as the hours at hand hold
too few of rarer ones; they keep their repetitions, so that how long a sound lasts is part of an id.
"""

from slm.data.splits import HELD_OUT
from slm.data.spoken import MadeUpSpoken, Spoken
from slm.recipe import Recipe, main
from slm.train.loop import Train
from slm_tokenizers.codec import tiny
from slm_tokenizers.semantic.merged_units import MergedUnits


def recipe(units: str = "runs/phonetic/units", card: int = 1024) -> Recipe:
    return Recipe(
        tokenizers={"units": units},
        stages={"merged": MergedUnits.Config(units, card)},
        data={"merged": Spoken(("units",), seconds=10, held_out=HELD_OUT, collapsed=())},
        train={"merged": Train(steps=200)},
    )


def small() -> Recipe:
    r = recipe()
    r.tokenizers = {"units": tiny(1)}
    r.stages = {"merged": MergedUnits.Config(tiny(1), card=24)}
    r.data = {"merged": MadeUpSpoken(r.data["merged"])}
    r.train = {"merged": Train(steps=3)}
    return r


if __name__ == "__main__":
    main(__file__)
