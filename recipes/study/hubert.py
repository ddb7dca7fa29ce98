"""Does the second round of HuBERT hear more than the first, and the first more than cepstra?

    slm study recipes/study/hubert.py --out runs/study/hubert

HuBERT (Hsu et al., 2021), figure of merit as there: what 100 clusters of a layer tell of the phones, beside 100 clusters of MFCC.
The recipe of recipes/represent/hubert.py with 2,500 and 3,000 steps: about 25 minutes a seed on one core.
"""

from pathlib import Path

from slm.data.splits import HELD_OUT
from slm.recipe import Recipe, load
from slm.study.run import Claim, Study
from slm.study.units import measure

hubert = load(Path(__file__).parents[1] / "represent" / "hubert.py")

CLAIMS = [
    Claim("round 1 hears more than cepstra", ("hubert", "PNMI, first"), ("hubert", "PNMI, MFCC")),
    Claim("round 2 hears more than round 1", ("hubert", "PNMI, second"), ("hubert", "PNMI, first")),
]


def variant(seed: int, out: Path) -> Recipe:
    r = hubert.recipe(str(out))
    for name, train in r.train.items():
        data = r.data[name] if name == "units" else r.data[name].sounds
        data.held_out, data.seed, train.seed = HELD_OUT, seed, seed
    r.train["first"].steps, r.train["second"].steps, r.train["units"].steps = 2500, 3000, 200
    return r


def study() -> Study:
    return Study("HuBERT, round after round", {"hubert": variant}, measure, CLAIMS)


def small() -> Study:
    return Study("HuBERT, small", {"hubert": lambda seed, out: hubert.small()}, measure, CLAIMS)
