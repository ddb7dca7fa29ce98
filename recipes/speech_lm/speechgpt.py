"""SpeechGPT (Zhang et al., 2023): units are words of a text model, learned in three lessons, and an answer is written before it is spoken.

    slm train recipes/represent/phonetic.py --out runs/phonetic        # units, in the place of mHuBERT's thousand
    slm train recipes/speech_lm/textlm.py --out runs/llm               # in LLaMA's place; Llama itself fits too (grown.py)
    slm render dialogues data/dialogues --count 945
    slm train recipes/speech_lm/speechgpt.py --out runs/speechgpt
    slm study recipes/study/speechgpt.py
    slm train recipes/vocoder/units.py --out runs/units_vocoder --set tokenizers.units=runs/phonetic/units \
        --set stages.vocoder.generator.vocoder.pitch=None && cp -r runs/units_vocoder/vocoder runs/speechgpt/
    slm speak "what is six plus six" --voice me.wav --model runs/speechgpt

The lessons: speech of the corpora alone, the paper's modality adaptation; rendered speech beside its text, heard and said, its cross-modal
instructions; and chain of modality, where an answer to spoken words is their text, the answer's text, and the answer's units, one after
the other. Here they are one run over data that changes, and the third keeps a share of the others, where the paper learns a LoRA on top.
A tag in front of a row, and markers that no model can leave out, are in the place of the paper's phrases, "[Human]: … <eoh>".
Units are drawn at a temperature of 0.3 and not of 0.7. The paper reports ratings by people and GPT-4 alone.
"""

from pathlib import Path

from slm.data.lessons import Lessons
from slm.data.mixture import Mixture
from slm.recipe import Recipe, load, main

omni = load(Path(__file__).parent / "omni.py")
grown = load(Path(__file__).parent / "grown.py")

STEPS = (300, 500, 700)  # of each lesson
ALONE, BESIDE = ("on",), ("on", "hear", "say")
CHAIN = [omni.given("asked"), omni.said("asked_text"), omni.said("replied_text"), omni.said("replied")]


def recipe(llm: str | None = "runs/llm", units: str = "runs/phonetic/units", steps: tuple[int, int, int] = STEPS) -> Recipe:
    """llm: None for random weights."""
    return taught(grown.recipe(llm, units) if llm else omni.recipe(units=units), steps)


def taught(r: Recipe, steps: tuple[int, int, int]) -> Recipe:
    """The recipe of omni.py as three lessons, of which any but the last may have no steps."""
    r.stages["omni"].tasks["reply"] = list(CHAIN)
    every = r.data["omni"]
    first = [(count, only(every, tasks)) for count, tasks in zip(steps, (ALONE, BESIDE)) if count]
    r.data["omni"] = Lessons(first, Mixture(every.of, {"reply": 3.0}, every.seed))
    r.train["omni"].steps = sum(steps)
    return r


def only(data: Mixture, tasks: tuple[str, ...]) -> Mixture:
    return Mixture(data.of, {name: float(name in tasks) for name in data.of}, data.seed)


def small() -> Recipe:
    return shrunk((1, 1, 1))


def shrunk(steps: tuple[int, int, int]) -> Recipe:
    return taught(omni.small(), steps)


if __name__ == "__main__":
    main(__file__)
