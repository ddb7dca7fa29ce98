"""VQ-VAE on log-mel (van den Oord et al., 2017): 80 bands at 16 kHz, one code of 1024 each 20 ms (500 bit/s).

    slm train recipes/codec/melvq.py --out runs/melvq

runs/melvq/codec speaks by Griffin-Lim; `decode(codes, vocoder=…)` takes any vocoder that hears its mel.
Its yardstick is `KMeansMel` at the same bits. Not trained at this size yet.
"""

from slm.data.madeup import MadeUpSounds
from slm.data.sounds import Sounds
from slm.recipe import Recipe, main
from slm.stage.regression import Regression
from slm.train.loop import Train
from slm_tokenizers.melvq import LearningMelVQ, MelVQ


def recipe() -> Recipe:
    return Recipe(
        stages={"codec": Regression.Config(LearningMelVQ.Config())},
        data={"codec": Sounds()},
        train={"codec": Train(steps=20_000, lr=5e-4, warmup=200, betas=(0.9, 0.98), ema=0.998)},
    )


def small() -> Recipe:
    codec = MelVQ.Config(n_q=2, card=16, dim=8, width=16, residuals=1)
    return Recipe(
        stages={"codec": Regression.Config(LearningMelVQ.Config(codec))},
        data={"codec": MadeUpSounds()},
        train={"codec": Train(steps=3, warmup=1, every=2)},
    )


if __name__ == "__main__":
    main(__file__)
