"""HiFi-GAN V3 on 80 mel bands (Kong et al., 2020), at 22.05 kHz.

    slm train recipes/vocoder/hifigan.py --out runs/hifigan
    python -c "import slm_vocoders; vocoder = slm_vocoders.load('runs/hifigan/vocoder')"

The paper: LSGAN + 2 feature matching + 45 mel, AdamW 2e-4, 2.5 M steps of 16 x 8192 samples. The mel distance here is
taken at several resolutions. V1 and V2: `--set` cannot change a shape in one word; replace `v3()` below.
"""

from slm.data.madeup import MadeUpSounds
from slm.data.sounds import Sounds
from slm.recipe import Recipe, main
from slm.stage.adversarial import Adversarial
from slm.train.loop import Train
from slm_vocoders.discriminators import MPD, MSD
from slm_vocoders.hifigan import HiFiGAN
from slm_vocoders.learning import LearningVocoder
from slm_vocoders.losses import MultiMel


def recipe() -> Recipe:
    return Recipe(
        stages={
            "vocoder": Adversarial.Config(
                LearningVocoder.Config(HiFiGAN.Config.v3()),
                MultiMel.Config(22050),
                mel=45.0,
                stft=0.0,
                discriminators=[MPD.Config(), MSD.Config()],
            )
        },
        data={"vocoder": Sounds(rate=22050, hop=256, seconds=8192 / 22050)},
        train={"vocoder": Train(steps=500_000, lr=2e-4, betas=(0.8, 0.99), clip=0.0, ema=0.0, every=5000, show_every=5000)},
    )


def small() -> Recipe:
    r = recipe()
    stage = r.stages["vocoder"]
    stage.generator.vocoder.channels = 16
    stage.discriminators = [MPD.Config((2, 3), scale=1 / 64), MSD.Config(1, scale=1 / 32)]
    r.data = {"vocoder": MadeUpSounds(rate=22050, hop=256, batch=2, seconds=8192 / 22050)}
    r.train = {"vocoder": Train(steps=3, warmup=1, every=2)}
    return r


if __name__ == "__main__":
    main(__file__)
