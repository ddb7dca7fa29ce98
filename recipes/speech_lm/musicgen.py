"""MusicGen's language model (Copet et al., 2023), said in speech: a step a frame, each codec level one step behind the coarser one.

    slm train recipes/speech_lm/musicgen.py --stage lm        # phones and a voice -> 4 codec levels, until <eos>
    slm study recipes/study/layouts.py                        # delayed levels beside other orders

All levels are told at once, but level q of frame t at step t + q, so that it hears the coarser levels of its frame; what remains
independent are codes of different frames. When the first level ends, the others are told to the last frame. The paper's small size and
decoding: 300 M parameters, the 250 likeliest codes, and guidance of 3 by a condition that a share of the rows learn without. There it is
a description of music that a T5 has read, over EnCodec's 4 levels of 2048 at 50 frames a second; here a voice, over the first 4 levels of
the bundled codec, with the phones in front.
"""

from slm.backbone.transformer import Transformer
from slm.condition.voice import Voice
from slm.data.aligned import Aligned
from slm.data.madeup import MadeUpUtterances
from slm.data.splits import HELD_OUT
from slm.recipe import Recipe, main
from slm.stage.lm import LM
from slm.stream.part import Part
from slm.stream.sample import Sampling
from slm.train.loop import Train
from slm_tokenizers.codec import tiny
from slm_tokenizers.text.phonemes import Phonemes


def recipe(dim: int = 1024, depth: int = 24, heads: int = 16, levels: int = 4) -> Recipe:
    lm = LM.Config(
        [Part("text", learn=False), Part("acoustic", levels=(0, levels), layout="delay", end=True)],
        Transformer.Config(dim, depth, heads, positions="sinusoidal"),
        voice=Voice.Config(dim=dim),
        sampling={"acoustic": Sampling(temperature=1.0, top_k=250, top_p=1.0)},
        cap=20.0,
        guidance=3.0,
        forget=0.3,
    )
    train = Train(steps=1_000_000, lr=1e-4, warmup=4_000, weight_decay=0.1, betas=(0.9, 0.95), ema=0.99, every=5000)
    return Recipe({"text": Phonemes.Config(), "acoustic": "default"}, {"lm": lm}, {"lm": Aligned(held_out=HELD_OUT)}, {"lm": train})


def small() -> Recipe:
    r = recipe(dim=32, depth=1, heads=2, levels=3)
    r.stages["lm"].voice = Voice.Config(latent=8, width=16, dim=32)
    r.tokenizers["acoustic"] = tiny()
    r.data, r.train = {"lm": MadeUpUtterances()}, {"lm": Train(steps=3, warmup=1, every=2)}
    return r


if __name__ == "__main__":
    main(__file__)
