"""Text and speech in one model: does each direction work in voices it has not heard, on either backbone, and does text help an answer?

    slm align data/train && slm train recipes/represent/phonetic.py --out runs/phonetic
    slm render dialogues data/dialogues --count 945
    slm study recipes/study/omni.py

The recipe of recipes/speech_lm/omni.py, 105 questions and answers in nine of flite's voices, of which two are held out; "direct" answers
in speech at once, the others by way of the answer's text (SpeechGPT's chain of modality). What is read out or answered in speech is right
if of all sentences that are ever said the right one is nearest to it.
"""

from functools import partial
from pathlib import Path

from slm.backbone.mamba2 import Mamba2
from slm.recipe import Recipe, load
from slm.study.run import Claim, Study
from slm.study.talks import measure

omni = load(Path(__file__).parents[1] / "speech_lm" / "omni.py")

PAIRS = [
    ("what was said is written down", "hear: letter errors", "hear: letter errors, another's speech", True),
    ("text costs less beside its speech", "hear: nats", "hear: nats, another's speech", True),
    ("units cost less beside their text", "say: nats", "say: nats, another's text", True),
    ("a text is read out right", "say: spoken right", "say: spoken right, another's text", False),
    ("speech goes on better than counted pairs", "on: nats", "on: nats, bigram", True),
    ("a question gets its own answer", "reply: answers right", "reply: answers right, another's question", False),
    ("... spoken too", "reply: spoken right", "reply: spoken right, another's question", False),
    ("the right reply is the likeliest of four", "reply: right one of four", "reply: by chance", False),
]
BACKBONES = ("Transformer", "Mamba-2")
CLAIMS = [Claim(f"{name}: {says}", (name, one), (name, other), lower) for name in BACKBONES for says, one, other, lower in PAIRS]
CLAIMS.append(
    Claim(
        "an answer by way of its text is right more often",
        ("Transformer", "reply: right one of four"),
        ("direct", "reply: right one of four"),
    )
)


def variant(name: str, seed: int, out: Path) -> Recipe:
    r = changed(omni.recipe(), name, Mamba2.Config(192, 6, headdim=32, d_state=32))
    r.data["omni"].seed = seed
    for data in r.data["omni"].of.values():
        data.seed = seed
    r.train["omni"].seed = seed
    return r


def changed(r: Recipe, name: str, mamba: Mamba2.Config) -> Recipe:
    stage = r.stages["omni"]
    if name == "Mamba-2":
        stage.backbone, stage.places = mamba, {}
    if name == "direct":
        stage.tasks["reply"] = [part for part in stage.tasks["reply"] if part.name != "replied_text"]
    return r


def heard(folder: Path, items: list, seed: int) -> dict:
    return measure(folder, items, seed, omni.recipe().data["omni"].of["reply"], omni.SPEECH)


def study() -> Study:
    return Study(
        "Text and speech in one model",
        {name: partial(variant, name) for name in (*BACKBONES, "direct")},
        heard,
        CLAIMS,
        of="dialogues in held-out voices",
    )


def small() -> Study:
    variants = {name: partial(shrunk, name) for name in (*BACKBONES, "direct")}
    return Study("Text and speech in one model, small", variants, heard, CLAIMS, of="dialogues in held-out voices")


def shrunk(name: str, seed: int, out: Path) -> Recipe:
    return changed(omni.small(), name, Mamba2.Config(16, 2, headdim=8, d_state=8))
