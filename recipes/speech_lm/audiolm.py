"""AudioLM (Borsos et al., 2022): three seconds of speech go on, in the same voice, without a text.

    slm align data/train
    slm train recipes/represent/phonetic.py --out runs/phonetic        # what is said: 100 units; or recipes/represent/hubert.py's
    slm train recipes/speech_lm/audiolm.py --stage semantic            # units -> units
    slm train recipes/speech_lm/audiolm.py --stage coarse              # units -> the codec's first levels
    slm train recipes/speech_lm/audiolm.py --stage fine                # first levels -> the others
    slm study recipes/study/audiolm.py

The paper's sizes are 12 layers of 1024, 1024 units of w2v-BERT at 25 Hz and 12 levels of SoundStream at 50 Hz, of which the first 4 are
coarse. Differences: the units here were taught phones, which no recording of the paper's has beside it; they are 50 a second and keep
their repetitions, one a frame of the codec, so that what is said of them lasts as long as they do (the paper takes repetitions out, and
its coarse stage has to find out which unit is due); they are drawn at 0.9 where the paper has 0.6, at which what repeats would repeat on;
and where it has T5's relative positions these are rotary and counted by each part from 0, so that a code stands where its unit does.
"""

from slm.backbone.transformer import Transformer
from slm.data.splits import HELD_OUT
from slm.data.spoken import MadeUpSpoken, Spoken
from slm.recipe import Recipe, main
from slm.stage.lm import LM
from slm.stream.part import Part
from slm.stream.sample import Sampling
from slm.train.loop import Train
from slm_tokenizers.codec import tiny

STAGES = ("semantic", "coarse", "fine")


def recipe(dim: int = 1024, depth: int = 12, heads: int = 16, units: str = "runs/phonetic/units", coarse: int = 4, n_q: int = 8) -> Recipe:
    said, given = Part("units", end=True), Part("units", learn=False)
    first = Part("coarse", (0, coarse), like="units", stream="acoustic")
    rest = Part("fine", (coarse, n_q), like="coarse", stream="acoustic")
    told = Part("coarse", (0, coarse), learn=False, stream="acoustic")
    backbone = Transformer.Config(dim, depth, heads, dropout=0.1)
    frames = {"coarse": 1 / coarse, "fine": 1 / (n_q - coarse)}  # how far apart codes stand, a frame being 1
    follow = {"units": 1.0, "coarse": frames["coarse"]}
    heard = dict(held_out=HELD_OUT, collapsed=(), spans={"coarse": ("acoustic", 0, coarse), "fine": ("acoustic", coarse, n_q)})
    return Recipe(
        tokenizers={"units": units, "acoustic": "default"},
        stages={
            "semantic": LM.Config([said], backbone, sampling={"units": Sampling(temperature=0.9, top_p=1.0)}),
            "coarse": LM.Config([given, first], backbone, sampling={"coarse": Sampling(0.8, top_p=1.0)}, places=follow),
            "fine": LM.Config([told, rest], backbone, sampling={"fine": Sampling(0.6, top_p=1.0)}, places=frames),
        },
        data={
            "semantic": Spoken(("units",), seconds=30, **heard | {"spans": None}),
            "coarse": Spoken(seconds=10, **heard),
            "fine": Spoken(("acoustic",), seconds=3, **heard),
        },
        train={stage: Train(steps=1_000_000, lr=1e-4, warmup=10_000) for stage in STAGES},
    )


def small() -> Recipe:
    r = recipe(32, 1, 2, coarse=1, n_q=3)
    r.tokenizers = {"units": tiny(1), "acoustic": tiny(3)}
    r.data = {stage: MadeUpSpoken(data) for stage, data in r.data.items()}
    r.train = {stage: Train(steps=3, warmup=1, every=2) for stage in STAGES}
    return r


if __name__ == "__main__":
    main(__file__)
