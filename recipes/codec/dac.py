"""DAC (Kumar et al., 2023) at 16 kHz: 50 frames a second, 12 levels of 1024 in 8 dimensions (6 kbit/s), not causal.

    slm train recipes/codec/dac.py --out runs/dac

Mel 15, adversarial 1, features 2, commitment 0.25 and codebook 1 are the paper's, and so are seven mels down to windows of 32
samples. Departures: whole complex spectra where the paper's critic has bands, features relative to their size.
The published weights, where you have them, need no training: `slm_tokenizers.load(path)`.
"""

from pathlib import Path

from slm.data.sounds import Sounds
from slm.recipe import Recipe, load, main
from slm.stage.adversarial import Adversarial
from slm.train.loop import Train
from slm_tokenizers.dac import khz16
from slm_tokenizers.learning_dac import LearningDAC
from slm_vocoders.discriminators import MPD, MultiSTFT
from slm_vocoders.losses import MultiMel

soundstream = load(Path(__file__).with_name("soundstream.py"))

SPECTRA = MultiMel.Config(16000, (32, 64, 128, 256, 512, 1024, 2048), (5, 10, 20, 40, 80, 160, 320))


def recipe() -> Recipe:
    critics = [MPD.Config(), MultiSTFT.Config((2048, 1024, 512))]
    return Recipe(
        stages={"codec": Adversarial.Config(LearningDAC.Config(khz16()), SPECTRA, stft=0.0, discriminators=critics)},
        data={"codec": Sounds(seconds=0.38, batch=72)},
        train={"codec": Train(steps=400_000, lr=1e-4, betas=(0.8, 0.99), clip=5.0, every=2000, show_every=2000)},
    )


def small() -> Recipe:
    r = recipe()
    codec = r.stages["codec"].generator.codec
    codec.n_q, codec.card, codec.code_dim, codec.encoder_filters, codec.decoder_filters = 2, 16, 4, 2, 16
    return soundstream.quick(r)


if __name__ == "__main__":
    main(__file__)
