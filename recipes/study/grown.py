"""Does a model hear and speak better if it has read before?

    slm render dialogues data/dialogues --count 945
    slm study recipes/study/grown.py

AudioPaLM's first ablation (Rubenstein et al., 2023) at a size that takes minutes on one core: recipes/speech_lm/omni.py, begun with a
text model that has read data/texts for 1,000 steps (recipes/speech_lm/textlm.py), beside the same from random weights for as many steps
of speech.
"""

from functools import partial
from pathlib import Path

from slm.data.mixture import Mixture
from slm.recipe import Recipe, load
from slm.study.run import Claim, Study
from slm.study.talks import measure
from slm.train.loop import Train

speech_lm = Path(__file__).parents[1] / "speech_lm"
omni, textlm = load(speech_lm / "omni.py"), load(speech_lm / "textlm.py")

VARIANTS = ("has read", "has not")
FIGURES = {"hear: letter errors": True, "hear: nats": True, "say: nats": True, "reply: right one of four": False}
CLAIMS = [
    *(Claim(f"{name}: better for having read", ("has read", name), ("has not", name), lower) for name, lower in FIGURES.items()),
    Claim(
        "what was said is written down", ("has read", "hear: letter errors"), ("has read", "hear: letter errors, another's speech"), True
    ),
]


def variant(name: str, seed: int, out: Path) -> Recipe:
    r = joined(name, seed, out, omni.recipe(), textlm.recipe())
    r.train["omni"] = Train(steps=800, lr=1e-3, warmup=50, ema=0.99, seed=seed, start=r.train["omni"].start)
    if "text" in r.train:
        r.train["text"] = Train(steps=1000, lr=1.5e-3, warmup=100, ema=0.99, seed=seed)
    return r


def joined(name: str, seed: int, out: Path, r: Recipe, reading: Recipe) -> Recipe:
    """The recipe behind that of a text model, if it is to have read."""
    mixture: Mixture = r.data["omni"]
    mixture.seed = seed
    if name == "has read":
        r.stages, r.data, r.train = reading.stages | r.stages, reading.data | r.data, reading.train | r.train
        r.train["omni"].start = str(out)
    return r


def heard(folder: Path, items: list, seed: int) -> dict:
    return measure(folder, seed, omni.recipe().data["omni"].of["reply"])


def study() -> Study:
    variants = {name: partial(variant, name) for name in VARIANTS}
    return Study("Reading before hearing", variants, heard, CLAIMS, of="dialogues in held-out voices")


def small() -> Study:
    variants = {name: partial(shrunk, name) for name in VARIANTS}
    return Study("Reading before hearing, small", variants, heard, CLAIMS, of="dialogues in held-out voices")


def shrunk(name: str, seed: int, out: Path) -> Recipe:
    return joined(name, seed, out, omni.small(), textlm.small())
