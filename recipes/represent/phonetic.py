"""Units of a network that was taught phones: what it hears, clustered. Supervised semantic tokens, as CosyVoice's (Du et al., 2024).

    slm train recipes/represent/phonetic.py --out runs/phonetic      # runs/phonetic/units, a tokenizer; a minute

The network is the aligner that `slm align` leaves beside the corpora: three convolutions, and 100 clusters of what they tell phones
from. CosyVoice has a recogniser's encoder and a quantiser inside it. Where HuBERT finds out by long training what is said, these are told
it. What they keep of words and voice is in recipes/study/phonetic.py; models that say them are speech_lm/speechgpt.py and makeavoice.py.
"""

from slm.data.madeup import MadeUpSounds
from slm.data.sounds import Sounds
from slm.recipe import Recipe, main
from slm.train.loop import Train
from slm_tokenizers.semantic.units import Units
from slm_tokenizers.text.aligner import Aligner


def recipe(aligner: str = "data/aligner") -> Recipe:
    return of(Units.Config(aligner, card=100), Sounds(seconds=2.0, batch=8), steps=500)


def small() -> Recipe:
    return of(Units.Config(Aligner.Config(bands=20, width=8), card=8), MadeUpSounds(), steps=3)


def of(units: Units.Config, sounds: Sounds | MadeUpSounds, steps: int) -> Recipe:
    return Recipe(stages={"units": units}, data={"units": sounds}, train={"units": Train(steps=steps)})


if __name__ == "__main__":
    main(__file__)
