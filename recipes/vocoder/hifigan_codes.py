"""HiFi-GAN on the codec's codes instead of mel (Polyak et al., 2021): embeddings of all levels, summed, then HiFi-GAN.

    slm train recipes/vocoder/hifigan_codes.py --out runs/hifigan_codes

The other way to make sound of the default codec's tokens; 16 kHz, 320 samples a frame.
"""

from slm.data.madeup import MadeUpSounds
from slm.data.sounds import Sounds
from slm.recipe import Recipe, main
from slm.stage.adversarial import Adversarial
from slm.train.loop import Train
from slm_tokenizers.codec import Codec
from slm_vocoders.codes import CodeHiFiGAN
from slm_vocoders.discriminators import MPD, MSD
from slm_vocoders.hifigan import HiFiGAN
from slm_vocoders.learning import LearningVocoder
from slm_vocoders.losses import MultiMel

SHAPE = HiFiGAN.Config(128, 16000, 256, (8, 5, 4, 2), (16, 11, 8, 4), 2, (3, 5, 7), ((1, 2), (2, 6), (3, 12)))  # V3's, for hop 320


def recipe(codec: str = "runs/codec/codec") -> Recipe:
    generator = LearningVocoder.Config(CodeHiFiGAN.Config(8, 1024, SHAPE))
    return Recipe(
        tokenizers={"acoustic": codec},
        stages={
            "vocoder": Adversarial.Config(
                generator, MultiMel.Config(16000), mel=45.0, stft=0.0, discriminators=[MPD.Config(), MSD.Config()]
            )
        },
        data={"vocoder": Sounds(seconds=0.5, codec="acoustic")},
        train={"vocoder": Train(steps=500_000, lr=2e-4, betas=(0.8, 0.99), clip=0.0, ema=0.0, every=5000, show_every=5000)},
    )


def small() -> Recipe:
    r = recipe()
    r.tokenizers = {
        "acoustic": Codec.Config(n_q=2, card=16, dim=8, enc_width=16, enc_high=1, enc_low=1, dec_width=16, dec_low=1, dec_high_width=16)
    }
    stage = r.stages["vocoder"]
    stage.generator.vocoder.n_q, stage.generator.vocoder.card, stage.generator.vocoder.vocoder.channels = 2, 16, 16
    stage.discriminators = [MPD.Config((2, 3), scale=1 / 64), MSD.Config(1, scale=1 / 32)]
    r.data = {"vocoder": MadeUpSounds(batch=2, codec="acoustic")}
    r.train = {"vocoder": Train(steps=3, warmup=1, every=2)}
    return r


if __name__ == "__main__":
    main(__file__)
