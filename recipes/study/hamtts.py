"""HAM-TTS's two ideas on top of VALL-E: phones that are told how they will sound, and slips in what is heard that are not gone on with.

    slm train recipes/represent/hubert.py --stage units …      # runs/hubert/units
    slm align data/dev && slm study recipes/study/hamtts.py --out runs/study/hamtts

The first stages of recipes/zero_shot/valle.py and hamtts.py at the size of recipes/study/hard.py, as many weights in all that speak, on the
same rows for as many steps; they say the 50 sentences of hard.txt in held-out voices. "shuffled" is the control of the latent sequence: it
predicts from the phones in another order, and so knows nothing of the phone it stands at. "another LVS" tells a trained model, of the
right text, what such an order would sound like. The paper's second arm, data of a voice converter, is not here. About 4 minutes a variant
and seed on one core.
"""

from functools import partial
from pathlib import Path

from slm.condition.latent import Latent
from slm.data.augmented import Augmented
from slm.data.beside import Beside
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
    return changed(hard.variant(hard.valle, seed, out), name, "runs/hubert/units", 64, MLP, seed)


def changed(r: Recipe, name: str, units: object, dim: int, mlp: int, seed: int) -> Recipe:
    """VALL-E's first stage as variant `name`."""
    if name == PLAIN:
        r.stages["ar"].backbone.mlp = mlp
        return r
    spoken = r.data["ar"]
    r = hamtts.told(r, units, Latent.Config(dim=dim, shuffled=name == SHUFFLED))
    r.data["ar"] = Augmented(Beside(spoken), seed=seed) if name == SLIPS else Beside(spoken)
    return r


def study() -> Study:
    heard = partial(measure, voices=hard.VOICES, sentences=hard.SENTENCES)
    return Study("A latent sequence beside the phones", {name: partial(variant, name) for name in VARIANTS}, heard, CLAIMS, of="sentences")


def small() -> Study:
    heard = partial(measure, voices=hard.valle.small().data["ar"], sentences=hard.SENTENCES[:3])
    return Study("A latent sequence, small", {name: partial(shrunk, name) for name in VARIANTS}, heard, CLAIMS, of="sentences")


def shrunk(name: str, seed: int, out: Path) -> Recipe:
    return changed(hard.tiny(hard.valle, seed, out), name, hamtts.tiny(1), 16, 128, seed)
