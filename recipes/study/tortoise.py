"""Tortoise's question: is the reading that CLVP takes of eight better understood than a random one, and how far from the best of them?

    slm train recipes/codec/onelevel.py --out runs/onelevel
    slm align data/dev && slm study recipes/study/tortoise.py --out runs/study/tortoise

Both stages of recipes/speech_lm/tortoise.py at 4 layers of 192 say sentences of the aligned recordings of data/dev, in their voices, and a
recogniser writes down all eight readings of each, heard by the first level alone; short pieces are learned from first, as in
recipes/study/hard.py. "A random one" is the mean over the readings that have an end, so that what ranking gains is told apart from what
discarding gains. There is no penalty of what was said before: two of five of these codes were, and one of five is the code before it.
About 18 minutes a seed to train on one core, and 6 for the recogniser.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

from slm.data.aligned import Aligned
from slm.data.lessons import Lessons
from slm.data.madeup import MadeUpUtterances
from slm.recipe import Recipe, load
from slm.stream.sample import Sampling
from slm.study.run import Claim, Study
from slm.study.tortoise import measure
from slm.train.loop import Train

tortoise = load(Path(__file__).parents[1] / "speech_lm" / "tortoise.py")

T, CODEC = "tortoise", "runs/onelevel/codec"
PAIRS = [
    ("the best of eight by fit has fewer word errors than the first", "word errors, best by fit", "word errors, first", True),
    ("ranking gains more than discarding", "word errors, best by fit", "word errors, a random one", True),
    ("the ranker is not yet the recogniser", "word errors, best of all", "word errors, best by fit", True),
    ("what is said is the text", "word errors, first", "word errors, another's text", True),
    ("the ranker finds the text of held-out codes", "text found", "text found, by chance", False),
]
CLAIMS = [Claim(says, (T, one), (T, other), lower) for says, one, other, lower in PAIRS]


def variant(seed: int, out: Path) -> Recipe:
    r = tortoise.recipe(192, 4, 3, ranks=(192, 2, 3))
    r.stages["ar"].backbone.dropout = 0.0
    r.stages["ar"].sampling = {"semantic": Sampling(temperature=1.0, top_p=0.9)}
    for stage, (frames, steps) in {"ar": (3000, 2000), "rerank": (6000, 300)}.items():
        r.data[stage] = Aligned(held_out=r.data[stage].held_out, frames=frames, prompt=(50, 100), seed=seed)
        r.train[stage] = Train(steps=steps, lr=1.5e-3, warmup=70, ema=0.99, seed=seed)
    whole = r.data["ar"]
    r.data["ar"] = Lessons([(560, replace(whole, most=75)), (400, replace(whole, most=180))], whole)
    return r


def study() -> Study:
    heard = partial(measure, data=Aligned(folders=("data/dev",)), codec=CODEC)
    return Study("The best of eight readings", {T: variant}, heard, CLAIMS, of="sentences")


def small() -> Study:
    heard = partial(measure, data=MadeUpUtterances())
    return Study("The best of eight readings, small", {T: lambda seed, out: tortoise.small()}, heard, CLAIMS, of="sentences")
