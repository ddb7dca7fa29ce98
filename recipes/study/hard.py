"""VALL-E beside RALL-E on sentences that are hard to keep one's place in: what is skipped, said twice, or never comes to an end?

    slm align data/dev && slm study recipes/study/hard.py --out runs/study/hard

RALL-E (Xin et al., 2024) reports 68 % of 50 hard sentences gone wrong with VALL-E and 4 % with its chain of thought. Here the first
stages of recipes/zero_shot/valle.py and ralle.py learn from the same rows for as many steps, at a size that takes minutes on one core,
and say the 50 sentences of hard.txt (repeated words, numbers, letters, tongue twisters, single words) in held-out voices. The bundled
codec sounds from its first level alone, which costs a recogniser little and leaves the second stage, equal in both, out of the question.
"""

from functools import partial
from pathlib import Path

from slm.data.aligned import Aligned
from slm.data.continued import Continued
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

CLAIMS = [
    Claim("RALL-E says fewer words wrong", ("RALL-E", "word errors"), ("VALL-E", "word errors"), lower=True),
    Claim("RALL-E skips fewer words", ("RALL-E", "skipped"), ("VALL-E", "skipped"), lower=True),
    Claim("RALL-E repeats fewer words", ("RALL-E", "repeated"), ("VALL-E", "repeated"), lower=True),
    Claim("RALL-E always comes to an end", ("RALL-E", "endless"), ("VALL-E", "endless"), lower=True),
]


def variant(of, seed: int, out: Path) -> Recipe:
    r = first(of.recipe(dim=192, depth=4, heads=3), seed)
    data = r.data["ar"]
    data.of.frames, data.longest, data.prompt = 3000, 250, (50, 100)
    r.stages["ar"].sampling["acoustic"] = Sampling(temperature=1.0, top_p=0.9)
    r.train["ar"] = Train(steps=500, lr=1.5e-3, warmup=50, ema=0.99, seed=seed)
    return r


def first(r: Recipe, seed: int) -> Recipe:
    """The recipe with its first stage alone."""
    r.stages, r.data, r.train = ({"ar": entries["ar"]} for entries in (r.stages, r.data, r.train))
    r.stages["ar"].backbone.dropout, r.data["ar"].of.seed = 0.0, seed
    return r


def study() -> Study:
    variants = {"VALL-E": partial(variant, valle), "RALL-E": partial(variant, ralle)}
    return Study("Hard sentences", variants, partial(measure, voices=VOICES, sentences=SENTENCES), CLAIMS, of="sentences")


def small() -> Study:
    variants = {"VALL-E": partial(tiny, valle), "RALL-E": partial(tiny, ralle)}
    return Study("Hard sentences, small", variants, partial(measure, voices=VOICES, sentences=SENTENCES[:3]), CLAIMS, of="sentences")


def tiny(of, seed: int, out: Path) -> Recipe:
    return first(of.small(), seed)
