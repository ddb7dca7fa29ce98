"""A vocoder of units: can what it says be understood, and do durations, voice and pitch come out as asked?

    slm train recipes/represent/hubert.py --stage units …      # runs/hubert/units
    slm study recipes/study/unitvocoder.py --out runs/study/unitvocoder

Four vocoders of recipes/vocoder/units.py with its fast generator. Three hear the bundled codec's first level, which was taught what is
said: one told pitch and a voice, one a voice alone, and one pitch and three levels, Make-A-Voice's last step, beside the codec's own
decoder cut to those levels. That decoder is told no pitch, but the fast generator cannot hold one without its source. The fourth hears
HuBERT units, which last, where the codec's hardly ever come twice. A control goes with each figure: another recording's words, one
duration for all, a third's voice, a pitch that was not asked for. All learn from distances of mels alone, 800 steps of 16 s, about 6
minutes a variant and seed on one core.
"""

from functools import partial
from pathlib import Path

from slm.data.resynthesis import MadeUpResynthesis
from slm.recipe import Recipe, load
from slm.study.run import Claim, Study
from slm.study.unitvocoder import measure
from slm_tokenizers.codec import tiny

vocoder = load(Path(__file__).parents[1] / "vocoder" / "units.py")

ALL, FLAT, HUBERT, LEVELS = "units, voice, pitch", "units, voice", "HuBERT units", "three levels"
UNITS = {1024: "default", 100: "runs/hubert/units"}  # by how many there are
TOLD = {ALL: (1024, 1, True, True), FLAT: (1024, 1, False, True), HUBERT: (100, 1, True, True), LEVELS: (1024, 3, True, False)}
CLAIMS = [
    Claim("units keep the words", (ALL, "word errors"), (ALL, "word errors, another's words"), lower=True),
    Claim("HuBERT units keep the words", (HUBERT, "word errors"), (HUBERT, "word errors, another's words"), lower=True),
    Claim("durations are nearer than one for all", (HUBERT, "durations: error"), (HUBERT, "durations: error, their mean"), lower=True),
    Claim("... and as they are learned", (HUBERT, "durations: squared"), (HUBERT, "durations: squared, their mean"), lower=True),
    Claim("the voice given is heard", (HUBERT, "voice: to the given"), (HUBERT, "voice: had it been a third's")),
    Claim("... beside the codec's units too", (ALL, "voice: to the given"), (ALL, "voice: had it been a third's")),
    Claim("the pitch is the one asked for", (ALL, "pitch: correlation"), (FLAT, "pitch: correlation")),
    Claim("pitch rises as asked", (ALL, "pitch: error, asked higher"), (ALL, "pitch: error, had it stayed"), lower=True),
    Claim("three levels and pitch beat the codec's decoder", (LEVELS, "mel distance"), (LEVELS, "mel distance, codec"), lower=True),
]


def variant(name: str, seed: int, out: Path) -> Recipe:
    card, levels, pitch, voice = TOLD[name]
    return quick(vocoder.recipe(UNITS[card], levels=levels, pitch=pitch, voice=voice, durations=voice), seed)


def quick(r: Recipe, seed: int) -> Recipe:
    """A vocoder's recipe as this study trains it."""
    r = vocoder.fast(r, steps=800)
    r.data["vocoder"].folders = ("data/train",)
    r.data["vocoder"].seed = r.train["vocoder"].seed = seed
    return r


def little(name: str, seed: int, out: Path) -> Recipe:
    _, levels, _, voice = TOLD[name]
    r, shape = variant(name, seed, out), vocoder.small()
    told, narrow = r.stages["vocoder"].generator.vocoder, shape.stages["vocoder"].generator.vocoder
    r.tokenizers = {"units": tiny()}
    told.codes.card, told.codes.vocoder.width, told.codes.vocoder.high_width = 16, 16, 16
    told.voice, told.durations = (narrow.voice, narrow.durations) if voice else (0, None)
    r.data = {"vocoder": MadeUpResynthesis(shape.data["vocoder"].of)}
    r.data["vocoder"].of.levels = (0, levels)
    r.train = shape.train
    return r


def study() -> Study:
    return Study("A vocoder of units", {name: partial(variant, name) for name in TOLD}, partial(measure, units=UNITS), CLAIMS)


def small() -> Study:
    heard = partial(measure, units={16: tiny()})
    return Study("A vocoder of units, small", {name: partial(little, name) for name in TOLD}, heard, CLAIMS)
