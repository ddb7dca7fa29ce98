"""In which order should a language model tell the codes of a codec? UniAudio's comparison (Yang et al., 2023, table 8), in nats.

    slm study recipes/study/layouts.py --out runs/study/layouts

The same text, durations and codes (3 levels of the bundled codec, 50 frames a second), the same batches and updates, and about 1.8 M
parameters each:

    flat           one code a step, 3 steps a frame                                       exact
    multiscale     a step a frame; a small model says its codes one after another         exact
    coarse_first   one code a step, a level after the other                               exact
    delay          a step a frame, level q told q steps late                              independent within a step
    parallel       a step a frame                                                         independent within a step

Nats a frame are those of all levels together, on recordings of speakers that were not heard in training. Where codes of a step are taken
as independent they are an upper bound of what the same network could do with the order within the step. The paper ranks flat, multiscale,
then coarse_first and delay, then parallel. What is said with a recording's durations is also decoded and compared with the recording.
"""

from functools import partial
from pathlib import Path

from slm.backbone.transformer import Transformer
from slm.condition.guide import Guide
from slm.data.aligned import Aligned
from slm.data.madeup import MadeUpUtterances
from slm.data.short import Short
from slm.data.splits import HELD_OUT
from slm.recipe import Recipe
from slm.stage.lm import LM
from slm.stage.multiscale import Depth
from slm.stream.part import Part
from slm.stream.sample import Sampling
from slm.study.layouts import measure
from slm.study.run import Claim, Study
from slm.train.loop import Train
from slm_tokenizers.codec import tiny
from slm_tokenizers.text.phonemes import Phonemes

LEVELS = 3
VARIANTS = ("flat", "multiscale", "coarse_first", "delay", "parallel")
PAIRS = (("flat", "delay"), ("multiscale", "delay"), ("delay", "parallel"), ("flat", "coarse_first"), ("coarse_first", "parallel"))

CLAIMS = [Claim(f"{a} takes fewer nats than {b}", (a, "nats a frame"), (b, "nats a frame"), lower=True) for a, b in PAIRS]


def variant(name: str, seed: int, out: Path, dim: int = 128, depth: int = 4, steps: int = 500) -> Recipe:
    deep = Depth.Config(Transformer.Config(dim, 1, 4)) if name == "multiscale" else None
    codes = Part("acoustic", (0, LEVELS), "parallel" if deep else name)
    return Recipe(
        tokenizers={"text": Phonemes.Config(), "acoustic": "default"},
        stages={
            "lm": LM.Config(
                [Part("text", learn=False), Part("duration", learn=False), codes],
                Transformer.Config(dim, depth - 1 if deep else depth, 4),
                Guide.Config(),
                sampling={"acoustic": Sampling(temperature=0.8)},
                depth=deep,
            )
        },
        data={"lm": Short(Aligned(("data/train",), held_out=HELD_OUT), seed=seed)},
        train={"lm": Train(steps=steps, lr=2e-3, warmup=50, ema=0.0, seed=seed)},
    )


def study() -> Study:
    return Study("Layouts of codes", {name: partial(variant, name) for name in VARIANTS}, measure, CLAIMS)


def small() -> Study:
    return Study("Layouts of codes, small", {name: partial(shrunk, name) for name in VARIANTS}, measure, CLAIMS)


def shrunk(name: str, seed: int, out: Path) -> Recipe:
    recipe = variant(name, seed, out, dim=16, depth=2, steps=2)
    recipe.tokenizers["acoustic"] = tiny()
    recipe.data = {"lm": Short(MadeUpUtterances(), longest=40, frames=200, seed=seed)}
    return recipe
