"""HAM-TTS's two ideas on top of VALL-E: phones that are told how they will sound, and slips in what is heard that are not gone on with.

    slm train recipes/codec/onelevel.py --out runs/onelevel
    slm train recipes/represent/phonetic.py --out runs/phonetic
    slm align data/dev && slm study recipes/study/hamtts.py --out runs/study/hamtts

The first stages of recipes/zero_shot/valle.py and hamtts.py at the size of recipes/study/hard.py, as many weights in all that speak, on the
same rows for as many steps; they say the 50 sentences of hard.txt in held-out voices. "shuffled" is the control of the latent sequence: it
predicts from the phones in another order, and so knows nothing of the phone it stands at. "another LVS" tells a trained model, of the
right text, what such an order would sound like. The paper's second arm, data of a voice converter, is not here, and its units of HuBERT
are the aligner's. About 10 minutes a variant and seed on one core.
"""

from functools import partial
from pathlib import Path

from slm.condition.latent import Latent
from slm.data.augmented import Augmented
from slm.data.beside import Beside
from slm.data.continued import Continued
from slm.recipe import Recipe, load
from slm.study.hamtts import measure
from slm.study.run import Claim, Study

hard = load(Path(__file__).with_name("hard.py"), ("study", "small"))
hamtts = load(Path(__file__).parents[1] / "zero_shot" / "hamtts.py")

MLP = 608  # of VALL-E, whose layers have no other use for the weights of predictor and convolution
PLAIN, LVS, SHUFFLED, SLIPS = VARIANTS = ("VALL-E", "LVS", "LVS shuffled", "LVS and slips")
CLAIMS = [
    Claim("an LVS: fewer words wrong", (LVS, "word errors"), (PLAIN, "word errors"), lower=True),
    Claim("an LVS: codes cost less", (LVS, "nats"), (PLAIN, "nats"), lower=True),
    Claim("an LVS: codes cost less than with one that tells nothing", (LVS, "nats"), (SHUFFLED, "nats"), lower=True),
    Claim("codes follow their LVS", (LVS, "nats"), (LVS, "nats, another LVS"), lower=True),
    Claim("an LVS is nearer than one that tells nothing", (LVS, "distance"), (SHUFFLED, "distance"), lower=True),
    Claim("slips: fewer words wrong", (SLIPS, "word errors"), (LVS, "word errors"), lower=True),
    Claim("slips: fewer words repeated", (SLIPS, "repeated"), (LVS, "repeated"), lower=True),
    Claim("slips: one that is heard costs less", (SLIPS, "nats, after slips"), (LVS, "nats, after slips"), lower=True),
]


def variant(name: str, seed: int, out: Path) -> Recipe:
    return changed(hard.variant(hard.valle, seed, out, 1500, partial(rows, name, seed)), name, "runs/phonetic/units", 64, MLP)


def rows(name: str, seed: int, data: Continued) -> Continued | Beside | Augmented:
    """What variant `name` learns from, of VALL-E's rows."""
    if name == PLAIN:
        return data
    return Augmented(Beside(data), seed=seed) if name == SLIPS else Beside(data)


def changed(r: Recipe, name: str, units: object, dim: int, mlp: int) -> Recipe:
    """VALL-E's first stage as variant `name`, on the rows that it has."""
    if name == PLAIN:
        r.stages["ar"].backbone.mlp = mlp
        return r
    spoken = r.data["ar"]
    r = hamtts.told(r, units, Latent.Config(dim=dim, shuffled=name == SHUFFLED))
    r.data["ar"] = spoken
    return r


def study() -> Study:
    heard = partial(measure, voices=hard.VOICES, sentences=hard.SENTENCES, codec=hard.CODEC)
    return Study("A latent sequence beside the phones", {name: partial(variant, name) for name in VARIANTS}, heard, CLAIMS, of="sentences")


def small() -> Study:
    heard = partial(measure, voices=hard.valle.small().data["ar"], sentences=hard.SENTENCES[:3])
    return Study("A latent sequence, small", {name: partial(shrunk, name) for name in VARIANTS}, heard, CLAIMS, of="sentences")


def shrunk(name: str, seed: int, out: Path) -> Recipe:
    r = hard.tiny(hard.valle, seed, out)
    r.data["ar"] = rows(name, seed, r.data["ar"])
    return changed(r, name, hamtts.tiny(1), 16, 128)
