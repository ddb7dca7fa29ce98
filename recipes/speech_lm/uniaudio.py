"""UniAudio (Yang et al., 2023), its first task, text to speech: a global model takes a step a frame, a local one says the frame's codes.

    slm train recipes/speech_lm/uniaudio.py --stage lm        # phones -> 3 codec levels, until <eos>
    slm study recipes/study/layouts.py                        # the paper's comparison of layouts

The global model hears the sum of a frame's codes; the local one says them from coarse to fine, so the likelihood is exact and a second
of speech takes 50 steps instead of 150. The paper's sizes (744 and 238 M parameters) and decoding, on the first 3 levels of the bundled
codec, 1024 codes each at 50 frames a second as in the paper. Differences: a phone takes a step of one id and is not repeated to fill a
frame, and the voice is heard as one vector of a prompt rather than as the prompt's codes. The paper reports 2.0 % word errors and a
speaker similarity of 0.71 from its 165,000 hours of eleven tasks; expect neither from the hours at hand.
"""

from slm.backbone.transformer import Transformer
from slm.condition.voice import Voice
from slm.data.aligned import Aligned
from slm.data.madeup import MadeUpUtterances
from slm.data.splits import HELD_OUT
from slm.recipe import Recipe, main
from slm.stage.lm import LM
from slm.stage.multiscale import Depth
from slm.stream.part import Part
from slm.stream.sample import Sampling
from slm.train.loop import Train
from slm_tokenizers.codec import tiny
from slm_tokenizers.text.phonemes import Phonemes


def recipe(dim: int = 1536, depth: int = 24, local: int = 8, heads: int = 12) -> Recipe:
    lm = LM.Config(
        [Part("text", learn=False), Part("acoustic", levels=(0, 3), layout="parallel", end=True)],
        Transformer.Config(dim, depth, heads, positions="learned", longest=3000),
        depth=Depth.Config(Transformer.Config(dim, local, heads, positions="learned", longest=3)),
        voice=Voice.Config(dim=dim),
        sampling={"acoustic": Sampling(temperature=0.8, top_k=30, top_p=1.0)},
        cap=20.0,
    )
    train = Train(steps=800_000, lr=1e-4, warmup=10_000, every=5000)
    return Recipe({"text": Phonemes.Config(), "acoustic": "default"}, {"lm": lm}, {"lm": Aligned(held_out=HELD_OUT)}, {"lm": train})


def small() -> Recipe:
    r = recipe(dim=32, depth=1, local=1, heads=2)
    r.stages["lm"].voice = Voice.Config(latent=8, width=16, dim=32)
    r.tokenizers["acoustic"] = tiny()
    r.data, r.train = {"lm": MadeUpUtterances()}, {"lm": Train(steps=3, warmup=1, every=2)}
    return r


if __name__ == "__main__":
    main(__file__)
