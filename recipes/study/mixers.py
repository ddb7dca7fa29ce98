"""Does speech need a state space? Gated convolution, SSD and attention at equal size, where a task is short or long, causal or not.

    slm study recipes/study/mixers.py --out runs/study/mixers

MambaOut (Yu & Wang, 2024) calls a task long where its length L exceeds 6 D, and expects a state space to be of use where a task is
long and causal, of none where it is short and not causal. On codes of the bundled codec, D = 128, about 0.8 M parameters each:

    short    100 frames (2 s), all of them heard: a woman or a man?             L / (6 D) = 0.13
    long     1,500 frames (30 s), all of them heard: which phone?               L / (6 D) = 1.95
    causal   3,000 frames (60 s), the past alone: the next unit                 L / (6 D) = 3.91

Where all is heard SSD runs in both directions, with half the layers each. A claim that does not hold is a result too.
"""

from functools import partial
from pathlib import Path

from slm.backbone.bidirectional import Bidirectional
from slm.backbone.gated_conv import GatedConv
from slm.backbone.mamba2 import Mamba2
from slm.backbone.transformer import Transformer
from slm.codes import load_tokenizer
from slm.data.splits import HELD_OUT
from slm.data.tagged import MadeUpTagged, Tagged
from slm.recipe import Recipe
from slm.stage.tagging import Tagger
from slm.study.mixers import measure, tagging
from slm.study.run import Claim, Study
from slm.train.loop import Train

TASKS = {"short": ("sex", 100, 32, 2), "long": ("phones", 1500, 2, 40), "causal": ("next", 3000, 1, 1024)}  # frames, batch, labels

CLAIMS = [
    Claim(f"{task}: {one} loses less than {other}", (one, f"{task}: nats"), (other, f"{task}: nats"), lower=True)
    for task in TASKS
    for one, other in (("SSD", "gated convolution"), ("SSD", "attention"), ("attention", "gated convolution"))
]


def backbone(name: str, causal: bool, dim: int, depth: int):
    if name == "attention":
        return Transformer.Config(dim, max(1, depth * 2 // 3), 4, causal=causal)
    if name == "gated convolution":
        return GatedConv.Config(dim, depth, causal=causal)
    ssd = partial(Mamba2.Config, dim, headdim=dim // 2, d_state=dim)
    return ssd(depth=depth) if causal else Bidirectional.Config(ssd(depth=depth // 2))


def variant(name: str, seed: int, out: Path, dim: int = 128, depth: int = 6, steps: int = 300, shrink: int = 1) -> Recipe:
    recipe = Recipe(tokenizers={"acoustic": "default"})
    for task, (kind, frames, batch, labels) in TASKS.items():
        levels = 1 if kind == "next" else 8
        recipe.stages[task] = Tagger.Config(
            backbone(name, kind == "next", dim, depth), labels, levels, pooled=kind == "sex", causal=kind == "next", dropout=0.1
        )
        recipe.data[task] = Tagged(kind, frames // shrink, batch, levels, held_out=HELD_OUT, seed=seed)
        recipe.train[task] = Train(steps=steps, lr=1e-3, warmup=30, ema=0.0, seed=seed)
    return recipe


def heard(folder: Path, items: list, seed: int, shrink: int = 1) -> dict:
    codec, found = load_tokenizer("default"), {}
    for task, (kind, frames, _, _) in TASKS.items():
        data = Tagged(kind, frames // shrink, levels=1 if kind == "next" else 8)
        found |= measure(folder / task, tagging(data, codec, items), task)
    return found


def study() -> Study:
    names = ("attention", "SSD", "gated convolution")
    return Study("Mixers on codes of speech", {name: partial(variant, name) for name in names}, heard, CLAIMS)


def small() -> Study:
    names = ("attention", "SSD", "gated convolution")
    return Study("Mixers, small", {name: partial(tiny, name) for name in names}, partial(heard, shrink=50), CLAIMS)


def tiny(name: str, seed: int, out: Path) -> Recipe:
    recipe = variant(name, seed, out, dim=16, depth=2, steps=2, shrink=50)
    recipe.data = {task: MadeUpTagged(data) for task, data in recipe.data.items()}
    return recipe
