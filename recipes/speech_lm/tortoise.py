"""Tortoise (Betker, 2023), its first half: a text is said several times, and the reading that fits it best is kept.

    slm train recipes/speech_lm/tortoise.py --stage ar          # text and a voice -> codes, until <eos>
    slm train recipes/speech_lm/tortoise.py --stage rerank      # CLVP: which codes belong to this text?
    slm study recipes/study/tortoise.py

`slm.stage.best.best` draws n readings by the first stage and ranks them by the second. The paper's sizes and sampling: 30 layers of 1024,
CLVP of twice 20 layers of 768, and 16 to 256 readings. Differences: phones instead of 255 byte pairs; the codes are the bundled codec's
first level, 50 a second where the paper has 21.5, so its penalty of what was said before, made for codes that hardly come again, is
weaker than it would have it (a second back, not the whole reading); text and codes count their places apart as in the paper, but rotary
ones; the text is given and not learned; and the second half, a diffusion decoder and UnivNet, is the codec's decoder here. The author
reports listening alone, no figures.
"""

from slm.backbone.transformer import Transformer
from slm.condition.voice import Voice
from slm.data.aligned import Aligned
from slm.data.madeup import MadeUpUtterances
from slm.data.splits import HELD_OUT
from slm.recipe import Recipe, main
from slm.stage.lm import LM
from slm.stage.rerank import Rerank
from slm.stream.part import Part
from slm.stream.sample import Sampling
from slm.train.loop import Train
from slm_tokenizers.codec import tiny
from slm_tokenizers.text.phonemes import Phonemes

PARTS = [Part("text", learn=False), Part("semantic", end=True)]
SAMPLING = Sampling(temperature=0.8, top_p=0.8, repetition=2.0, repetition_window=50)


def recipe(dim: int = 1024, depth: int = 30, heads: int = 16, ranks: tuple[int, int, int] = (768, 20, 12)) -> Recipe:
    lm = LM.Config(
        list(PARTS),
        Transformer.Config(dim, depth, heads, dropout=0.1),
        voice=Voice.Config(dim=dim),
        places={"text": 1.0, "semantic": 0.2},
        sampling={"semantic": SAMPLING},
        cap=20.0,
    )
    ranker = Rerank.Config(dim=ranks[0], backbone=Transformer.Config(*ranks, causal=False))
    data = Aligned(held_out=HELD_OUT)
    return Recipe(
        tokenizers={"text": Phonemes.Config(), "acoustic": "default"},
        stages={"ar": lm, "rerank": ranker},
        data={"ar": data, "rerank": data},
        train={stage: Train(steps=200_000, lr=1e-4, warmup=2000) for stage in ("ar", "rerank")},
    )


def small() -> Recipe:
    r = recipe(32, 1, 2, ranks=(16, 1, 2))
    r.tokenizers["acoustic"] = tiny()
    r.stages["ar"].voice = Voice.Config(latent=8, width=16, dim=32)
    r.data = {stage: MadeUpUtterances() for stage in r.stages}
    r.train = {stage: Train(steps=3, warmup=1, every=2) for stage in r.stages}
    return r


if __name__ == "__main__":
    main(__file__)
