"""VALL-E beside RALL-E on sentences that are hard to keep one's place in: what is skipped, said twice, or never comes to an end?

    slm train recipes/codec/onelevel.py --out runs/onelevel
    slm align data/dev && slm study recipes/study/hard.py --out runs/study/hard

RALL-E (Xin et al., 2024) reports 68 % of 50 hard sentences gone wrong with VALL-E and 4 % with its chain of thought. Here the first
stages of recipes/zero_shot/valle.py and ralle.py learn from the same rows for as many steps, rows of a second first and of eight in the
end, and say the 50 sentences of hard.txt (repeated words, numbers, letters, tongue twisters, single words) in held-out voices. What they
say is heard by itself, without a second stage, which would know the text. About 20 and 30 minutes a seed on one core.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from slm.data.aligned import Aligned
from slm.data.continued import Continued
from slm.data.lessons import Lessons
from slm.data.prosody import Melody
from slm.recipe import Recipe, load
from slm.stream.sample import Sampling
from slm.study.hard import measure
from slm.study.run import Claim, Study
from slm.train.loop import Train

systems = Path(__file__).parents[1] / "zero_shot"
valle, ralle = load(systems / "valle.py"), load(systems / "ralle.py")

SENTENCES = tuple(Path(__file__).with_suffix(".txt").read_text().splitlines())
VOICES = Continued(Aligned(folders=("data/dev",)), melody=Melody(("data/dev",)))
CODEC = "runs/onelevel/codec"

CLAIMS = [
    Claim("VALL-E says its text", ("VALL-E", "word errors"), ("VALL-E", "word errors, another's text"), lower=True),
    Claim("RALL-E says its text", ("RALL-E", "word errors"), ("RALL-E", "word errors, another's text"), lower=True),
    Claim("VALL-E has the voice of its prompt", ("VALL-E", "voice: to the prompt"), ("VALL-E", "voice: to another's")),
    Claim("RALL-E has the voice of its prompt", ("RALL-E", "voice: to the prompt"), ("RALL-E", "voice: to another's")),
    Claim("RALL-E says fewer words wrong", ("RALL-E", "word errors"), ("VALL-E", "word errors"), lower=True),
    Claim("RALL-E skips fewer words", ("RALL-E", "skipped"), ("VALL-E", "skipped"), lower=True),
    Claim("RALL-E repeats fewer words", ("RALL-E", "repeated"), ("VALL-E", "repeated"), lower=True),
    Claim("RALL-E always comes to an end", ("RALL-E", "endless"), ("VALL-E", "endless"), lower=True),
]


def variant(of, seed: int, out: Path, steps: int = 3000, rows: Callable[[Continued], Any] = lambda data: data) -> Recipe:
    r = first(of.recipe(dim=192, depth=4, heads=3), seed)
    r.data["ar"].of.frames = 3000
    r.data["ar"] = lessons(r.data["ar"], steps, rows)
    r.stages["ar"].sampling["acoustic"] = Sampling(temperature=1.0, top_p=0.9)
    r.train["ar"] = Train(steps=steps, lr=1.5e-3, warmup=50, ema=0.99, seed=seed)
    return r


def lessons(data: Continued, steps: int, rows: Callable[[Continued], Any]) -> Lessons:
    """A second and a half at most for a quarter of the steps, then twice as long, then whole utterances, each as `rows` has it."""
    sizes = (((15, 30), 50), ((25, 60), 120), ((50, 150), 300))
    short, middle, whole = (rows(replace(data, prompt=prompt, longest=longest)) for prompt, longest in sizes)
    return Lessons([(steps * 28 // 100, short), (steps * 20 // 100, middle)], whole)


def first(r: Recipe, seed: int) -> Recipe:
    """The recipe with its first stage alone."""
    r = r.alone("ar")
    r.stages["ar"].backbone.dropout, r.data["ar"].of.seed = 0.0, seed
    return r


def study() -> Study:
    variants = {"VALL-E": partial(variant, valle), "RALL-E": partial(variant, ralle)}
    return Study("Hard sentences", variants, partial(measure, voices=VOICES, sentences=SENTENCES, codec=CODEC), CLAIMS, of="sentences")


def small() -> Study:
    variants = {"VALL-E": partial(tiny, valle), "RALL-E": partial(tiny, ralle)}
    return Study("Hard sentences, small", variants, partial(measure, voices=VOICES, sentences=SENTENCES[:3]), CLAIMS, of="sentences")


def tiny(of, seed: int, out: Path) -> Recipe:
    return first(of.small(), seed)
