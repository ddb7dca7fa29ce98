"""BASE TTS (Łajszczak et al., 2024), its language model: phones and a voice in, byte-pair merged units out.

    slm align data/train && slm train recipes/represent/phonetic.py --out runs/phonetic     # units; or speechcodes.py's, the paper's codes
    slm train recipes/speech_lm/merges.py --out runs/units                  # their merges: runs/units/merged
    slm train recipes/speech_lm/basetts.py
    slm study recipes/study/basetts.py                                      # what merging costs and saves

The largest of the paper's sizes, 32 layers of 1536 (980 million parameters); the others are recipe(768, 16, 12) and recipe(1024, 30, 16). A
merged id stands for one to many units of 20 ms, so the model takes fewer steps for the same seconds, and no time is lost in parting
them again. Differences: the text is phones, given and not learned (the paper adds 0.01 of its loss), and the voice is heard from the
bundled codec's latents. What is said sounds through a decoder of units, which is not here. Expect 6.5 % word errors from the paper's
100,000 hours, not from ours.
"""

from slm.backbone.transformer import Transformer
from slm.condition.voice import Voice
from slm.data.aligned import Aligned
from slm.data.madeup import MadeUpUtterances
from slm.data.splits import HELD_OUT
from slm.data.texts import Texts
from slm.recipe import Recipe, main
from slm.stage.lm import LM
from slm.stream.part import Part
from slm.stream.sample import Sampling
from slm.train.loop import Train
from slm_tokenizers.codec import tiny
from slm_tokenizers.semantic.merged_units import MergedUnits
from slm_tokenizers.text.phonemes import Phonemes

PARTS = [Part("text", learn=False), Part("units", end=True)]


def recipe(dim: int = 1536, depth: int = 32, heads: int = 24, units: str = "runs/units/merged") -> Recipe:
    lm = LM.Config(
        list(PARTS),
        Transformer.Config(dim, depth, heads, positions="learned", longest=2000, dropout=0.1),
        voice=Voice.Config(dim=dim),
        sampling={"units": Sampling(temperature=0.8, top_p=0.95)},
        cap=20.0,
    )
    return Recipe(
        tokenizers={"text": Phonemes.Config(), "units": units, "acoustic": "default"},
        stages={"lm": lm},
        data={"lm": Texts(Aligned(held_out=HELD_OUT))},
        train={"lm": Train(steps=500_000, lr=3e-4, warmup=5000)},
    )


def small() -> Recipe:
    r = recipe(32, 1, 2)
    twice = [(unit, unit) for unit in range(16)]
    r.tokenizers |= {"units": MergedUnits.Config(tiny(1), card=32, merges=twice), "acoustic": tiny()}
    r.stages["lm"].voice = Voice.Config(latent=8, width=16, dim=32)
    r.data, r.train = {"lm": Texts(MadeUpUtterances())}, {"lm": Train(steps=3, warmup=1, every=2)}
    return r


if __name__ == "__main__":
    main(__file__)
