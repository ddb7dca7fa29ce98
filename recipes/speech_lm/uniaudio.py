"""UniAudio (Yang et al., 2023): text to speech, a voice changed and noise taken away by one model, told by a tag what is wanted.

    slm align data/train && slm train recipes/represent/phonetic.py --out runs/phonetic       # units, in HuBERT's place
    slm train recipes/speech_lm/uniaudio.py --out runs/uniaudio
    slm speak "Hello." --voice me.wav --voice-text "what is said in it" --model runs/uniaudio
    slm study recipes/study/uniaudio.py                       # does each task work, and is it the tag that decides?
    slm study recipes/study/layouts.py                        # the paper's comparison of layouts

A global model takes a step a frame and hears the sum of its codes; a local one says them from coarse to fine, so the likelihood is exact
and a second of speech takes 50 steps instead of 150. The paper's sizes (744 and 238 M parameters) and decoding, on the first 3 levels of
the bundled codec, 1024 codes each at 50 frames a second as in the paper. Three of its eleven tasks, and `again`, which repeats the noisy
codes and is given no more than `se` is: only the tag tells the two apart. Differences: a phone takes a step of one id and is not repeated
to fill a frame; the prompt is no part of its own but how text, units and codes begin, as with VALL-E; and each part counts its places from
0, so that a frame stands where its unit and its noisy frame do. The paper reports 2.0 % word errors and a speaker similarity of 0.71 from
its 165,000 hours; expect neither from the hours at hand.
"""

from slm.backbone.transformer import Transformer
from slm.data.aligned import Aligned
from slm.data.beside import Beside
from slm.data.continued import Continued
from slm.data.madeup import MadeUpUtterances
from slm.data.mixture import Mixture
from slm.data.splits import HELD_OUT
from slm.recipe import Recipe, main
from slm.stage.multiscale import Depth
from slm.stage.tasks import Tasks
from slm.stream.part import Part
from slm.stream.sample import Sampling
from slm.train.loop import Train
from slm_tokenizers.codec import tiny
from slm_tokenizers.text.phonemes import Phonemes

LEVELS = 3
PLACES = {"text": 1.0, "units": 0.2, "noisy": 0.2, "acoustic": 0.2, "again": 0.2}  # about five frames last as long as a phone
NOISY = Part("noisy", (0, LEVELS), "parallel", learn=False, stream="acoustic")
TASKS = {
    "tts": [Part("text", learn=False), Part("acoustic", (0, LEVELS), "parallel", end=True)],
    "vc": [Part("units", learn=False), Part("acoustic", (0, LEVELS), "parallel", like="units")],
    "se": [NOISY, Part("acoustic", (0, LEVELS), "parallel", like="noisy")],
    "again": [NOISY, Part("again", (0, LEVELS), "parallel", like="noisy", stream="acoustic")],
}


def recipe(dim: int = 1536, depth: int = 24, local: int = 8, heads: int = 12, units: str = "runs/phonetic/units") -> Recipe:
    """local: layers of the local model.   units: the folder of a tokenizer of units (recipes/represent)."""
    lm = Tasks.Config(
        dict(TASKS),
        Transformer.Config(dim, depth, heads),
        {name: Sampling(temperature=0.8, top_k=30, top_p=1.0) for name in ("acoustic", "again")},
        cap=20.0,
        places=dict(PLACES),
        depth=Depth.Config(Transformer.Config(dim, local, heads, positions="learned", longest=LEVELS)),
    )
    rows = Beside(Continued(Aligned(held_out=HELD_OUT, rough=1.0)), noisy=LEVELS)
    train = Train(steps=800_000, lr=1e-4, warmup=10_000, every=5000)
    tokenizers = {"text": Phonemes.Config(), "units": units, "acoustic": "default"}
    return Recipe(tokenizers, {"lm": lm}, {"lm": Mixture({task: rows for task in TASKS})}, {"lm": train})


def small() -> Recipe:
    return shrunk(recipe(dim=32, depth=1, local=1, heads=2))


def shrunk(r: Recipe) -> Recipe:
    """The recipe with a small codec and units, made-up speech and three steps."""
    r.tokenizers |= {"units": tiny(1), "acoustic": tiny(LEVELS)}
    rows = Beside(Continued(MadeUpUtterances(rough=1.0), prompt=(8, 16), longest=60), noisy=LEVELS)
    r.data, r.train = {"lm": Mixture({task: rows for task in TASKS})}, {"lm": Train(steps=3, warmup=1, every=2)}
    return r


if __name__ == "__main__":
    main(__file__)
