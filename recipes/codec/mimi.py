"""Mimi (Défossez et al., 2024, Moshi): causal, 24 kHz, 12.5 frames a second, a semantic level beside 7 acoustic ones (1.1 kbit/s).

    slm align data/train && slm train recipes/codec/mimi.py --out runs/mimi

Critics and features alone, as in the paper's final model: no distance between spectra (`--set stages.codec.mel=15.0` adds one). The
teacher is the phone in the middle of each frame where the paper has WavLM's features. Phones are labelled each 20 ms, so a crop of
4 s (12 in the paper) has 200 labels and 50 frames. The published weights need no training: `slm_tokenizers.load(path)`.
"""

from pathlib import Path

from slm.data.sounds import Sounds
from slm.recipe import Recipe, load, main
from slm.stage.adversarial import Adversarial
from slm.train.loop import Train
from slm_tokenizers.learning_mimi import LearningMimi
from slm_tokenizers.mimi import Mimi
from slm_vocoders.discriminators import MultiSTFT

soundstream = load(Path(__file__).with_name("soundstream.py"))


def recipe() -> Recipe:
    stage = Adversarial.Config(
        LearningMimi.Config(Mimi.Config(n_q=8)),
        soundstream.SPECTRA,
        mel=0.0,
        stft=0.0,
        adversarial=4.0,
        feature=4.0,
        discriminators=[MultiSTFT.Config()],
    )
    return Recipe(
        stages={"codec": stage},
        data={"codec": Sounds(rate=24000, hop=480, seconds=4.0)},
        train={"codec": Train(steps=1_000_000, lr=8e-4, warmup=1000, betas=(0.5, 0.9), clip=5.0, ema=0.99, every=2000, show_every=2000)},
    )


def small() -> Recipe:
    r = recipe()
    codec = r.stages["codec"].generator.codec
    codec.n_q, codec.card, codec.code_dim, codec.dim, codec.n_filters, codec.ratios = 2, 16, 4, 8, 2, (8, 5, 4)
    codec.depth, codec.heads, codec.mlp, codec.window = 1, 2, 16, 20
    return soundstream.quick(r)


if __name__ == "__main__":
    main(__file__)
