"""A model that hears and speaks, text and speech in one stream: what is known of GPT-4o's voice, with SpeechGPT and AudioPaLM as witnesses.

    slm align data/train && slm train recipes/represent/phonetic.py --out runs/phonetic        # units that were taught what is said
    slm render dialogues data/dialogues --count 945
    slm train recipes/speech_lm/omni.py --out runs/omni
    slm study recipes/study/omni.py                       # does each direction work, in voices it has not heard?

Four tasks by tag over one vocabulary of bytes and of units: speech to text, text to speech, speech that goes on, and a spoken answer to a
spoken question by way of its text. Nothing of GPT-4o's inside is published; SpeechGPT (Zhang et al., 2023) trains a LLaMA on such streams,
AudioPaLM (Rubenstein et al., 2023) a PaLM 2. How its units are heard is said in speechgpt.py. With Mamba-2, which needs no places:
--set "stages.omni.backbone=Mamba2.Config(dim=192, depth=6)" --set "stages.omni.places={}"
"""

from dataclasses import replace

from slm.backbone.transformer import Transformer
from slm.data.mixture import Mixture
from slm.data.splits import HELD_OUT as SPEAKERS
from slm.data.spoken import MadeUpSpoken, Spoken
from slm.data.talks import MadeUpTalks, Talks
from slm.recipe import Recipe, main
from slm.stage.tasks import Tasks
from slm.stream.part import Part
from slm.stream.sample import Sampling
from slm.train.loop import Train
from slm_tokenizers.codec import tiny
from slm_tokenizers.text.bytes import Bytes

HELD_OUT = ("rms-0.9", "awb-1.1")  # voices
PLACES = {"asked_text": 1.0, "replied_text": 1.0, "asked": 0.4, "replied": 0.4, "semantic": 0.4}  # a unit lasts 0.4 letters, about
SPEECH = Spoken(("semantic",), seconds=8, batch=8, folders=("data/train", "data/synthetic"), held_out=SPEAKERS, collapsed=("semantic",))


def given(name: str) -> Part:
    return Part(name, learn=False, stream="text" if name.endswith("text") else "semantic")


def said(name: str) -> Part:
    return Part(name, end=True, stream="text" if name.endswith("text") else "semantic")


TASKS = {
    "hear": [given("asked"), said("asked_text")],
    "say": [given("asked_text"), said("asked")],
    "on": [Part("semantic", end=True)],
    "reply": [given("asked"), said("replied_text"), said("replied")],
}


def recipe(dim: int = 192, depth: int = 4, heads: int = 4, units: str = "runs/phonetic/units") -> Recipe:
    """units: the folder of a tokenizer of units (recipes/represent)."""
    sampling = {name: Sampling(temperature=0.0 if name.endswith("text") else 0.3) for name in PLACES}
    talks = {task: Talks(held_out=HELD_OUT, swap=task != "reply", codec="semantic") for task in TASKS}
    return Recipe(
        tokenizers={"text": Bytes.Config(), "acoustic": "default", "semantic": units},
        stages={"omni": Tasks.Config(dict(TASKS), Transformer.Config(dim, depth, heads, dropout=0.2), sampling, places=dict(PLACES))},
        data={"omni": Mixture(talks | {"on": replace(SPEECH)})},
        train={"omni": Train(steps=1200, lr=1e-3, warmup=50, ema=0.99)},
    )


def small() -> Recipe:
    r = recipe(32, 1, 2)
    r.tokenizers |= {"acoustic": tiny(2), "semantic": tiny(1)}
    made_up = {task: MadeUpSpoken(data) if task == "on" else MadeUpTalks(data) for task, data in r.data["omni"].of.items()}
    r.data, r.train = {"omni": Mixture(made_up)}, {"omni": Train(steps=3, warmup=1, every=2)}
    return r


if __name__ == "__main__":
    main(__file__)
