"""SpeechGPT-Gen (Zhang et al., 2024), its language model: a codec's first level, which was taught what is said, as words of a text model.

    slm train recipes/codec/onelevel.py --out runs/onelevel           # the bundled codec's first level, in SpeechTokenizer's place
    slm train recipes/speech_lm/textlm.py --out runs/llm              # in LLaMA-2's place
    slm render dialogues data/dialogues --count 945
    slm train recipes/speech_lm/speechgpt_gen.py --out runs/speechgpt_gen
    slm reply question.wav --model runs/speechgpt_gen
    slm study recipes/study/speechgpt_gen.py

SpeechGPT's lessons (speechgpt.py) over codes at 50 a second, which keep their repetitions, so that nothing else need tell how long they
last. What they do not tell, voice and detail, the paper leaves to a second model, flow matching from the first level to the sum of the
others; that half is not here, and what is said sounds by the first level alone. The paper reports 2.4 % word errors in zero-shot speech.
"""

from dataclasses import replace
from pathlib import Path

from slm.recipe import Recipe, load, main

speechgpt = load(Path(__file__).parent / "speechgpt.py")

FRAME = 0.2  # of a letter that a code lasts, about


def recipe(llm: str | None = "runs/llm", first: str = "runs/onelevel/codec", steps: tuple[int, int, int] = speechgpt.STEPS) -> Recipe:
    """llm: None for random weights.   first: the folder of a codec of one level."""
    return whole(speechgpt.recipe(llm, first, steps))


def whole(r: Recipe) -> Recipe:
    """The recipe with units that keep their repetitions."""
    stage, lessons = r.stages["omni"], r.data["omni"]
    stage.places = {name: place if name.endswith("text") else FRAME for name, place in stage.places.items()}
    of = {task: replace(data, collapsed=() if task == "on" else False) for task, data in lessons.then.of.items()}
    for mixture in (*(data for _, data in lessons.first), lessons.then):
        mixture.of = of
    return r


def small() -> Recipe:
    r = speechgpt.small()
    for task, data in r.data["omni"].then.of.items():
        data.of.collapsed = () if task == "on" else False
    return r


if __name__ == "__main__":
    main(__file__)
