"""Residual k-means on log-mel: 80 bands at 16 kHz, two frames a vector, 12 levels of 1024 each 20 ms (6 kbit/s, 500 bit/s a level).

    slm train recipes/codec/kmeansmel.py --out runs/kmeansmel
    slm tokenizers runs/kmeansmel/codec runs/kmeansmel/codec@8 --opus 6 --data data/dev

Nothing is learned but centres (Juang and Gray, 1982), one level after the other, by one core; speaks by Griffin-Lim, or
`decode(codes, vocoder=…)`. What a learned codec must beat at the same bits. Expect about what Lloyd's k-means left of 25 minutes
of speech, as squared distance of ln-mels: 0.48 after one level, 0.11 after eight, 0.08 after twelve. Not run at this size yet.
"""

from slm.data.madeup import MadeUpSounds
from slm.data.sounds import Sounds
from slm.recipe import Recipe, main
from slm.train.loop import Train
from slm_tokenizers.kmeansmel import KMeansMel


def recipe() -> Recipe:
    return Recipe(
        stages={"codec": KMeansMel.Config(n_q=12)},
        data={"codec": Sounds()},
        train={"codec": Train(steps=125)},
    )


def small() -> Recipe:
    return Recipe(
        stages={"codec": KMeansMel.Config(n_q=3, card=16)},
        data={"codec": MadeUpSounds()},
        train={"codec": Train(steps=3)},
    )


if __name__ == "__main__":
    main(__file__)
