"""Lyth & King (2024), released as Parler-TTS: a text is said as a description in words asks, "slowly, in a low voice, with no noise".

    slm align data/train && slm align data/synthetic
    slm train recipes/speech_lm/parler.py --stage lm        # phones, a description -> 9 codec levels in the paper, here 8, until <eos>
    slm study recipes/study/parler.py                       # does what is said follow its description?

The text stands in front, each layer looks at the description, and the codes are told all levels at once, each one step behind the coarser
one. Nobody labels anything: rate, pitch, its variability and noise are measured (slm/data/attributes.py), and templates make words of them
where the paper has a language model write. The paper's sizes and schedule, and rotary positions, which its code has too. Text and codes
count them each from 0, so that what is due is never far from where it is looked for. Differences: phones instead of letters, the bundled
codec's levels at 50 frames a second instead of DAC's 9 at 86, a small reader of bytes that learns along, with a loss of its own for what
descriptions mean, instead of a T5, which knows words that no description had, no accent and no reverberation, and the hours at hand
instead of 45,000. The paper reports that 94 % of what is said has the sex asked for, and 68 % the accent.
"""

from slm.backbone.transformer import Transformer
from slm.condition.description import Description
from slm.data.aligned import Aligned
from slm.data.attributes import NAMES
from slm.data.described import Described
from slm.data.madeup import MadeUpUtterances
from slm.data.splits import HELD_OUT
from slm.recipe import Recipe, main
from slm.stage.lm import LM
from slm.stream.part import Part
from slm.stream.sample import Sampling
from slm.train.loop import Train
from slm_tokenizers.codec import tiny
from slm_tokenizers.text.bytes import Bytes
from slm_tokenizers.text.phonemes import Phonemes


def recipe(dim: int = 1024, depth: int = 24, heads: int = 16, levels: int = 8, reading: int = 4) -> Recipe:
    """levels: how many of the codec are told; reading: layers that read a description."""
    lm = LM.Config(
        [Part("text", learn=False), Part("acoustic", levels=(0, levels), layout="delay", end=True)],
        Transformer.Config(dim, depth, heads, form="gpt2", memory=dim),
        places={"text": 1.0, "acoustic": 0.2},  # about five frames last as long as a phone
        sampling={"acoustic": Sampling(temperature=1.0, top_p=1.0)},
        cap=20.0,
        description=Description.Config(reader=Transformer.Config(dim, reading, heads, causal=False), attributes=len(NAMES)),
    )
    return Recipe(
        {"text": Phonemes.Config(), "acoustic": "default", "description": Bytes.Config()},
        {"lm": lm},
        {"lm": Described(Aligned(held_out=HELD_OUT), levels)},
        {"lm": Train(steps=1_000_000, lr=9.5e-4, warmup=20_000, cooldown=0.0, betas=(0.9, 0.99), every=5000)},
    )


def small() -> Recipe:
    return shrunk(recipe(dim=32, depth=1, heads=2, levels=3, reading=1))


def shrunk(r: Recipe) -> Recipe:
    """The recipe with a small codec, made-up speech and three steps."""
    r.tokenizers["acoustic"] = tiny()
    data = r.data["lm"]
    data.of, data.longest, data.bins, data.cache = MadeUpUtterances(), 60, None, None
    r.train = {"lm": Train(steps=3, warmup=1, every=2)}
    return r


if __name__ == "__main__":
    main(__file__)
