"""VQ-VAE on log-mel (van den Oord et al., 2017): 80 bands at 16 kHz, 12 residual levels of 1024 each 20 ms (500 bit/s a level).

    slm train recipes/codec/melvq.py --out runs/melvq
    slm tokenizers runs/melvq/codec@1 runs/melvq/codec@8 runs/melvq/codec --opus 6 --data data/dev

runs/melvq/codec speaks by Griffin-Lim; `decode(codes, vocoder=…)` takes any vocoder that hears its mel. Half an hour on one core;
nearer than recipes/codec/kmeansmel.py at the same bits (MEASURED.md has the figures).
"""

from slm.data.madeup import MadeUpSounds
from slm.data.sounds import Sounds
from slm.recipe import Recipe, main
from slm.stage.regression import Regression
from slm.train.loop import Train
from slm_tokenizers.melvq import LearningMelVQ, MelVQ


def recipe() -> Recipe:
    return Recipe(
        stages={"codec": Regression.Config(LearningMelVQ.Config(MelVQ.Config(n_q=12, dim=128), dropout=True))},
        data={"codec": Sounds()},
        train={"codec": Train(steps=3000, lr=1e-3, warmup=200, betas=(0.9, 0.98), ema=0.998)},
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
