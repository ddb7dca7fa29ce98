"""AudioPaLM (Rubenstein et al., 2023) at toy size: one model writes down, translates text and translates speech, as its tag says.

    slm align data/train && slm train recipes/represent/phonetic.py --out runs/phonetic        # units that were taught what is said
    slm render dialogues data/dialogues --count 945
    slm render pseudo data/pseudo
    slm train recipes/speech_lm/audiopalm.py --out runs/audiopalm
    slm study recipes/study/audiopalm.py

The tasks: "asr" speech to its text, "mt" text to its translation, "ast" speech to its translation at once, "asr_ast" both, one after the
other in one answer, which is how the paper combines tasks (30.5 against 26.9 BLEU), "s2st" speech to translated speech, and
"asr_ast_s2st" all three. The other language is made by rule (slm/data/pseudo.py), so every translation is known, and flite speaks it.
Speech is units, none twice; a vocoder makes sound of them (recipes/vocoder/units.py). Differences: 192 numbers wide and from scratch, where
the paper goes on from PaLM 2 with 8 billion (18.4 against 6.9 BLEU; recipes/speech_lm/grown.py is that); a tag is an id, not words; and a
translation is spoken in one voice, not in that of a prompt.
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
SPOKEN = Part("asked_spoken", end=True, stream="semantic")
PLACES = {"asked_text": 1.0, "asked_pseudo": 1.0, "asked": 0.4, "asked_spoken": 0.4}  # a unit lasts as long as 0.4 letters, about
TASKS = {
    "asr": [HEARD, WRITTEN],
    "mt": [READ, TRANSLATED],
    "ast": [HEARD, TRANSLATED],
    "asr_ast": [HEARD, WRITTEN, TRANSLATED],
    "s2st": [HEARD, SPOKEN],
    "asr_ast_s2st": [HEARD, WRITTEN, TRANSLATED, SPOKEN],
}


def recipe(dim: int = 192, depth: int = 4, heads: int = 4, units: str = "runs/phonetic/units") -> Recipe:
    """units: the folder of a tokenizer of units (recipes/represent)."""
    sampling = {name: Sampling(temperature=0.0) for name in ("asked_text", "asked_pseudo")}
    talks = {task: Translated(Talks(held_out=HELD_OUT, swap=True, codec="semantic"), "data/pseudo") for task in TASKS}
    return Recipe(
        tokenizers={"text": Bytes.Config(), "acoustic": "default", "semantic": units},
        stages={"lm": Tasks.Config(dict(TASKS), Transformer.Config(dim, depth, heads, dropout=0.2), sampling, 4.0, dict(PLACES))},
        data={"lm": Mixture(talks)},
        train={"lm": Train(steps=1200, lr=1e-3, warmup=50, ema=0.99)},
    )


def small() -> Recipe:
    r = recipe(32, 1, 2)
    r.tokenizers |= {"acoustic": tiny(2), "semantic": tiny(1)}
    r.data = {"lm": Mixture({task: Translated(MadeUpTalks(data.of), data.speech) for task, data in r.data["lm"].of.items()})}
    r.train = {"lm": Train(steps=3, warmup=1, every=2)}
    return r


if __name__ == "__main__":
    main(__file__)
