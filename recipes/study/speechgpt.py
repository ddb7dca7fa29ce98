"""SpeechGPT's claims: does hearing speech alone come first for a reason, and is an answer better for being written before it is spoken?

    slm align data/train && slm train recipes/represent/phonetic.py --out runs/phonetic
    slm render dialogues data/dialogues --count 945
    slm study recipes/study/speechgpt.py

recipes/speech_lm/speechgpt.py from random weights (recipes/study/grown.py found no gain from having read, at this size), on 105 questions
and answers in nine of flite's voices, of which two are held out. "direct" learns the same three lessons and speaks its answer at once;
"no speech alone" leaves out the first lesson. A spoken answer is right if of all that are ever said it is nearest to the right one.
What a vocoder makes of such units is in recipes/study/phonetic.py. About 7 minutes a variant and seed on one core.
"""

from functools import partial
from pathlib import Path

from slm.recipe import Recipe, load
from slm.study.run import Claim, Study
from slm.study.talks import measure

speech_lm = Path(__file__).parents[1] / "speech_lm"
omni, speechgpt = load(speech_lm / "omni.py"), load(speech_lm / "speechgpt.py")

UNITS = "runs/phonetic/units"
VARIANTS = CHAIN, DIRECT, BARE = ("SpeechGPT", "direct", "no speech alone")
LESSONS = {CHAIN: speechgpt.STEPS, DIRECT: speechgpt.STEPS, BARE: (0, *speechgpt.STEPS[1:])}
CLAIMS = [
    Claim("units follow their text", (CHAIN, "say: nats"), (CHAIN, "say: nats, another's text"), lower=True),
    Claim("what was said is written down", (CHAIN, "hear: letter errors"), (CHAIN, "hear: letter errors, another's speech"), lower=True),
    Claim("a question gets its own answer", (CHAIN, "reply: answers right"), (CHAIN, "reply: answers right, another's question")),
    Claim("... spoken too", (CHAIN, "reply: spoken right"), (CHAIN, "reply: spoken right, another's question")),
    Claim("spoken by way of its text it is right more often", (CHAIN, "reply: spoken right"), (DIRECT, "reply: spoken right")),
    Claim("the right reply is the likeliest of four", (CHAIN, "reply: right one of four"), (CHAIN, "reply: by chance")),
    Claim("speech goes on better than counted pairs", (CHAIN, "on: nats"), (CHAIN, "on: nats, bigram"), lower=True),
    Claim("... and better for having come first", (CHAIN, "on: nats"), (BARE, "on: nats"), lower=True),
    Claim("units beside their text cost less for it too", (CHAIN, "say: nats"), (BARE, "say: nats"), lower=True),
]


def variant(name: str, seed: int, out: Path) -> Recipe:
    r = changed(speechgpt.recipe(None, UNITS, LESSONS[name]), name)
    seeded(r, seed)
    return r


def changed(r: Recipe, name: str) -> Recipe:
    if name == DIRECT:
        r.stages["omni"].tasks["reply"] = [part for part in speechgpt.CHAIN if not part.name.endswith("text")]
    return r


def seeded(r: Recipe, seed: int) -> None:
    lessons, r.train["omni"].seed = r.data["omni"], seed
    for mixture in (*(data for _, data in lessons.first), lessons.then):
        mixture.seed = seed
        for data in mixture.of.values():
            data.seed = seed


def heard(folder: Path, items: list, seed: int) -> dict:
    return measure(folder, items, seed, omni.recipe().data["omni"].of["reply"], omni.SPEECH)


def study() -> Study:
    return Study("SpeechGPT's chain", {name: partial(variant, name) for name in VARIANTS}, heard, CLAIMS, of="dialogues in held-out voices")


def small() -> Study:
    variants = {name: partial(shrunk, name) for name in VARIANTS}
    return Study("SpeechGPT's chain, small", variants, heard, CLAIMS, of="dialogues in held-out voices")


def shrunk(name: str, seed: int, out: Path) -> Recipe:
    return changed(speechgpt.shrunk(tuple(min(1, steps) for steps in LESSONS[name])), name)
