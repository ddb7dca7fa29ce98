"""Does the second round of HuBERT hear more than the first, and the first more than cepstra?

    slm study recipes/study/hubert.py --out runs/study/hubert

HuBERT (Hsu et al., 2021), figure of merit as there: what 100 clusters of a layer tell of the phones, beside 100 clusters of MFCC.
The recipe of recipes/represent/hubert.py with 2,500 and 2,000 steps: about 25 minutes a run on one core. "more" is the same, but its
second round is told the first's units again: what is left of the difference is not that of more steps.
"""

from functools import partial
from pathlib import Path

from slm.data.splits import HELD_OUT
from slm.recipe import Recipe, load
from slm.study.run import Claim, Study
from slm.study.units import measure

hubert = load(Path(__file__).parents[1] / "represent" / "hubert.py")

CLAIMS = [
    Claim("round 1 hears more than cepstra", ("hubert", "PNMI, first"), ("hubert", "PNMI, MFCC")),
    Claim("round 2 hears more than round 1", ("hubert", "PNMI, second"), ("hubert", "PNMI, first")),
    Claim("round 2 hears more than as many more steps of round 1", ("hubert", "PNMI, second"), ("more", "PNMI, second")),
]


def variant(name: str, seed: int, out: Path) -> Recipe:
    r = again(hubert.recipe(str(out)), name)
    for stage, train in r.train.items():
        data = r.data[stage] if stage == "units" else r.data[stage].sounds
        data.held_out, data.seed, train.seed = HELD_OUT, seed, seed
    r.train["first"].steps, r.train["second"].steps, r.train["units"].steps = 2500, 2000, 200
    return r


def again(r: Recipe, name: str) -> Recipe:
    """The recipe, for "more" with the first round's units in the second too."""
    if name == "more":
        r.data["second"].units, r.stages["second"].card = r.data["first"].units, r.stages["first"].card
    return r


def study() -> Study:
    return Study("HuBERT, round after round", {name: partial(variant, name) for name in ("hubert", "more")}, measure, CLAIMS)


def small() -> Study:
    variants = {name: lambda seed, out, name=name: again(hubert.small(), name) for name in ("hubert", "more")}
    return Study("HuBERT, small", variants, measure, CLAIMS)
