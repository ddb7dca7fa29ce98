"""Does a learned quantiser of mels beat k-means at the same bits?

    slm study recipes/study/melvq.py --out runs/study/melvq

VQ-VAE (van den Oord et al., 2017) on log-mel against k-means on the same mel frames: one code of 256 each 20 ms, 400 bit/s, both
heard as log-mels, before any vocoder. Some three minutes a run on one core.
"""

from functools import partial
from pathlib import Path

from slm.data.splits import HELD_OUT
from slm.recipe import Recipe, load
from slm.study.mels import measure
from slm.study.run import Claim, Study

codecs = Path(__file__).parents[1] / "codec"
melvq, kmeansmel = load(codecs / "melvq.py"), load(codecs / "kmeansmel.py")

CLAIMS = [
    Claim("the learned codes are nearer", ("learned", "mel distance"), ("k-means", "mel distance"), lower=True),
    Claim("the learned codes tell more of the phones", ("learned", "PNMI"), ("k-means", "PNMI")),
]


def learned(seed: int, out: Path) -> Recipe:
    r = melvq.recipe()
    learning = r.stages["codec"].generator
    learning.codec.n_q, learning.codec.card, learning.dropout = 1, 256, False
    r.train["codec"].steps, r.train["codec"].ema, r.train["codec"].seed = 1500, 0.995, seed
    return heard(r, seed)


def clustered(seed: int, out: Path) -> Recipe:
    r = kmeansmel.recipe()
    r.stages["codec"].n_q, r.stages["codec"].card = 1, 256
    r.train["codec"].seed = seed
    return heard(r, seed)


def heard(r: Recipe, seed: int) -> Recipe:
    r.data["codec"].held_out, r.data["codec"].seed = HELD_OUT, seed
    return r


def study() -> Study:
    return Study("Mel quantisers at 400 bit/s", {"learned": learned, "k-means": clustered}, measure, CLAIMS)


def small() -> Study:
    shrunk = {"learned": partial(tiny, melvq), "k-means": partial(tiny, kmeansmel)}
    return Study("Mel quantisers, small", shrunk, measure, CLAIMS)


def tiny(of, seed: int, out: Path) -> Recipe:
    return of.small()
