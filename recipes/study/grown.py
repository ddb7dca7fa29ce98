"""Does a model hear and speak better if it has read before?

    slm align data/train && slm train recipes/represent/phonetic.py --out runs/phonetic
    slm render dialogues data/dialogues --count 945
    slm study recipes/study/grown.py

AudioPaLM's first ablation (Rubenstein et al., 2023) at a size that takes minutes on one core: recipes/speech_lm/omni.py, begun with a
text model that has read data/texts for 1,000 steps (recipes/speech_lm/textlm.py), beside the same from random weights for as many steps
of speech.
"""

from functools import partial
from pathlib import Path

from slm.recipe import Recipe, load
from slm.study.run import Claim, Study
from slm.train.loop import Train

speech_lm = Path(__file__).parents[1] / "speech_lm"
textlm = load(speech_lm / "textlm.py")
omni = load(Path(__file__).with_name("omni.py"), ("study", "small"))

VARIANTS = ("has read", "has not")
FIGURES = {"hear: letter errors": True, "hear: nats": True, "say: nats": True, "reply: right one of four": False}
CLAIMS = [
    *(Claim(f"{name}: better for having read", ("has read", name), ("has not", name), lower) for name, lower in FIGURES.items()),
    Claim(
        "what was said is written down", ("has read", "hear: letter errors"), ("has read", "hear: letter errors, another's speech"), True
    ),
]


def variant(name: str, seed: int, out: Path) -> Recipe:
    r = joined(name, out, omni.variant("Transformer", seed, out), textlm.recipe())
    if "text" in r.train:
        r.train["text"] = Train(steps=1000, lr=1.5e-3, warmup=100, ema=0.99, seed=seed)
    return r


def joined(name: str, out: Path, r: Recipe, reading: Recipe) -> Recipe:
    """The recipe behind that of a text model, if it is to have read."""
    if name == "has read":
        r.stages, r.data, r.train = reading.stages | r.stages, reading.data | r.data, reading.train | r.train
        r.train["omni"].start = str(out)
    return r


def study() -> Study:
    variants = {name: partial(variant, name) for name in VARIANTS}
    return Study("Reading before hearing", variants, omni.heard, CLAIMS, of="dialogues in held-out voices")


def small() -> Study:
    variants = {name: partial(shrunk, name) for name in VARIANTS}
    return Study("Reading before hearing, small", variants, omni.heard, CLAIMS, of="dialogues in held-out voices")


def shrunk(name: str, seed: int, out: Path) -> Recipe:
    return joined(name, out, omni.shrunk("Transformer", seed, out), textlm.small())
