"""Our own codec: a spectral SoundStream with a taught first level, 16 kHz, 50 frames a second, 8 levels of 1024 (4 kbit/s).

    slm train recipes/codec/spectral.py --out runs/codec

Residual VQ: SoundStream (Zeghidour et al., 2021). Taught first level: SpeechTokenizer (Zhang et al., 2023).
ConvNeXt and iSTFT: Vocos (Siuzdak, 2023). Without discriminators;
`--set stages.codec.begin=3000` lets them play from there. About 0.65 s a step on one CPU core with bf16 matrix units.
"""

from slm.data.madeup import MadeUpSounds
from slm.data.sounds import Sounds
from slm.recipe import Recipe, main
from slm.stage.adversarial import Adversarial
from slm.train.loop import Train
from slm_tokenizers.codec import tiny
from slm_tokenizers.taught import TaughtCodec
from slm_vocoders.losses import MultiMel

SPECTRA = MultiMel.Config(16000, (256, 512, 1024, 2048), (20, 40, 80, 160), floor=1e-4)


def recipe() -> Recipe:
    return Recipe(
        stages={"codec": Adversarial.Config(TaughtCodec.Config(), SPECTRA, stft=0.0, begin=-1)},
        data={"codec": Sounds()},
        train={"codec": Train(steps=4000, lr=5e-4, warmup=100, betas=(0.8, 0.98), ema=0.995, clip=5.0, cooldown=0.2, show_every=500)},
    )


def small() -> Recipe:
    codec = tiny(2)
    return Recipe(
        stages={"codec": Adversarial.Config(TaughtCodec.Config(codec), SPECTRA, stft=0.0, begin=-1)},
        data={"codec": MadeUpSounds()},
        train={"codec": Train(steps=3, warmup=1, every=2, show_every=2)},
    )


if __name__ == "__main__":
    main(__file__)
