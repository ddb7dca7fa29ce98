"""The default voice: a text and three seconds of a voice in, that voice out.

    slm train recipes/zero_shot/default.py --stage semantic      # phones -> durations -> first codec level
    slm train recipes/zero_shot/default.py --stage acoustic      # first level + prompt -> how it sounds
    slm speak "Hello." --voice prompt.wav --model runs/default

VALL-E's two stages (Wang et al., 2023) with RALL-E's idea (Xin et al., 2024): the model says durations first and every later step knows
its phone, so nothing can be skipped, repeated or go on for ever. The finer levels are not drawn but said at once, as the vectors they sum
to, with the prompt's codes in view; recipes/codec/sharpvoice.py then teaches that stage and the decoder to make mels that are not blurred.
On codes of recipes/codec/taughtmel.py.
More speech is another folder:  --set "data.semantic.folders=('data/train','data/synthetic','data/mine')"
With Mamba-2 instead of a Transformer:  --set "stages.semantic.backbone=Mamba2.Config(dim=192, depth=8)"
"""

from slm.backbone.transformer import Transformer
from slm.condition.guide import Guide
from slm.condition.voice import Voice
from slm.data.aligned import Aligned
from slm.data.madeup import MadeUpUtterances
from slm.data.splits import HELD_OUT
from slm.recipe import Recipe, main
from slm.stage.direct import Direct
from slm.stage.lm import LM
from slm.stream.part import Part
from slm.stream.sample import Sampling
from slm.train.loop import Train
from slm_tokenizers.codec import tiny
from slm_tokenizers.text.phonemes import Phonemes

PARTS = [Part("text", learn=False), Part("duration"), Part("semantic")]
SAMPLING = {"duration": Sampling(temperature=1.0, top_p=1.0, mean=True), "semantic": Sampling(temperature=0.4, top_p=0.8)}


def recipe(dim: int = 192, depth: int = 6, heads: int = 3, codec: str = "runs/taughtmel/codec") -> Recipe:
    dropout = 0.15  # on five hours the first stage else learns the corpus by heart, and is too sure of what it says
    return Recipe(
        tokenizers={"text": Phonemes.Config(), "acoustic": codec},
        stages={
            "semantic": LM.Config(
                PARTS,
                Transformer.Config(dim, depth, heads, dropout=dropout),
                Guide.Config(dropout=dropout),
                Voice.Config(dim=dim, dropout=dropout),
                SAMPLING,
                tell=("semantic",),
                pace=1.1,
                confuse=0.2,
            ),
            "acoustic": Direct.Config(
                backbone=Transformer.Config(dim, depth, heads, causal=False, adaptive=64),
                voice=Voice.Config(dim=dim),
                confuse=0.15,
                trust=0.5,
            ),
        },
        data={
            "semantic": Aligned(held_out=HELD_OUT, rough=0.25, speeds=(1.0, 0.9, 1.1)),
            "acoustic": Aligned(held_out=HELD_OUT),
        },
        train={"semantic": Train(steps=5000, lr=1.5e-3, ema=0.998), "acoustic": Train(steps=1200, lr=1.5e-3, ema=0.998)},
    )


def small() -> Recipe:
    codec = tiny()
    r = recipe(dim=32, depth=1, heads=2)
    r.tokenizers["acoustic"] = codec
    for stage in r.stages.values():
        stage.voice = Voice.Config(latent=8, width=16, dim=32)
    r.data = {name: MadeUpUtterances() for name in r.stages}
    r.train = {name: Train(steps=3, warmup=1, every=2) for name in r.stages}
    return r


if __name__ == "__main__":
    main(__file__)
