"""AudioLM's stages, each beside its floor: does what is said depend on what was heard, and does a voice go on as itself?

    slm train recipes/represent/hubert.py --stage units …      # runs/hubert/units
    slm study recipes/study/audiolm.py

The recipe of recipes/speech_lm/audiolm.py at 4 layers of 192, two coarse and two fine levels of the bundled codec, crops of 8, 5 and 3 s.
Words and sentences (as sWUGGY and sBLIMP) are said by flite: apt install flite. About 10 minutes a seed on one core.
"""

from functools import partial
from pathlib import Path

from slm.recipe import Recipe, load
from slm.study.audiolm import measure
from slm.study.run import Claim, Study
from slm.train.loop import Train

audiolm = load(Path(__file__).parents[1] / "speech_lm" / "audiolm.py")

A = "audiolm"
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
    r = audiolm.recipe(192, 4, 4, coarse=2, n_q=4)
    for stage, (seconds, batch, steps) in {"semantic": (8, 16, 600), "coarse": (5, 8, 400), "fine": (3, 8, 250)}.items():
        data = r.data[stage]
        data.seconds, data.batch, data.seed = seconds, batch, seed
        r.train[stage] = Train(steps=steps, lr=1e-3, warmup=50, ema=0.99, seed=seed)
    return r


def study() -> Study:
    return Study("AudioLM", {A: variant}, partial(heard, recipe=variant), CLAIMS)


def heard(folder: Path, items: list, seed: int, recipe) -> dict:
    data = recipe(seed, folder).data
    return measure(folder, items, seed, data)


def small() -> Study:
    return Study("AudioLM, small", {A: lambda seed, out: audiolm.small()}, partial(heard, recipe=lambda seed, out: audiolm.small()), CLAIMS)
