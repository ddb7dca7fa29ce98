"""Make-A-Voice's second half: do units of one recording, said behind another's prompt, keep their words and take on that voice?

    slm align data/train && slm train recipes/represent/phonetic.py --out runs/phonetic
    slm study recipes/study/makeavoice.py --out runs/study/makeavoice

The stage `codes` of recipes/speech_lm/makeavoice.py at 4 layers of 192, on rows of a second and a half first and of eight in the end, told
units of a network that was taught phones where the paper's are HuBERT's. "To the target" is beside three controls: what the model makes of
the same units behind the source's own prompt, how like the target the source's recording was, and how like the source what was made is.
About 15 minutes a seed on one core.
"""

from dataclasses import replace
from pathlib import Path

from slm.recipe import Recipe, load
from slm.study.makeavoice import measure
from slm.study.run import Claim, Study
from slm.train.loop import Train

makeavoice = load(Path(__file__).parents[1] / "speech_lm" / "makeavoice.py")
hard = load(Path(__file__).with_name("hard.py"), ("study", "small"))

M = "Make-A-Voice"
STEPS = 1200
PAIRS = [
    ("the voice moves to the target", "voice: to the target", "voice: to the target, behind its own prompt", False),
    ("... nearer than the source's recording was", "voice: to the target", "voice: source to target", False),
    ("the voice is the target's rather than the source's", "voice: to the target", "voice: to the source", False),
    ("the source's units are kept", "content: source's units", "content: another's units", True),
    ("codes follow their units", "nats", "nats, another's units", True),
]
CLAIMS = [Claim(says, (M, one), (M, other), lower) for says, one, other, lower in PAIRS]


def variant(seed: int, out: Path) -> Recipe:
    r = makeavoice.recipe(192, 4, 4, units="runs/phonetic/units").alone("codes")
    r.stages["codes"].backbone.dropout = 0.0
    rows = r.data["codes"]
    rows.of.of = replace(rows.of.of, frames=1500, seed=seed)
    r.data["codes"] = hard.lessons(rows.of, STEPS, lambda spoken: replace(rows, of=spoken))
    r.train["codes"] = Train(steps=STEPS, lr=1.5e-3, warmup=50, ema=0.99, seed=seed)
    return r


def study() -> Study:
    return Study("A voice that is changed", {M: variant}, measure, CLAIMS)


def small() -> Study:
    return Study("A voice that is changed, small", {M: lambda seed, out: makeavoice.small().alone("codes")}, measure, CLAIMS)
