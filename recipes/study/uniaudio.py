"""One model that speaks, changes voices and takes noise away: does each task work, and is it the tag that decides which one it is?

    slm align data/train && slm align data/dev && slm train recipes/represent/phonetic.py --out runs/phonetic
    slm study recipes/study/uniaudio.py --out runs/study/uniaudio

The recipe of recipes/speech_lm/uniaudio.py at 4 layers of 192 and a local one, on rows of a second and a half first and of eight in the
end, half of them to be read out. `se` takes away noise, echo and what a telephone cuts off (slm/data/rough.py); `again` is given the same
and repeats it. About 15 minutes a seed on one core.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

from slm.data.aligned import Aligned
from slm.data.beside import Beside
from slm.data.continued import Continued
from slm.data.madeup import MadeUpUtterances
from slm.data.mixture import Mixture
from slm.recipe import Recipe, load
from slm.study.run import Claim, Study
from slm.study.uniaudio import ANOTHER, measure
from slm.train.loop import Train

uniaudio = load(Path(__file__).parents[1] / "speech_lm" / "uniaudio.py")
hard = load(Path(__file__).with_name("hard.py"), ("study", "small"))

U = "UniAudio"
STEPS = 1600
SHARES = {"tts": 3.0}
PAIRS = [
    *((f"{task}: codes follow what is given", f"{task}: nats", f"{task}: nats, another's", True) for task in ANOTHER),
    *((f"{task}: codes cost less by its own tag", f"{task}: nats", f"{task}: nats, another's tag", True) for task in ANOTHER),
    ("a text is read out", "tts: word errors", "tts: word errors, another's text", True),
    ("... in the voice of its prompt", "tts: voice: to the prompt", "tts: voice: to another's", False),
    ("the voice moves to the target", "vc: voice: to the target", "vc: voice: to the target, behind its own prompt", False),
    ("... nearer than the source's recording was", "vc: voice: to the target", "vc: voice: source to target", False),
    ("the voice is the target's rather than the source's", "vc: voice: to the target", "vc: voice: to the source", False),
    ("the source's units are kept", "vc: content: source's units", "vc: content: another's units", True),
    ("what is made clean is nearer to the clean recording", "se's tag: to clean", "noisy to clean", True),
    ("the tag alone decides that it is clean", "se's tag: to clean", "again's tag: to clean", True),
    ("... and that it stays noisy", "again's tag: to noisy", "se's tag: to noisy", True),
]
CLAIMS = [Claim(says, (U, one), (U, other), lower) for says, one, other, lower in PAIRS]


def variant(seed: int, out: Path) -> Recipe:
    r = uniaudio.recipe(192, 4, 1, 4)
    rows = r.data["lm"].of["tts"]
    rows.of.of = replace(rows.of.of, folders=("data/train",), frames=2000, seed=seed)
    r.data["lm"] = hard.lessons(rows.of, STEPS, lambda spoken: mixed(replace(rows, of=spoken), seed))
    r.train["lm"] = Train(steps=STEPS, lr=1.5e-3, warmup=50, ema=0.99, seed=seed)
    return r


def mixed(rows: Beside, seed: int) -> Mixture:
    return Mixture({task: rows for task in uniaudio.TASKS}, dict(SHARES), seed)


def held_out() -> Beside:
    return Beside(Continued(Aligned(("data/train", "data/dev"), rough=1.0)), noisy=uniaudio.LEVELS)


def study() -> Study:
    return Study("Three tasks by tag", {U: variant}, partial(measure, data=held_out()), CLAIMS)


def small() -> Study:
    data = Beside(Continued(MadeUpUtterances(rough=1.0, phones=60, frames=2000)), noisy=uniaudio.LEVELS)
    return Study("Three tasks by tag, small", {U: lambda seed, out: uniaudio.small()}, partial(measure, data=data), CLAIMS)
