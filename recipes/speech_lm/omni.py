"""A model that hears and speaks, text and speech in one stream: what is known of GPT-4o's voice, with SpeechGPT and AudioPaLM as witnesses.

    slm render dialogues data/dialogues --count 945
    slm train recipes/speech_lm/omni.py --out runs/omni
    slm study recipes/study/omni.py                       # does each direction work, in voices it has not heard?

Four tasks by tag over one vocabulary of bytes and of the bundled codec's first level, which was taught what is said: speech to text, text
to speech, speech that goes on, and a spoken answer to a spoken question by way of its text. Nothing of GPT-4o's inside is published;
SpeechGPT (Zhang et al., 2023) trains a LLaMA on such streams, AudioPaLM (Rubenstein et al., 2023) a PaLM 2. With Mamba-2:
--set "stages.omni.backbone=Mamba2.Config(dim=192, depth=6)"
"""

from slm.backbone.transformer import Transformer
from slm.data.mixture import Mixture
from slm.data.talks import MadeUpTalks, Talks
from slm.recipe import Recipe, main
from slm.stage.tasks import Tasks
from slm.stream.part import Part
from slm.stream.sample import Sampling
from slm.train.loop import Train
from slm_tokenizers.codec import tiny
from slm_tokenizers.text.bytes import Bytes

HELD_OUT = ("rms-0.9", "awb-1.1")  # voices


def given(name: str) -> Part:
    return Part(name, learn=False, stream="text" if name.endswith("text") else "semantic")


def said(name: str) -> Part:
    return Part(name, end=True, stream="text" if name.endswith("text") else "semantic")


TASKS = {
    "hear": [given("asked"), said("asked_text")],
    "say": [given("asked_text"), said("asked")],
    "on": [said("asked")],
    "reply": [given("asked"), said("replied_text"), said("replied")],
}


def recipe(dim: int = 192, depth: int = 4, heads: int = 4, codec: str = "default", units: str | None = None) -> Recipe:
    """units: the folder of a tokenizer whose units take the place of the codec's first level (recipes/represent); a vocoder makes sound."""
    text = {name: Sampling(temperature=0.0) for name in ("asked_text", "replied_text")}
    talks = {task: Talks(held_out=HELD_OUT, swap=task != "reply", codec="semantic" if units else "acoustic") for task in TASKS}
    return Recipe(
        tokenizers={"text": Bytes.Config(), "acoustic": codec} | ({"semantic": units} if units else {}),
        stages={"omni": Tasks.Config(dict(TASKS), Transformer.Config(dim, depth, heads, dropout=0.2), text)},
        data={"omni": Mixture(talks)},
        train={"omni": Train(steps=800, lr=1e-3, warmup=50, ema=0.99)},
    )


def small() -> Recipe:
    r = recipe(32, 1, 2)
    r.tokenizers["acoustic"] = tiny(2)
    r.data = {"omni": Mixture({task: MadeUpTalks(data) for task, data in r.data["omni"].of.items()})}
    r.train = {"omni": Train(steps=3, warmup=1, every=2)}
    return r


if __name__ == "__main__":
    main(__file__)
