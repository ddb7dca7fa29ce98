"""VALL-E (Wang et al., 2023): a text and three seconds of a voice in, that voice out, by going on as the voice began.

    slm train recipes/zero_shot/valle.py --stage ar      # phones -> first codec level, one code after another, until <eos>
    slm train recipes/zero_shot/valle.py --stage nar     # phones, the prompt and lower levels -> each further level at once

The prompt is no extra input: its phones stand before those to be said, its codes are the beginning of what is said, and the rows of
training are two utterances of a speaker, one behind the other. When to stop is learned; nothing says where in the text a frame is, and
that costs repeated, skipped and endless speech (recipes/study/hard.py). The paper's sizes and schedule, 60,000 hours of LibriLight and
EnCodec's codes at 75 frames a second; here the corpora are those of recipes/zero_shot/default.py and the codes the bundled codec's at 50.
Text and codes count their places each from 0, as in the paper, but rotary ones, and about five frames last as long as a phone: so what is
due is never far from where it is looked for. Expect 5.9 % word errors on LibriSpeech from the paper's data, not from ours.
"""

from slm.backbone.transformer import Transformer
from slm.data.aligned import Aligned
from slm.data.continued import Continued
from slm.data.madeup import MadeUpUtterances
from slm.data.splits import HELD_OUT
from slm.recipe import Recipe, main
from slm.stage.lm import LM
from slm.stage.nar import NAR
from slm.stream.part import Part
from slm.stream.sample import Sampling
from slm.train.loop import Train
from slm_tokenizers.codec import tiny
from slm_tokenizers.text.phonemes import Phonemes

PARTS = [Part("text", learn=False), Part("acoustic", levels=(0, 1), end=True)]
PHONE = 0.2  # of a phone that a frame lasts, about


def recipe(dim: int = 1024, depth: int = 12, heads: int = 16, codec: str = "default") -> Recipe:
    r = Recipe(tokenizers={"text": Phonemes.Config(), "acoustic": codec})
    r.stages["ar"] = LM.Config(
        list(PARTS),
        Transformer.Config(dim, depth, heads, dropout=0.1),
        sampling={"acoustic": Sampling(temperature=1.0, top_p=1.0)},
        cap=20.0,
        places={"text": 1.0, "acoustic": PHONE},
    )
    told = Transformer.Config(dim, depth, heads, dropout=0.1, causal=False, adaptive=dim, positions="none")
    r.stages["nar"] = NAR.Config(backbone=told)
    r.data = {stage: Continued(Aligned(held_out=HELD_OUT), joined=stage == "ar") for stage in r.stages}
    r.train = {stage: Train(steps=800_000, lr=5e-4, warmup=32_000, cooldown=0.96, every=5000) for stage in r.stages}
    return r


def small() -> Recipe:
    return shrunk(recipe(dim=32, depth=1, heads=2))


def shrunk(r: Recipe) -> Recipe:
    """The recipe with a small codec, made-up speech and three steps a stage."""
    r.tokenizers["acoustic"] = tiny()
    for data in r.data.values():
        data.of, data.prompt, data.longest = MadeUpUtterances(), (8, 16), 60
    r.train = {name: Train(steps=3, warmup=1, every=2) for name in r.stages}
    return r


if __name__ == "__main__":
    main(__file__)
