"""The default voice's second stage and decoder learn on as one, judged by their mels and by what a listener to phones hears in them.

    slm train recipes/codec/sharpvoice.py --out runs/sharp     # after default.py's two stages and recipes/codec/sharpmel.py
    slm speak "Hello." --voice prompt.wav --model runs/sharp
"""

from pathlib import Path

from slm.data.aligned import Aligned
from slm.data.splits import HELD_OUT
from slm.recipe import Recipe, load, main
from slm.stage.sharpening import SharpeningVoice
from slm.train.loop import Train
from slm_tokenizers.text.phonemes import Phonemes
from slm_vocoders.discriminators import MelPatches

sharpmel = load(Path(__file__).parent / "sharpmel.py")


def recipe(model: str = "runs/default", codec: str = "runs/sharpmel/codec") -> Recipe:
    generator = SharpeningVoice.Config(model)
    generator.codec.codec = codec
    return Recipe(
        tokenizers={"text": Phonemes.Config(), "acoustic": codec},
        stages={"sharp": sharpmel.stage(generator, MelPatches.Config())},
        data={"sharp": Aligned(frames=2400, held_out=HELD_OUT, sound=True, rough=0.25, speeds=(1.0, 0.9, 1.1))},
        train={"sharp": Train(steps=3600, lr=5e-4, warmup=100, betas=(0.8, 0.98), ema=0.998, clip=0.0)},
    )


def small() -> Recipe:
    """Made-up sounds: a small voice to go on from is trained in tests alone."""
    return sharpmel.small()


if __name__ == "__main__":
    main(__file__)
