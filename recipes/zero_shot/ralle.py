"""RALL-E (Xin et al., 2024): VALL-E that says to itself how high and how long each phone is, and then looks at no other phone.

    slm train recipes/zero_shot/ralle.py --stage ar      # phones -> pitches -> durations -> first codec level
    slm train recipes/zero_shot/ralle.py --stage nar     # as VALL-E's

The first stage is VALL-E's with a chain of thought: an id for the pitch of each phone, one for its frames, then the codes, as many as
the durations sum to. While a frame of a phone is said, only that phone, its neighbours and what was said of them are in view. The paper
has 256 pitches (here 32, of a scale even in octaves) and durations of up to 32 frames (here 63); it reports 2.5 % word errors where its
VALL-E has 5.6 %, and 4 % instead of 68 % of hard sentences gone wrong. recipes/study/hard.py puts the two side by side.

To speak it must hear when each phone of a voice is said: data/aligner, which `slm align` leaves beside the corpora, goes with the model.
"""

from pathlib import Path

from slm.condition.window import Window
from slm.data.prosody import MadeUpMelody, Melody, PitchBins
from slm.recipe import Recipe, load, main
from slm.stream.part import Part
from slm.stream.sample import Sampling
from slm_tokenizers.text.aligner import Aligner

valle = load(Path(__file__).parent / "valle.py")

PARTS = [Part("text", learn=False), Part("pitch", like="text"), Part("duration", like="text"), Part("acoustic", levels=(0, 1))]


def recipe(dim: int = 1024, depth: int = 12, heads: int = 16, codec: str = "default") -> Recipe:
    r = valle.recipe(dim, depth, heads, codec)
    r.tokenizers |= {"pitch": PitchBins.Config(), "aligner": "data/aligner"}
    r.optional = ("aligner",)
    first = r.stages["ar"]
    first.parts, first.window = list(PARTS), Window.Config()
    first.places |= {"pitch": 1.0, "duration": 1.0}
    first.sampling = {part.name: Sampling(temperature=1.0, top_p=0.9) for part in PARTS if part.learn}
    r.data["ar"].melody = Melody()
    return r


def small() -> Recipe:
    r = valle.shrunk(recipe(dim=32, depth=1, heads=2))
    r.tokenizers["aligner"] = Aligner.Config(bands=20, width=8)
    r.data["ar"].melody = MadeUpMelody()
    return r


if __name__ == "__main__":
    main(__file__)
