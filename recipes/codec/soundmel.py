"""A voice for recipes/codec/taughtmel.py: a vocoder behind its mel, adversarial; every code stays what it was.

    slm train recipes/codec/soundmel.py --out runs/soundmel      # after recipes/codec/taughtmel.py
    slm tokenizers runs/taughtmel/codec runs/soundmel/codec --data data/dev

runs/soundmel/codec may take the place of the codec it came from, also in a voice that was trained on its codes. Frames of ConvNeXt and
an inverse STFT (Vocos, Siuzdak, 2023), 3.2 M parameters, under the critics of recipes/codec/refined.py. About 0.2 s a step without
critics and 0.85 s with them on one CPU core with bf16 matrix units; a second is decoded in a hundredth of one.
"""

from pathlib import Path

from slm.data.madeup import MadeUpSounds
from slm.data.sounds import Sounds
from slm.data.splits import HELD_OUT
from slm.recipe import Recipe, load, main
from slm.stage.adversarial import Adversarial
from slm.train.loop import Train
from slm_tokenizers.melvq import MelVQ
from slm_tokenizers.sounding import SoundingMelVQ
from slm_vocoders.discriminators import MPD, MultiSTFT
from slm_vocoders.vocos import Vocos

refined = load(Path(__file__).parent / "refined.py")

VOCODER = Vocos.Config(n_in=2 * 80, width=288, low=4, high_width=192, high=4)  # two mel frames a code frame


def recipe(codec: str = "runs/taughtmel/codec") -> Recipe:
    return Recipe(
        tokenizers={"acoustic": codec},
        stages={"sound": stage(SoundingMelVQ.Config(codec, VOCODER), refined.CRITICS, begin=3000)},
        data={"sound": Sounds(seconds=0.64, batch=12, held_out=HELD_OUT, codec="acoustic")},
        train={
            "sound": Train(
                steps=7000, lr=5e-4, rates={"discriminators": 2.0}, warmup=100, betas=(0.8, 0.98), ema=0.998, clip=0.0, show_every=500
            )
        },
    )


def stage(generator: SoundingMelVQ.Config, critics: list, begin: int) -> Adversarial.Config:
    """As the default codec's decoder learns; from noise, it learns mels alone for `begin` steps, which cost a quarter."""
    made = refined.stage(generator, critics)
    made.begin = begin
    return made


def small() -> Recipe:
    codec = MelVQ.Config(n_q=2, card=16, dim=8, width=16, residuals=1)
    vocoder = Vocos.Config(n_in=2 * 80, width=16, low=1, high_width=16, high=1)
    critics = [MPD.Config((2, 3), scale=1 / 64), MultiSTFT.Config((256,), 2)]
    return Recipe(
        tokenizers={"acoustic": codec},
        stages={"sound": stage(SoundingMelVQ.Config(codec, vocoder), critics, begin=1)},
        data={"sound": MadeUpSounds(codec="acoustic")},
        train={"sound": Train(steps=3, warmup=1, every=2)},
    )


if __name__ == "__main__":
    main(__file__)
