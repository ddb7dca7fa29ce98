"""A vocoder of units (Polyak et al., 2021; Lee et al., 2022): what is said as units, how high, and in whose voice -> audio at 16 kHz.

    slm train recipes/represent/hubert.py --stage units …       # runs/hubert/units
    slm train recipes/vocoder/units.py --out runs/units_vocoder
    slm study recipes/study/unitvocoder.py                      # words, durations, voice and pitch, each beside its control

What a language model of units needs in order to be heard:

    vocoder = slm_vocoders.load("runs/units_vocoder/vocoder")
    audio = vocoder.sound(units, voice=recording, collapsed=True)

with units [S] without repetitions, as SpeechGPT's words are; or [T] with them, as Make-A-Voice says them (recipes/speech_lm/makeavoice.py)
and as recipes/speech_lm/basetts.py does once its merged ids are parted again, `units = merged.part(ids)`. Units taught phones, which
recipes/speech_lm/omni.py says, are recipe("runs/phonetic/units", pitch=False), those of the bundled codec's first level recipe("default");
three of its levels in the place of units, Make-A-Voice's last step, recipe("default", levels=3, durations=False). The melody is asked for,
`pitch` [T] in Hz with 0 where there is no voice, or left out of what is learned by recipe(pitch=False).

The generator is HiFi-GAN V3's shape at 320 samples a frame. fast() is the one that one CPU core trains in minutes: the bundled codec's
inverse-STFT generator, which shapes a source that has the pitch, and the mel distance alone, without critics. Differences: the pitch is Hz,
not quantised by a VQ-VAE or normalised by speaker; a voice is heard in a recording by an encoder that learns with the rest, not looked up
in a table, so that it may be anyone's.
"""

from slm.condition.voice import Voice
from slm.data.resynthesis import MadeUpResynthesis, Resynthesis
from slm.data.splits import HELD_OUT
from slm.recipe import Recipe, main
from slm.stage.adversarial import Adversarial
from slm.train.loop import Train
from slm_tokenizers.codec import tiny
from slm_vocoders.codes import CodeHiFiGAN
from slm_vocoders.contour import Contour
from slm_vocoders.discriminators import MPD, MSD
from slm_vocoders.durations import Durations
from slm_vocoders.hifigan import HiFiGAN
from slm_vocoders.learning import LearningVocoder
from slm_vocoders.losses import MultiMel
from slm_vocoders.units import UnitVocoder
from slm_vocoders.vocos import Vocos

SHAPE = HiFiGAN.Config(128, 16000, 256, (8, 5, 4, 2), (16, 11, 8, 4), 2, (3, 5, 7), ((1, 2), (2, 6), (3, 12)))  # V3's, for hop 320
CARDS = {"default": 1024}  # of tokenizers that come with slm; those of recipes/represent/hubert.py have 100 units


def recipe(
    units: str = "runs/hubert/units", card: int = 0, levels: int = 1, pitch: bool = True, voice: bool = True, durations: bool = True
) -> Recipe:
    card = card or CARDS.get(units, 100)
    vocoder = UnitVocoder.Config(
        CodeHiFiGAN.Config(levels, card, SHAPE),
        Contour.Config() if pitch else None,
        Voice.Config(latent=80, dim=128) if voice else 0,
        Durations.Config(card) if durations else None,
    )
    return Recipe(
        tokenizers={"units": units},
        stages={
            "vocoder": Adversarial.Config(
                LearningVocoder.Config(vocoder), MultiMel.Config(16000), mel=45.0, stft=0.0, discriminators=[MPD.Config(), MSD.Config()]
            )
        },
        data={"vocoder": Resynthesis(levels=(0, levels), held_out=HELD_OUT)},
        train={"vocoder": Train(steps=500_000, lr=2e-4, betas=(0.8, 0.99), clip=0.0, ema=0.0, every=5000, show_every=5000)},
    )


def fast(r: Recipe, steps: int = 2000) -> Recipe:
    """The recipe with a generator that works at frame rate and is trained on the mel distance alone."""
    stage = r.stages["vocoder"]
    vocoder = stage.generator.vocoder
    vocoder.codes.vocoder = Vocos.Config(128, sourced=vocoder.pitch is not None)
    stage.spectra = MultiMel.Config(16000, (256, 512, 1024, 2048), (20, 40, 80, 160), floor=1e-4)
    stage.mel, stage.begin, stage.discriminators = 1.0, -1, []
    r.train["vocoder"] = Train(steps=steps, lr=1e-3, warmup=50, ema=0.99)
    return r


def small() -> Recipe:
    r = recipe()
    r.tokenizers = {"units": tiny(1)}
    stage = r.stages["vocoder"]
    vocoder = stage.generator.vocoder
    vocoder.codes = CodeHiFiGAN.Config(1, 16, HiFiGAN.Config(16, 16000, 16, (8, 5, 4, 2), (16, 11, 8, 4), 2, (3,), ((1, 2),)))
    vocoder.voice, vocoder.durations = Voice.Config(latent=20, width=16, dim=8), Durations.Config(16, 16)
    stage.discriminators = [MPD.Config((2, 3), scale=1 / 64), MSD.Config(1, scale=1 / 32)]
    r.data = {"vocoder": MadeUpResynthesis(Resynthesis(batch=2, seconds=0.4, heard=0.6))}
    r.train = {"vocoder": Train(steps=3, warmup=1, every=2)}
    return r


if __name__ == "__main__":
    main(__file__)
