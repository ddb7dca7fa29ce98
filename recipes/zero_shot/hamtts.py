"""HAM-TTS (Wang et al., 2024): VALL-E that is told how each phone will sound, and that hears slips which it is not to go on with.

    slm train recipes/represent/hubert.py --stage units …      # runs/hubert/units
    slm train recipes/zero_shot/hamtts.py --stage ar           # phones and what is predicted of their sound -> first codec level
    slm train recipes/zero_shot/hamtts.py --stage nar          # as VALL-E's
    slm study recipes/study/hamtts.py                          # what the sequence and the slips are worth

The first stage predicts a latent vector of each phone from the phones (slm/condition/latent.py), taught by units of the speech while it
learns; in a tenth of the rows a segment of what it hears is replaced or repeated (slm/data/augmented.py). The sizes are VALL-E's, for
the paper's models of 0.8 billion parameters learned from 650,000 hours, 500,000 of them made by a voice converter, which is not here.
Expect 3.2 % character errors on AISHELL-1 from that data, not from ours.
"""

from pathlib import Path
from typing import Any

from slm.condition.latent import Latent
from slm.data.augmented import Augmented
from slm.data.beside import Beside
from slm.recipe import Recipe, load, main
from slm_tokenizers.codec import tiny

valle = load(Path(__file__).parent / "valle.py")


def recipe(dim: int = 1024, depth: int = 12, heads: int = 16, codec: str = "default", units: str = "runs/hubert/units") -> Recipe:
    return told(valle.recipe(dim, depth, heads, codec), units, Latent.Config(dim=dim // 4))


def small() -> Recipe:
    return told(valle.small(), tiny(1), Latent.Config(dim=16))


def told(r: Recipe, units: Any, latent: Latent.Config) -> Recipe:
    """VALL-E's recipe with a latent sequence, and slips in what its first stage hears."""
    r.tokenizers["units"] = units
    r.stages["ar"].latent, r.data["ar"] = latent, Augmented(Beside(r.data["ar"]))
    return r


if __name__ == "__main__":
    main(__file__)
