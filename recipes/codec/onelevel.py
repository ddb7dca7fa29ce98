"""The bundled codec cut to its first level, 500 bits a second, with a decoder that makes the most of it.

    slm train recipes/codec/onelevel.py --out runs/onelevel      # runs/onelevel/codec: one code each 20 ms, the bundled codec's first
    slm tokenizers default@1 runs/onelevel/codec --data data/dev --judges

What a language model of one code a frame says can be heard by itself, with no second stage to be right or wrong about it. The bundled
decoder heard all eight levels while it learned; this one hears the first alone, and beside sharpmel.py's critics a listener asks for the
phones that are said: on 50 recordings in voices it has not heard 26 % of words are lost, with the bundled decoder 37 % (with all eight
levels 9 %, of the recordings 5 %). The codes are the bundled codec's, so that finer levels may follow. 20 minutes on one core.
"""

from pathlib import Path

from slm.recipe import Recipe, load, main
from slm_tokenizers.sharpening import SharpeningMelVQ

sharpmel = load(Path(__file__).parent / "sharpmel.py")


def recipe(codec: str = "default") -> Recipe:
    r = sharpmel.recipe(codec)
    r.stages["sharp"].generator = SharpeningMelVQ.Config(codec, sharp=None, levels=1, phones=0.3)
    r.train["sharp"].steps = 2000
    return r


def small() -> Recipe:
    r = sharpmel.small()
    generator = r.stages["sharp"].generator
    generator.levels, generator.phones = 1, 0.3
    return r


if __name__ == "__main__":
    main(__file__)
