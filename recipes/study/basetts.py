"""BASE TTS's merges: does a language model over fewer, longer ids need more bits for a second of speech than one over the units?

    slm align data/train && slm align data/dev && slm train recipes/represent/phonetic.py --out runs/phonetic
    slm train recipes/speech_lm/merges.py --out runs/units             # runs/units/merged
    slm study recipes/study/basetts.py --out runs/study/basetts

The stage of recipes/speech_lm/basetts.py at 4 layers of 192, on the same utterances for as many steps, over units and over merged ones;
and over merged ones at two other sizes, as the paper trains three. Bits a second can be compared between them all, bits an id cannot.
Utterances of three seconds come first, and text and units count their places for themselves, so that the text is heeded; places are
therefore sinusoidal where the recipe's are learned. About 8 minutes a variant and seed on one core, less with merges.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

from slm.data.aligned import Aligned
from slm.data.lessons import Lessons
from slm.data.madeup import MadeUpUtterances
from slm.data.texts import Texts
from slm.recipe import Recipe, load
from slm.study.basetts import measure
from slm.study.run import Claim, Study
from slm.train.loop import Train
from slm_tokenizers.codec import tiny

basetts = load(Path(__file__).parents[1] / "speech_lm" / "basetts.py")

UNITS, MERGED = "runs/phonetic/units", "runs/units/merged"
VARIANTS = {"units": (UNITS, 192), "merged": (MERGED, 192), "merged, smaller": (MERGED, 96), "merged, larger": (MERGED, 288)}
STEPS, SHORT = 1200, 400
PHONE = 5.0  # frames that a phone lasts, about
LENGTH = {UNITS: 1.0, MERGED: 2.5}  # frames that an id lasts, about
CLAIMS = [
    Claim("merged units cost fewer bits a second", ("merged", "bits a second"), ("units", "bits a second"), lower=True),
    Claim("merged units are fewer", ("merged", "ids a second"), ("units", "ids a second"), lower=True),
    *(
        Claim(f"{name}: they follow their text", (name, "bits a second"), (name, "bits a second, another's text"), lower=True)
        for name in ("units", "merged")
    ),
    *(
        Claim(f"{larger} costs fewer bits than {smaller}", (larger, "bits a second"), (smaller, "bits a second"), lower=True)
        for smaller, larger in (("merged, smaller", "merged"), ("merged", "merged, larger"))
    ),
]


def variant(name: str, seed: int, out: Path) -> Recipe:
    units, dim = VARIANTS[name]
    r = basetts.recipe(dim, 4, dim // 48, units)
    lm = r.stages["lm"]
    lm.backbone = replace(lm.backbone, dropout=0.0, positions="sinusoidal")
    lm.places = {"text": 1.0, "units": LENGTH[units] / PHONE}
    rows = Texts(Aligned(("data/train",), frames=2000, held_out=r.data["lm"].of.held_out, prompt=(50, 100), seed=seed))
    r.data["lm"] = Lessons([(SHORT, replace(rows, longest=150))], rows)
    r.train["lm"] = Train(steps=STEPS, lr=1.5e-3, warmup=50, ema=0.99, seed=seed)
    return r


def study() -> Study:
    heard = partial(measure, data=Texts(Aligned(folders=("data/dev",))))
    return Study("Merged units", {name: partial(variant, name) for name in VARIANTS}, heard, CLAIMS)


def small() -> Study:
    variants = {name: partial(shrunk, name) for name in VARIANTS}
    return Study("Merged units, small", variants, partial(measure, data=Texts(MadeUpUtterances())), CLAIMS)


def shrunk(name: str, seed: int, out: Path) -> Recipe:
    r = basetts.small()
    r.tokenizers["units"] = tiny(1) if name == "units" else r.tokenizers["units"]
    return r
