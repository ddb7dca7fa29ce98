"""A word, then the frames in which it is said, then the next word: text and speech in one stream, in step.

    slm align data/train && slm train recipes/speech_lm/spiritlm.py --out runs/spiritlm
    language-model | slm speak - --stream --model runs/spiritlm --voice prompt.wav | aplay -f S16_LE -r 16000

SpiRit-LM (Nguyen et al., 2024) changes between text and HuBERT units at the borders of words, at some of them, and goes on from either.
Here at each of them, with the bundled codec's first level and a voice in place of units, and phones in place of Llama's tokens: the model
of recipes/speech_lm/interleaved.py, which says when a word is over, and so is given the next one only when it asks.
"""

from pathlib import Path

from slm.data.worded import Worded
from slm.recipe import Recipe, load, main
from slm.stream.spans import Spans

interleaved = load(Path(__file__).parent / "interleaved.py")


def recipe(dim: int = 256, depth: int = 6, heads: int = 4, codec: str = "default") -> Recipe:
    return by_word(interleaved.recipe(dim, depth, heads, codec))


def by_word(r: Recipe) -> Recipe:
    r.stages["lm"].spans, r.data["lm"] = Spans(None, None), Worded(r.data["lm"])
    return r


def small() -> Recipe:
    return by_word(interleaved.small())


if __name__ == "__main__":
    main(__file__)
