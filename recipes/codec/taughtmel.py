"""Mel + residual VQ whose first level is taught what is said: 8 levels of 1024 each 20 ms (4 kbit/s), to train a voice on.

    slm train recipes/codec/taughtmel.py --out runs/taughtmel
    slm tokenizers runs/taughtmel/codec@1 runs/taughtmel/codec --data data/dev

recipes/codec/melvq.py with a teacher: phones from `slm align`, which the first level alone must tell, as SpeechTokenizer's
(Zhang et al., 2023) must tell what a self-supervised model hears. Half an hour on one core.
"""

from pathlib import Path

from slm.data.splits import HELD_OUT
from slm.recipe import Recipe, load, main

melvq = load(Path(__file__).parent / "melvq.py")


def recipe(phones: int = 40) -> Recipe:
    r = melvq.recipe()
    learning = r.stages["codec"].generator
    learning.codec.n_q, learning.teacher = 8, phones
    r.data["codec"].held_out = HELD_OUT
    return r


def small() -> Recipe:
    r = melvq.small()
    r.stages["codec"].generator.teacher = 40
    return r


if __name__ == "__main__":
    main(__file__)
