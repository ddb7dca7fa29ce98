"""A spoken question in, a spoken answer out: the task `reply` of a model that hears and speaks (recipes/speech_lm/omni.py, speechgpt.py).

    answer = reply(slm.load("runs/speechgpt"), "question.wav")
    answer.texts, answer.speech.save("answer.wav")

N samples   U units
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

from slm.errors import SlmError
from slm.speak import Speaker, Speech, recording
from slm.ways import Asked

TASK, LONGEST = "reply", 30.0  # seconds of a question


@dataclass
class Reply:
    """texts: what the model wrote before it spoke, by part and in order: the question, if it writes that down, and the answer."""

    texts: dict[str, str]
    speech: Speech


@torch.no_grad()
def reply(speaker: Speaker, question: Any, voice: Any = None, seed: int = 0) -> Reply:
    """question: a path or a Speech. voice: as in `speak`; by default that of the question, where the model takes one.

    SlmError: a model without that task, a question that cannot be heard or is longer than LONGEST, or one that is answered by nothing.
    """
    way, began = speaker.way, time.perf_counter()
    if not isinstance(way, Asked) or TASK not in way.tasks.names:
        raise SlmError(f"{speaker.model.folder} answers no questions: it has no task {TASK!r}")
    audio, rate, name = recording(question, longest=LONGEST)
    prompt = way.hear(audio, rate, name, "") if way.voiced and voice is None else speaker.voice(voice)
    _, asked, *said = way.tasks.parts(TASK)
    done = way.tasks.run({asked.name: [way.heard(audio, rate)]}, [seed], TASK)
    texts = {part.name: speaker.text.decode(done[part.name][0]) for part in said if part.of == "text"}
    sound = way.sound(done[said[-1].name][0], prompt)
    if not len(sound):
        written = "".join(f", {part}: {text!r}" for part, text in texts.items())
        raise SlmError(f"{name} was answered by no sound{written}; try another seed")
    return Reply(texts, Speech(sound, speaker.rate, done["stop"][0], seed, (time.perf_counter() - began) * speaker.rate / len(sound)))
