"""AudioLM's stages, each beside its floor: does what is said depend on what was heard, and does a voice go on as itself?

    slm align data/train && slm train recipes/represent/phonetic.py --out runs/phonetic
    slm study recipes/study/audiolm.py

The recipe of recipes/speech_lm/audiolm.py at 4 layers of 192, three coarse levels of the bundled codec and a fine one (two fine ones were
hardly foretold, and what was drawn of them hid the voice), crops of 8, 5 and 3 s; coarse codes are learned from a second and a half at a
time first, so that they heed their units (slm/data/lessons.py). Words and sentences (as sWUGGY and sBLIMP) are said by flite: apt install
flite. About 30 minutes a seed on one core.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from slm.data.lessons import Lessons
from slm.recipe import Recipe, load
from slm.study.audiolm import measure
from slm.study.run import Claim, Study
from slm.train.loop import Train

audiolm = load(Path(__file__).parents[1] / "speech_lm" / "audiolm.py")

A = "audiolm"
SHORT = 300  # steps of crops of a second and a half
PAIRS = [
    ("units cost less than counted pairs", "semantic: nats", "semantic: nats, bigram", True),
    ("coarse codes cost less than counted pairs", "coarse: nats", "coarse: nats, bigram", True),
    ("coarse codes follow their units", "coarse: nats", "coarse: nats, other units", True),
    ("fine codes cost less than counted pairs", "fine: nats", "fine: nats, bigram", True),
    ("what follows is in the prompt's voice", "voice: own prompt", "voice: another's prompt", False),
    ("what follows says its units", "content: own units", "content: another's units", True),
    ("words are likelier than what is none", "words", "words, by chance", False),
    ("sentences are likelier than with a slip", "sentences", "sentences, by chance", False),
    ("a recording goes on as itself", "stories", "stories, by chance", False),
]
CLAIMS = [Claim(says, (A, one), (A, other), lower) for says, one, other, lower in PAIRS]


def variant(seed: int, out: Path) -> Recipe:
    r = sized(seed)
    coarse = r.data["coarse"]
    r.data["coarse"] = Lessons([(SHORT, replace(coarse, seconds=1.5, batch=24))], coarse)
    return r


def sized(seed: int) -> Recipe:
    r = audiolm.recipe(192, 4, 4, coarse=3, n_q=4)
    for stage, (seconds, batch, steps) in {"semantic": (8, 16, 1200), "coarse": (5, 8, 1000), "fine": (3, 8, 400)}.items():
        data = r.data[stage]
        data.seconds, data.batch, data.seed = seconds, batch, seed
        r.train[stage] = Train(steps=steps, lr=1e-3, warmup=50, ema=0.99, seed=seed)
    return r


def study() -> Study:
    return Study("AudioLM", {A: variant}, partial(heard, recipe=sized), CLAIMS)


def heard(folder: Path, items: list, seed: int, recipe: Callable[[int], Recipe]) -> dict:
    return measure(folder, items, seed, recipe(seed).data)


def small() -> Study:
    heard_small = partial(heard, recipe=lambda seed: audiolm.small())
    return Study("AudioLM, small", {A: lambda seed, out: audiolm.small()}, heard_small, CLAIMS)
