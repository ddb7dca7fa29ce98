"""What the parts of a residual codec are good for: levels, quantiser dropout, a taught first level.

    slm study recipes/study/codec.py --out runs/study/codec

SoundStream (Zeghidour et al., 2021): distortion falls with every level, and dropout of levels while training helps to decode few of
them. SpeechTokenizer (Zhang et al., 2023): a taught first level tells the phones, and the other levels carry the voice. The codec of
recipes/codec/spectral.py at half its widths with 256 codes a level, 1,000 steps of 16 seconds: some four minutes a run on one core.
"""

from pathlib import Path

from slm.data.splits import HELD_OUT
from slm.recipe import Recipe, load
from slm.study.codecs import measure
from slm.study.run import Claim, Study

spectral = load(Path(__file__).parents[1] / "codec" / "spectral.py")

OTHER = "similarity to another voice"


def distance(variant: str, levels: int) -> tuple[str, str]:
    return variant, f"mel distance, {levels} levels"


CLAIMS = [
    *(
        Claim(f"{b} levels are nearer than {a}", distance("taught", b), distance("taught", a), lower=True)
        for a, b in ((1, 2), (2, 4), (4, 8))
    ),
    *(Claim(f"dropout helps {n} of 8 levels", distance("taught", n), distance("no dropout", n), lower=True) for n in (1, 2, 4)),
    Claim("teaching puts phones into level 1", ("taught", "PNMI, level 1"), ("untaught", "PNMI, level 1")),
    Claim("swapped levels 2 to 8 move the voice", ("taught", f"{OTHER}, swapped"), ("taught", OTHER)),
    Claim("level 1 alone loses the voice", ("taught", "similarity to itself, level 1"), ("taught", "similarity to itself"), lower=True),
]


def variant(base, seed: int, teacher: bool = True, dropout: bool = True) -> Recipe:
    r = base()
    stage = r.stages["codec"].generator
    stage.dropout = dropout
    if not teacher:
        stage.teacher = 0
    r.data["codec"].seed = r.train["codec"].seed = seed
    return r


def half() -> Recipe:
    r = spectral.recipe()
    codec = r.stages["codec"].generator.codec
    codec.enc_width, codec.dec_width, codec.dec_high_width, codec.card = 128, 192, 128, 256
    r.data["codec"].held_out = HELD_OUT
    r.train["codec"].steps, r.train["codec"].show_every = 1000, 0
    return r


def study(base=half) -> Study:
    return Study(
        "Residual codecs: levels, dropout, a taught first level",
        {
            "taught": lambda seed, out: variant(base, seed),
            "untaught": lambda seed, out: variant(base, seed, teacher=False),
            "no dropout": lambda seed, out: variant(base, seed, dropout=False),
        },
        measure,
        CLAIMS,
    )


def small() -> Study:
    return study(lambda: eight(spectral.small()))


def eight(r: Recipe) -> Recipe:
    r.stages["codec"].generator.codec.n_q = 8
    return r
