"""What do units that were taught phones keep? A vocoder of them, as SpeechGPT speaks through: words, durations, and the voice it is given.

    slm align data/train && slm train recipes/represent/phonetic.py --out runs/phonetic
    slm study recipes/study/phonetic.py --out runs/study/phonetic

recipes/vocoder/units.py with its fast generator, told units and a voice and no pitch, for no model of units tells it. As in unitvocoder.py
it learns from distances of mels alone, 800 steps of 16 s, about 6 minutes a seed on one core, and a control goes with each figure: another
recording's words, one duration for all, a third's voice.
"""

from functools import partial
from pathlib import Path

from slm.recipe import Recipe, load
from slm.study.run import Claim, Study
from slm.study.unitvocoder import measure
from slm_tokenizers.codec import tiny

unitvocoder = load(Path(__file__).with_name("unitvocoder.py"), ("study", "small"))

UNITS, CARD = "runs/phonetic/units", 100
NAME = "phonetic units"
CLAIMS = [
    Claim("phonetic units keep the words", (NAME, "word errors"), (NAME, "word errors, another's words"), lower=True),
    Claim("durations are nearer than one for all", (NAME, "durations: error"), (NAME, "durations: error, their mean"), lower=True),
    Claim("... and as they are learned", (NAME, "durations: squared"), (NAME, "durations: squared, their mean"), lower=True),
    Claim("the voice given is heard", (NAME, "voice: to the given"), (NAME, "voice: had it been a third's")),
]


def variant(seed: int, out: Path) -> Recipe:
    return unitvocoder.quick(unitvocoder.vocoder.recipe(UNITS, CARD, pitch=False), seed)


def study() -> Study:
    return Study("Units taught phones", {NAME: variant}, partial(measure, units={CARD: UNITS}), CLAIMS)


def small() -> Study:
    little = partial(unitvocoder.little, unitvocoder.FLAT)
    return Study("Units taught phones, small", {NAME: little}, partial(measure, units={16: tiny()}), CLAIMS)
