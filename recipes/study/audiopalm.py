"""AudioPaLM's tasks by tag: does the tag decide, is the speech heard, and does writing down first make a translation better?

    slm align data/train && slm train recipes/represent/phonetic.py --out runs/phonetic
    slm render dialogues data/dialogues --count 945
    slm render pseudo data/pseudo
    slm study recipes/study/audiopalm.py --out runs/study/audiopalm

The recipe of recipes/speech_lm/audiopalm.py. Dialogues in nine of flite's voices, of which two are held out; their sentences are not, so
what is measured is hearing them in other voices. About 5 minutes a seed on one core.
"""

from pathlib import Path

from slm.recipe import Recipe, load
from slm.study.audiopalm import measure
from slm.study.run import Claim, Study
from slm.train.loop import Train

audiopalm = load(Path(__file__).parents[1] / "speech_lm" / "audiopalm.py")

A = "AudioPaLM"
PAIRS = [
    ("writing down first makes a translation better", "asr_ast: letter errors", "ast: letter errors", True),
    ("speech is written down", "asr: letter errors", "asr: letter errors, another's", True),
    ("speech is translated", "ast: letter errors", "ast: letter errors, another's", True),
    ("speech is translated by way of its text", "asr_ast: letter errors", "asr_ast: letter errors, another's", True),
    ("text is translated", "mt: letter errors", "mt: letter errors, another's", True),
    ("a translation is spoken", "s2st: the right sentence", "s2st: the right sentence, by chance", False),
    ("a spoken translation is of what was heard", "asr_ast_s2st: unit errors", "asr_ast_s2st: unit errors, another's", True),
    ("spoken by way of its text it is right more often", "asr_ast_s2st: the right sentence", "s2st: the right sentence", False),
    ("told to write down, it does not translate", "asr: letter errors", "asr: letter errors, as if by the other tag", True),
    ("told to translate, it does not write down", "ast: letter errors", "ast: letter errors, as if by the other tag", True),
]
CLAIMS = [Claim(says, (A, one), (A, other), lower) for says, one, other, lower in PAIRS]


def variant(seed: int, out: Path) -> Recipe:
    r = audiopalm.recipe()
    r.data["lm"].seed = seed
    for translated in r.data["lm"].of.values():
        translated.of.seed = seed
    r.train["lm"] = Train(steps=1200, lr=1e-3, warmup=50, ema=0.99, seed=seed)
    return r


def heard(folder: Path, items: list, seed: int) -> dict:
    return measure(folder, seed, audiopalm.recipe().data["lm"].of["asr"])


def study() -> Study:
    return Study("Tasks by tag", {A: variant}, heard, CLAIMS, of="dialogues in held-out voices")


def small() -> Study:
    return Study("Tasks by tag, small", {A: shrunk}, heard, CLAIMS, of="dialogues in held-out voices")


def shrunk(seed: int, out: Path) -> Recipe:
    return audiopalm.small()
