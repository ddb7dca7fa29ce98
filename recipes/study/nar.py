"""VALL-E's second stage: can the finer levels of a codec be told from its first, a text and a voice, and does it sound better for them?

    slm align data/train && slm align data/synthetic && slm align data/dev
    slm study recipes/study/nar.py --out runs/study/nar

The stage of recipes/zero_shot/valle.py (Wang et al., 2023) at the size of recipes/study/hard.py, on the bundled codec's levels 2 to 8,
given the first of held-out recordings. Beside it: codes drawn evenly, codes counted by the one below them in the same frame, another's
voice as the prompt, and the first level alone. About 15 minutes a seed on one core.
"""

from functools import partial
from pathlib import Path

from slm.data.aligned import Aligned
from slm.data.continued import Continued
from slm.data.splits import HELD_OUT
from slm.recipe import Recipe, load
from slm.study.nar import measure
from slm.study.run import Claim, Study
from slm.train.loop import Train

valle = load(Path(__file__).parents[1] / "zero_shot" / "valle.py")

NAR, ENDS = "VALL-E's second stage", (2, 8)
CLAIMS = [
    *(Claim(f"level {q} costs less than drawn evenly", (NAR, f"nats, level {q}"), (NAR, "nats, uniform"), lower=True) for q in ENDS),
    Claim("codes cost less than counted pairs", (NAR, "nats"), (NAR, "nats, counted pairs"), lower=True),
    Claim("codes follow the voice of the prompt", (NAR, "nats"), (NAR, "nats, another's prompt"), lower=True),
    Claim("nearer than the first level alone", (NAR, "mel distance, second stage"), (NAR, "mel distance, first level"), lower=True),
    Claim("fewer words wrong than in the first level", (NAR, "word errors, second stage"), (NAR, "word errors, first level"), lower=True),
    Claim("the voice is the prompt's", (NAR, "voice, second stage"), (NAR, "voice, another's prompt")),
    Claim("... more than with the first level alone", (NAR, "voice, second stage"), (NAR, "voice, first level")),
]


def rows(seed: int = 0) -> Continued:
    return Continued(Aligned(held_out=HELD_OUT, frames=3000, seed=seed), prompt=(50, 150), longest=250, joined=False)


def variant(seed: int, out: Path, steps: int = 2000) -> Recipe:
    r = valle.recipe(dim=192, depth=4, heads=3).alone("nar")
    r.stages["nar"].backbone.dropout = 0.0
    r.data["nar"], r.train["nar"] = rows(seed), Train(steps=steps, lr=1.5e-3, warmup=50, ema=0.99, seed=seed)
    return r


def study() -> Study:
    heard = partial(measure, data=Continued(Aligned(folders=("data/dev",))), known=rows())
    return Study("Finer levels from the first", {NAR: variant}, heard, CLAIMS)


def small() -> Study:
    data = valle.small().data["nar"]
    return Study("Finer levels, small", {NAR: shrunk}, partial(measure, data=data, known=data), CLAIMS)


def shrunk(seed: int, out: Path) -> Recipe:
    r = valle.small().alone("nar")
    r.data["nar"].of.seed = seed
    return r
