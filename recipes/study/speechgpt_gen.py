"""SpeechGPT-Gen's first half: are a codec's codes, where its first level was taught what is said, words that a model can hear and say?

    slm train recipes/codec/onelevel.py --out runs/onelevel
    slm render dialogues data/dialogues --count 945
    slm study recipes/study/speechgpt_gen.py

recipes/speech_lm/speechgpt_gen.py from random weights, measured as recipes/study/speechgpt.py measures SpeechGPT: its units are 100 and
were taught phones, these are 1024 and make sound by themselves. About 15 minutes a seed on one core.
"""

from pathlib import Path

from slm.recipe import Recipe, load
from slm.study.run import Claim, Study
from slm.study.talks import measure

gen = load(Path(__file__).parents[1] / "speech_lm" / "speechgpt_gen.py")
speechgpt = load(Path(__file__).with_name("speechgpt.py"), ("study", "small"))

G = "SpeechGPT-Gen"
OWN = [claim for claim in speechgpt.CLAIMS if claim.one[0] == claim.other[0]]  # those that compare it with nothing that is not here
CLAIMS = [Claim(claim.says, (G, claim.one[1]), (G, claim.other[1]), claim.lower) for claim in OWN]


def variant(seed: int, out: Path) -> Recipe:
    r = gen.recipe(None)
    speechgpt.seeded(r, seed)
    return r


def heard(folder: Path, items: list, seed: int) -> dict:
    data = gen.recipe(None).data["omni"].then.of
    return measure(folder, items, seed, data["reply"], data["on"])


def study() -> Study:
    return Study("SpeechGPT-Gen's words", {G: variant}, heard, CLAIMS, of="dialogues in held-out voices")


def small() -> Study:
    return Study("SpeechGPT-Gen's words, small", {G: lambda seed, out: gen.small()}, heard, CLAIMS, of="dialogues in held-out voices")
