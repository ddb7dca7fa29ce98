"""A small language model of text alone, byte by byte: what a speech language model may begin with where no larger one is at hand.

    slm train recipes/speech_lm/textlm.py --out runs/llm
    slm train recipes/speech_lm/grown.py --out runs/grown      # then it learns to hear and to speak

PaLM 2's place in AudioPaLM (Rubenstein et al., 2023), LLaMA's in SpeechGPT (Zhang et al., 2023), at the size of recipes/speech_lm/omni.py.
data/texts holds plain text, a sentence a line.
"""

from slm.backbone.transformer import Transformer
from slm.data.lines import Lines, MadeUpLines
from slm.recipe import Recipe, main
from slm.stage.lm import LM
from slm.stream.part import Part
from slm.train.loop import Train
from slm_tokenizers.codec import tiny
from slm_tokenizers.text.bytes import Bytes


def recipe(dim: int = 192, depth: int = 4, heads: int = 4) -> Recipe:
    return Recipe(
        tokenizers={"text": Bytes.Config(), "acoustic": "default"},
        stages={"text": LM.Config([Part("text", end=True)], Transformer.Config(dim, depth, heads))},
        data={"text": Lines()},
        train={"text": Train(steps=1500, lr=1.5e-3, warmup=100, ema=0.99)},
    )


def small() -> Recipe:
    r = recipe(32, 1, 2)
    r.tokenizers["acoustic"], r.data = tiny(2), {"text": MadeUpLines()}
    r.train = {"text": Train(steps=3, warmup=1, every=2)}
    return r


if __name__ == "__main__":
    main(__file__)
