"""Does a language model of codes speak as a description in words asks, in wordings that it has not heard?

    slm align data/train && slm align data/dev && slm study recipes/study/parler.py --out runs/study/parler

The recipe of recipes/speech_lm/parler.py with 3 levels, at a size that takes minutes on one core, on rows of a second first and of four in
the end; a share of the codes that it hears is wrong, for who hears a clean past well knows the voice without a description. "shuffled" is
the same, but each recording is described as another one sounds: then words tell nothing, and what is left of the figures is chance.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

from slm.data.aligned import Aligned
from slm.data.lessons import Lessons
from slm.data.madeup import MadeUpUtterances
from slm.recipe import Recipe, load
from slm.study.parler import BINS, measure
from slm.study.run import Claim, Study
from slm.train.loop import Train

parler = load(Path(__file__).parents[1] / "speech_lm" / "parler.py")

VARIANTS = ("described", "shuffled")
LESSONS = ((250, 50), (200, 100), (550, 200))  # steps, and how many frames their rows have at most
CLAIMS = [
    claim
    for name in ("rate", "pitch")
    for claim in (
        Claim(f"{name} follows its description", ("described", f"{name}: in order"), ("shuffled", f"{name}: in order")),
        Claim(f"{name} follows it more than by chance", ("described", f"{name}: in order"), ("described", "in order by chance")),
        Claim(f"{name} is as asked more often", ("described", f"{name}: right bin"), ("shuffled", f"{name}: right bin")),
        Claim(f"{name} is as asked more than by chance", ("described", f"{name}: right bin"), ("described", "right bin by chance")),
    )
]
CLAIMS.append(
    Claim("codes cost less beside their description", ("described", "nats"), ("described", "nats, another's description"), lower=True)
)


def variant(name: str, seed: int, out: Path) -> Recipe:
    r = changed(parler.recipe(dim=192, depth=4, heads=3, levels=3, reading=2), name, seed, out)
    data = r.data["lm"]
    data.of.folders, data.of.frames = ("data/train",), 2400
    *first, last = ((steps, replace(data, longest=longest)) for steps, longest in LESSONS)
    r.data["lm"] = Lessons(first, last[1])
    r.stages["lm"].cap, r.stages["lm"].confuse = 12.0, 0.2
    r.stages["lm"].sampling["acoustic"].top_p = 0.9
    r.train["lm"] = Train(steps=sum(steps for steps, _ in LESSONS), lr=1.5e-3, warmup=100, ema=0.99, seed=seed)
    return r


def changed(r: Recipe, name: str, seed: int, out: Path) -> Recipe:
    data = r.data["lm"]
    data.shuffled, data.of.seed, data.bins = name == "shuffled", seed, str(out / BINS)
    return r


def study() -> Study:
    told = partial(measure, data=Aligned(folders=("data/dev",)))
    return Study("Speech as described", {name: partial(variant, name) for name in VARIANTS}, told, CLAIMS, of="sentences")


def small() -> Study:
    return Study(
        "Speech as described, small",
        {name: partial(shrunk, name) for name in VARIANTS},
        partial(measure, data=MadeUpUtterances(), texts=2),
        CLAIMS,
        of="sentences",
    )


def shrunk(name: str, seed: int, out: Path) -> Recipe:
    return changed(parler.small(), name, seed, out)
