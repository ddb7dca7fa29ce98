"""What does it cost to speak before the text is known? Text and frames in turns beside text first, from the same rows and updates.

    slm align data/dev && slm study recipes/study/interleaved.py --out runs/study/interleaved

CosyVoice 2 (Du et al., 2024) finds speech in turns of 5 : 15 nearly as good as with all text known. Here the recipe of
recipes/speech_lm/interleaved.py at a size that takes minutes on one core, its text phones:

    text first      the whole text, then all frames
    5 : 15          five phones, then fifteen frames, until there is no more text
    5 as said       five phones, then the frames in which they are said; when to ask for more is learned, and its nats count

A frame costs fewer nats the more of its text is known, and more when the marker's share is counted; how often words go wrong is what a
recogniser hears of the first level alone. Both on recordings of speakers that were not heard in training.
"""

from functools import partial
from pathlib import Path

from slm.data.aligned import Aligned
from slm.data.short import Short
from slm.data.splits import HELD_OUT
from slm.recipe import Recipe, load
from slm.stream.spans import Spans
from slm.study.interleaved import measure
from slm.study.run import Claim, Study
from slm.train.loop import Train

interleaved = load(Path(__file__).parents[1] / "speech_lm" / "interleaved.py")

VARIANTS = {"text first": Spans(10_000, 1), "5 : 15": Spans(5, 15), "5 as said": Spans(5, None)}

CLAIMS = [
    Claim("in turns, speech begins with less text known", ("5 : 15", "phones known"), ("text first", "phones known"), lower=True),
    Claim("text first takes fewer nats than turns", ("text first", "nats a frame"), ("5 : 15", "nats a frame"), lower=True),
    Claim("turns as said take fewer nats than turns by number", ("5 as said", "nats a frame"), ("5 : 15", "nats a frame"), lower=True),
    Claim("text first says fewer words wrong than turns", ("text first", "word errors"), ("5 : 15", "word errors"), lower=True),
    Claim("turns as said say fewer words wrong than by number", ("5 as said", "word errors"), ("5 : 15", "word errors"), lower=True),
]


def variant(name: str, seed: int, out: Path, steps: int = 500) -> Recipe:
    r = interleaved.recipe(dim=192, depth=4, heads=3)
    r.stages["lm"].spans = VARIANTS[name]
    r.data["lm"] = Short(Aligned(held_out=HELD_OUT), longest=300, frames=2000, seed=seed)
    r.train["lm"] = Train(steps=steps, lr=1.5e-3, warmup=50, ema=0.99, seed=seed)
    return r


def study() -> Study:
    return Study("Speech before its text is known", {name: partial(variant, name) for name in VARIANTS}, measure, CLAIMS)


def small() -> Study:
    variants = {name: partial(tiny, name) for name in VARIANTS}
    return Study("Speech before its text is known, small", variants, partial(measure, count=3), CLAIMS)


def tiny(name: str, seed: int, out: Path) -> Recipe:
    r = interleaved.small()
    r.stages["lm"].spans, r.data["lm"].seed = VARIANTS[name], seed
    return r
