"""SoundStream (Zeghidour et al., 2021): causal, 24 kHz, 75 frames a second, 8 levels of 1024 (6 kbit/s).

    slm train recipes/codec/soundstream.py --out runs/soundstream

Critics as in the paper: a complex spectrum (window 1024) and the waveform at three scales; least squares where the paper has
a hinge, log-mels at four windows as its spectral distance. To expect: distances that fall with every level that is decoded.
"""

from slm.data.madeup import MadeUpSounds
from slm.data.sounds import Sounds
from slm.recipe import Recipe, main
from slm.stage.adversarial import Adversarial
from slm.train.loop import Train
from slm_tokenizers.soundstream import SoundStream
from slm_tokenizers.taught import TaughtCodec
from slm_vocoders.discriminators import MSD, MultiSTFT
from slm_vocoders.losses import MultiMel

SPECTRA = MultiMel.Config(24000, (256, 512, 1024, 2048), (20, 40, 80, 160), floor=1e-4)


def recipe() -> Recipe:
    codec = TaughtCodec.Config(SoundStream.Config(), teacher=0)
    critics = [MultiSTFT.Config((1024,)), MSD.Config()]
    return Recipe(
        stages={"codec": Adversarial.Config(codec, SPECTRA, stft=0.0, discriminators=critics)},
        data={"codec": Sounds(rate=24000)},
        train={"codec": Train(steps=400_000, lr=1e-4, warmup=1000, betas=(0.5, 0.9), clip=5.0, every=2000, show_every=2000)},
    )


def small() -> Recipe:
    return smaller(recipe())


def smaller(r: Recipe) -> Recipe:
    """Any codec of these convolutions, at a size that trains in seconds on made-up speech."""
    codec = r.stages["codec"].generator.codec
    codec.n_q, codec.card, codec.dim, codec.n_filters = 2, 16, 8, 2
    return quick(r)


def quick(r: Recipe) -> Recipe:
    """Three steps on made-up speech, against critics that are hardly there."""
    stage, rate = r.stages["codec"], r.stages["codec"].spectra.rate
    stage.discriminators = [MultiSTFT.Config((256,), 2), MSD.Config(1, 1 / 64)]
    r.data = {"codec": MadeUpSounds(rate=rate)}
    r.train = {"codec": Train(steps=3, warmup=1, every=2, show_every=2)}
    return r


if __name__ == "__main__":
    main(__file__)
