"""BASE TTS's merges: does a language model over fewer, longer ids need more bits for a second of speech than one over the units?

    slm train recipes/represent/hubert.py --stage units …              # runs/hubert/units
    slm train recipes/speech_lm/merges.py --out runs/units             # runs/units/merged
    slm study recipes/study/basetts.py --out runs/study/basetts

The stage of recipes/speech_lm/basetts.py at 4 layers of 192, on the same utterances for as many steps, over units and over merged ones.
Bits a second can be compared between the two, bits an id cannot. About 4 minutes a variant and seed on one core, less with merges.
"""

from functools import partial
from pathlib import Path

from slm.data.aligned import Aligned
from slm.data.madeup import MadeUpUtterances
from slm.data.texts import Texts
from slm.recipe import Recipe, load
from slm.study.basetts import measure
from slm.study.run import Claim, Study
from slm.train.loop import Train
from slm_tokenizers.codec import tiny

basetts = load(Path(__file__).parents[1] / "speech_lm" / "basetts.py")

UNITS = {"units": "runs/hubert/units", "merged": "runs/units/merged"}
CLAIMS = [
    Claim("merged units cost fewer bits a second", ("merged", "bits a second"), ("units", "bits a second"), lower=True),
    Claim("merged units are fewer", ("merged", "ids a second"), ("units", "ids a second"), lower=True),
    *(
        Claim(f"{name}: they follow their text", (name, "bits a second"), (name, "bits a second, another's text"), lower=True)
        for name in UNITS
    ),
]


def variant(name: str, seed: int, out: Path) -> Recipe:
    r = basetts.recipe(192, 4, 4, UNITS[name])
    r.stages["lm"].backbone.dropout = 0.0
    r.data["lm"] = Texts(Aligned(held_out=r.data["lm"].of.held_out, frames=3000, prompt=(50, 100), seed=seed))
    r.train["lm"] = Train(steps=500, lr=1.5e-3, warmup=50, ema=0.99, seed=seed)
    return r


def study() -> Study:
    heard = partial(measure, data=Texts(Aligned(folders=("data/dev",))))
    return Study("Merged units", {name: partial(variant, name) for name in UNITS}, heard, CLAIMS)


def small() -> Study:
    return Study(
        "Merged units, small", {name: partial(shrunk, name) for name in UNITS}, partial(measure, data=Texts(MadeUpUtterances())), CLAIMS
    )


def shrunk(name: str, seed: int, out: Path) -> Recipe:
    r = basetts.small()
    r.tokenizers["units"] = tiny(1) if name == "units" else r.tokenizers["units"]
    return r
