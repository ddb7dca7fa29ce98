"""The spectral codec's decoder, made to sound: adversarial, and tuned on what a voice says in place of the codes.

    slm train recipes/codec/refined.py --out runs/refined      # after recipes/zero_shot/masked.py

Encoder and codebooks stay, so every code stays what it was and runs/refined/codec may take the place of the codec it came
from. Critics: periods of HiFi-GAN (Kong et al., 2020), complex spectra of EnCodec (Defossez et al., 2022), both small.
About 0.9 s a step on one CPU core with bf16 matrix units.
"""

from slm.data.aligned import Aligned
from slm.data.madeup import MadeUpSounds
from slm.data.splits import HELD_OUT
from slm.data.told import Told
from slm.recipe import Recipe, main
from slm.stage.adversarial import Adversarial
from slm.train.loop import Train
from slm_tokenizers.codec import tiny
from slm_tokenizers.refined import RefinedCodec
from slm_tokenizers.text.phonemes import Phonemes
from slm_vocoders.discriminators import MPD, MultiSTFT
from slm_vocoders.losses import MultiMel

SPECTRA = MultiMel.Config(16000, (256, 512, 1024, 2048), (20, 40, 80, 160), floor=1e-4)
CRITICS = [MPD.Config(scale=1 / 8), MultiSTFT.Config((1024, 256), 8)]


def recipe(codec: str = "runs/codec/codec") -> Recipe:
    return Recipe(
        tokenizers={"text": Phonemes.Config(), "acoustic": codec},
        stages={"sound": stage(RefinedCodec.Config(codec), CRITICS)},
        data={"sound": Told(Aligned(longest=100_000, held_out=HELD_OUT), "runs/masked")},
        train={
            "sound": Train(
                steps=3600, lr=1.5e-4, rates={"discriminators": 6.0}, warmup=100, betas=(0.8, 0.98), ema=0.998, clip=0.0, show_every=500
            )
        },
    )


def stage(generator: RefinedCodec.Config, critics: list) -> Adversarial.Config:
    """Two thirds of what moves the audio is the distance of mels, the rest what the critics hear (shares of EnCodec's balancer)."""
    return Adversarial.Config(
        generator, SPECTRA, mel=6.0, stft=0.0, adversarial=1.0, feature=2.0, discriminators=critics, loudness=0.2, balance=True
    )


def small() -> Recipe:
    codec = tiny(2)
    critics = [MPD.Config((2, 3), scale=1 / 64), MultiSTFT.Config((256,), 2)]
    return Recipe(
        tokenizers={"acoustic": codec},
        stages={"sound": stage(RefinedCodec.Config(codec), critics)},
        data={"sound": MadeUpSounds(codec="acoustic")},
        train={"sound": Train(steps=3, warmup=1, every=2)},
    )


if __name__ == "__main__":
    main(__file__)
