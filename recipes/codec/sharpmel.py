"""recipes/codec/taughtmel.py with a decoder whose mels are not blurred: adversarial, on mels alone; every code stays what it was.

    slm train recipes/codec/sharpmel.py --out runs/sharpmel      # after recipes/codec/taughtmel.py
    slm tokenizers runs/taughtmel/codec runs/sharpmel/codec --data data/dev --judges

runs/sharpmel/codec may take the place of the codec it came from, also in a voice that was trained on its codes. Sharper
mels cost nothing but the training: half an hour on one core (figures in MEASURED.md).
"""

from slm.data.madeup import MadeUpSounds
from slm.data.sounds import Sounds
from slm.data.splits import HELD_OUT
from slm.recipe import Recipe, main
from slm.stage.adversarial import Adversarial
from slm.train.loop import Train
from slm_tokenizers.melvq import MelVQ, Sharp
from slm_tokenizers.sharpening import SharpeningMelVQ
from slm_vocoders.discriminators import MelPatches
from slm_vocoders.losses import Plain


def recipe(codec: str = "runs/taughtmel/codec") -> Recipe:
    return Recipe(
        tokenizers={"acoustic": codec},
        stages={"sharp": stage(SharpeningMelVQ.Config(codec), MelPatches.Config())},
        data={"sharp": Sounds(seconds=0.96, batch=16, held_out=HELD_OUT, codec="acoustic")},
        train={"sharp": Train(steps=3000, lr=5e-4, warmup=100, betas=(0.8, 0.98), ema=0.998, clip=0.0)},
    )


def stage(generator: SharpeningMelVQ.Config, critic: MelPatches.Config) -> Adversarial.Config:
    """Of what moves the mel two fifths are its distance, two fifths the critics' features, the rest their scores (EnCodec's balancer)."""
    return Adversarial.Config(
        generator, Plain.Config(), mel=1.0, stft=0.0, adversarial=0.5, feature=1.0, discriminators=[critic], balance=True
    )


def small() -> Recipe:
    codec = MelVQ.Config(n_q=2, card=16, dim=8, width=16, residuals=1)
    return Recipe(
        tokenizers={"acoustic": codec},
        stages={"sharp": stage(SharpeningMelVQ.Config(codec, Sharp.Config(16, 1)), MelPatches.Config(channels=2))},
        data={"sharp": MadeUpSounds(codec="acoustic")},
        train={"sharp": Train(steps=3, warmup=1, every=2)},
    )


if __name__ == "__main__":
    main(__file__)
