"""recipes/codec/sharpmel.py goes on, beside what a voice says in place of the codes: means, which are smoother.

    slm train recipes/codec/toldmel.py --out runs/sharpmel --resume     # after sharpmel.py, and runs/voice, a voice on its codes

As recipes/codec/refined.py does it for the spectral codec. The critics go on, too, and every code stays what it was.
"""

from pathlib import Path

from slm.data.aligned import Aligned
from slm.data.splits import HELD_OUT
from slm.data.told import Told
from slm.recipe import Recipe, load, main
from slm_tokenizers.text.phonemes import Phonemes

sharpmel = load(Path(__file__).parent / "sharpmel.py")


def recipe(voice: str = "runs/voice") -> Recipe:
    r = sharpmel.recipe()
    r.tokenizers["text"] = Phonemes.Config()
    r.data["sharp"] = Told(Aligned(longest=100_000, held_out=HELD_OUT), voice, seconds=0.96, batch=16)
    r.train["sharp"].steps += 1500
    return r


def small() -> Recipe:
    """Made-up sounds: a small voice to be told by is trained in tests alone."""
    return sharpmel.small()


if __name__ == "__main__":
    main(__file__)
