"""What does it cost to speak before the text is known? Text and frames in turns beside text first, from the same rows and updates.

    slm align data/train && slm align data/dev && slm train recipes/codec/onelevel.py --out runs/onelevel
    slm study recipes/study/interleaved.py --out runs/study/interleaved

CosyVoice 2 (Du et al., 2024) finds speech in turns of 5 : 15 nearly as good as with all text known. Here the recipe of
recipes/speech_lm/interleaved.py at a size that takes minutes on one core, its text phones:

    text first      the whole text, then all frames
    5 : 15          five phones, then fifteen frames, until there is no more text
    5 as said       five phones, then the frames in which they are said; when to ask for more is learned, and its nats count

A frame costs fewer nats the more of its text is known, and more when the marker's share is counted; how often words go wrong is what a
recogniser hears of the first level alone. Both on recordings of speakers that were not heard in training. Pieces of a second come first,
and phones and frames count their places for themselves, so that the text is heeded. About 8 minutes a variant and seed on one core.
"""

from functools import partial
from pathlib import Path

from slm.data.aligned import Aligned
from slm.data.lessons import Lessons
from slm.data.splits import HELD_OUT
from slm.recipe import Recipe, load
from slm.stream.spans import Spans
from slm.study.interleaved import measure
from slm.study.run import Claim, Study
from slm.train.loop import Train

interleaved = load(Path(__file__).parents[1] / "speech_lm" / "interleaved.py")

VARIANTS = {"text first": Spans(10_000, 1), "5 : 15": Spans(5, 15), "5 as said": Spans(5, None)}
CODEC = "runs/onelevel/codec"
STEPS = 1200

CLAIMS = [
    *(Claim(f"{name}: the text is said", (name, "word errors"), (name, "word errors, another's text"), lower=True) for name in VARIANTS),
    Claim("in turns, speech begins with less text known", ("5 : 15", "phones known"), ("text first", "phones known"), lower=True),
    Claim("text first takes fewer nats than turns", ("text first", "nats a frame"), ("5 : 15", "nats a frame"), lower=True),
    Claim("turns as said take fewer nats than turns by number", ("5 as said", "nats a frame"), ("5 : 15", "nats a frame"), lower=True),
    Claim("text first says fewer words wrong than turns", ("text first", "word errors"), ("5 : 15", "word errors"), lower=True),
    Claim("turns as said say fewer words wrong than by number", ("5 as said", "word errors"), ("5 : 15", "word errors"), lower=True),
]


def variant(name: str, seed: int, out: Path) -> Recipe:
    r = interleaved.recipe(dim=192, depth=4, heads=3)
    r.stages["lm"].spans = VARIANTS[name]
    short, middle, whole = (pieces(most, frames, seed) for most, frames in ((60, 4400), (120, 3400), (300, 2450)))
    r.data["lm"] = Lessons([(STEPS // 3, short), (STEPS // 4, middle)], whole)
    r.train["lm"] = Train(steps=STEPS, lr=1.5e-3, warmup=50, ema=0.99, seed=seed)
    return r


def pieces(most: int, frames: int, seed: int) -> Aligned:
    """Pieces of `most` frames; `frames` of them in a batch, those of the prompts counted."""
    return Aligned(("data/train",), frames=frames, seed=seed, prompt=(30, 50), most=most, held_out=HELD_OUT)


def study() -> Study:
    variants = {name: partial(variant, name) for name in VARIANTS}
    return Study("Speech before its text is known", variants, partial(measure, codec=CODEC), CLAIMS)


def small() -> Study:
    variants = {name: partial(tiny, name) for name in VARIANTS}
    return Study("Speech before its text is known, small", variants, partial(measure, count=3), CLAIMS)


def tiny(name: str, seed: int, out: Path) -> Recipe:
    r = interleaved.small()
    r.stages["lm"].spans, r.data["lm"].seed = VARIANTS[name], seed
    return r
