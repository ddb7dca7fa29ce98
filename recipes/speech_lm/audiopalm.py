"""AudioPaLM (Rubenstein et al., 2023) at toy size: one model writes down, translates text and translates speech, as its tag says.

    slm render dialogues data/dialogues --count 945
    slm train recipes/speech_lm/audiopalm.py
    slm study recipes/study/audiopalm.py

The tasks: "asr" speech to its text, "mt" text to its translation, "ast" speech to its translation at once, and "asr_ast" both, one after
the other in one answer, which is how the paper combines tasks (30.5 against 26.9 BLEU). The other language is made by rule
(slm/data/pseudo.py), so every translation is known. Speech is the bundled codec's first level, no code twice. Differences: 192 numbers
wide and from scratch, where the paper goes on from PaLM 2 with 8 billion (18.4 against 6.9 BLEU); a tag is an id, not words; and no task
answers in speech, as nobody speaks the other language.
"""

from slm.backbone.transformer import Transformer
from slm.data.mixture import Mixture
from slm.data.pseudo import Translated
from slm.data.talks import MadeUpTalks, Talks
from slm.recipe import Recipe, main
from slm.stage.tasks import Tasks
from slm.stream.part import Part
from slm.stream.sample import Sampling
from slm.train.loop import Train
from slm_tokenizers.codec import tiny
from slm_tokenizers.text.bytes import Bytes

HELD_OUT = ("rms-0.9", "awb-1.1")  # voices
HEARD, READ = Part("asked", learn=False, stream="semantic"), Part("asked_text", learn=False, stream="text")
WRITTEN, TRANSLATED = Part("asked_text", end=True, stream="text"), Part("asked_pseudo", end=True, stream="text")
TASKS = {"asr": [HEARD, WRITTEN], "mt": [READ, TRANSLATED], "ast": [HEARD, TRANSLATED], "asr_ast": [HEARD, WRITTEN, TRANSLATED]}


def recipe(dim: int = 192, depth: int = 4, heads: int = 4, codec: str = "default") -> Recipe:
    sampling = {name: Sampling(temperature=0.0) for name in ("asked_text", "asked_pseudo")}
    talks = {task: Translated(Talks(held_out=HELD_OUT, swap=True)) for task in TASKS}
    return Recipe(
        tokenizers={"text": Bytes.Config(), "acoustic": codec},
        stages={"lm": Tasks.Config(dict(TASKS), Transformer.Config(dim, depth, heads, dropout=0.2), sampling, cap=4.0)},
        data={"lm": Mixture(talks)},
        train={"lm": Train(steps=800, lr=1e-3, warmup=50, ema=0.99)},
    )


def small() -> Recipe:
    r = recipe(32, 1, 2)
    r.tokenizers["acoustic"] = tiny(2)
    r.data = {"lm": Mixture({task: Translated(MadeUpTalks(data.of)) for task, data in r.data["lm"].of.items()})}
    r.train = {"lm": Train(steps=3, warmup=1, every=2)}
    return r


if __name__ == "__main__":
    main(__file__)
