"""What a study measures of one model that speaks, changes voices and takes noise away: each task beside its control, and whose tag decides.

Q levels   T frames   U units   L phones   n recordings
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slm.data.beside import Beside
from slm.data.continued import Row, within
from slm.evaluate.codec import log_mel_l1
from slm.stage.tasks import Tasks
from slm.study.figures import Figure, mean
from slm.study.hard import capped, sound, voices_of
from slm.study.heldout import Item
from slm.study.makeavoice import PROMPT, RATE, Clip, behind, compared
from slm.study.spoken import nats, others

LONGEST = 400  # frames of a recording
ANOTHER = {"tts": "vc", "vc": "se", "se": "again", "again": "se"}  # whose tag is put in front to see what it does


@dataclass
class Spoken:
    """One held-out recording: what the tasks are given and say of it, its text and who speaks."""

    row: Row
    text: str
    speaker: str


def measure(folder: Path, items: list[Item], seed: int, data: Beside, count: int = 40) -> dict[str, Figure]:
    """A run with the tasks of recipes/speech_lm/uniaudio.py on `count` held-out recordings that `data` reads -> figures, an item each.

    Voices are changed in recordings that last a second beyond a prompt.

    What was made is compared with recordings that went through the same levels of the codec. Needs slm[evaluate].
    """
    from slm.model import load

    model = load(folder)
    stage, codec = model.stages["lm"], model.tokenizers["acoustic"]
    every = recordings(items, data, model.tokenizers)
    spoken, long = every[:count], [one for one in every if len(one.row["units"]) >= PROMPT + RATE][:count]
    seeds = [seed * 1000 + i for i in range(count)]
    found = costs(stage, [one.row for one in spoken]) | read_out(stage, codec, spoken, seeds[: len(spoken)])
    return found | changed(stage, model.tokenizers, long, seeds[: len(long)]) | cleaned(stage, codec, spoken, seeds[: len(spoken)])


def recordings(items: list[Item], data: Beside, tokenizers: dict[str, Any]) -> list[Spoken]:
    """The items of a second at least that `data` has aligned, cut to LONGEST frames and the levels that are told.

    First one of each speaker, then a second one, and so on.
    """
    rows, known = data.build(tokenizers), {item.id: item for item in items}
    found = []
    for u in (u for u in rows.spoken.batches.items if u.id in known and u.codes.shape[1] >= RATE):
        row = rows.parted(within(rows.spoken.told(u), 0, LONGEST))
        found.append(Spoken(row | {"acoustic": row["acoustic"][: data.noisy]}, known[u.id].text, known[u.id].speaker))
    turn = [sum(other.speaker == one.speaker for other in found[:i]) for i, one in enumerate(found)]
    return [found[i] for i in np.argsort(turn, kind="stable")]


def given_and_said(stage: Tasks, task: str) -> tuple[str, str]:
    given, said = stage.config.tasks[task]
    return given.name, said.name


def costs(stage: Tasks, rows: list[Row]) -> dict[str, Figure]:
    """Nats a code of what each task says, beside what it is given, beside another recording's, and with another task's tag in front."""
    found = {}
    for task, other in ANOTHER.items():
        given, said = given_and_said(stage, task)
        for about, tag, step in (("", task, 0), (", another's", task, 1), (", another's tag", other, 0)):
            pairs = [(row, rows[(i + step) % len(rows)]) for i, row in enumerate(rows)]
            found[f"{task}: nats{about}"] = cost(stage, task, tag, [both(row[said], of[given], given) for row, of in pairs], said, given)
    return found


def both(said: Tensor, given: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """What is said [Q,T] beside what is given, which has as many frames unless it is a text."""
    frames = said.shape[1] if name == "text" else min(said.shape[1], given.shape[-1])
    return said[:, :frames], given if name == "text" else given[..., :frames]


def cost(stage: Tasks, task: str, tag: str, pairs: list[tuple[Tensor, Tensor]], said: str, given: str) -> Figure:
    (number,) = stage.tagged(tag, 1)
    return nats(stage.lm.about(stage.parts(task)), [{"task": number, said: codes, given: source} for codes, source in pairs], said)


@torch.inference_mode()
def run(stage: Tasks, task: str, tag: str, batch: dict, seeds: list[int]) -> list[Tensor]:
    """What a task says with the tag of another in front, or its own [Q,T]."""
    return stage.lm.about(stage.parts(task)).run(batch | {"task": stage.tagged(tag, len(seeds))}, seeds)[given_and_said(stage, task)[1]]


def read_out(stage: Tasks, codec: Any, spoken: list[Spoken], seeds: list[int]) -> dict[str, Figure]:
    """Each text behind the beginning of the recording before it: words that are wrong, and whose voice it is."""
    from slm.evaluate.speaker import SpeakerEncoder
    from slm.evaluate.transcribe import Recogniser
    from slm.evaluate.wer import count_errors

    rows = [{name: one.row[name] for name in ("text", "duration", "acoustic")} for one in spoken]
    prompts = [within(rows[i - 1], 0, PROMPT) for i in range(len(rows))]
    batch = {
        "text": [torch.cat([prompt["text"], row["text"]]) for prompt, row in zip(prompts, rows)],
        "acoustic_begins": [prompt["acoustic"] for prompt in prompts],
    }
    codes = [row[:, prompt["acoustic"].shape[1] :] for row, prompt in zip(run(stage, "tts", "tts", batch, seeds), prompts)]
    sounds, recogniser = [sound(codec, row) for row in codes], Recogniser("base")
    heard = [recogniser.transcribe(audio) for audio in sounds]
    found = {
        "tts: word errors": capped([count_errors(one.text, text) for one, text in zip(spoken, heard)]),
        "tts: word errors, another's text": capped([count_errors(spoken[i - 1].text, text) for i, text in enumerate(heard)]),
    }
    voices = voices_of(sounds, [sound(codec, prompt["acoustic"]) for prompt in prompts], SpeakerEncoder())
    return found | {f"tts: {name}": figure for name, figure in voices.items()}


def changed(stage: Tasks, tokenizers: dict[str, Any], spoken: list[Spoken], seeds: list[int]) -> dict[str, Figure]:
    """The units of a recording behind the beginning of one of another speaker: whose voice is it, and whose units?"""
    clips = [{name: one.row[name] for name in ("units", "acoustic")} for one in spoken]

    def say(prompts: list[Clip]) -> list[Tensor]:
        return [codes[:, PROMPT:] for codes in run(stage, "vc", "vc", behind(clips, prompts), seeds)]

    found = compared(say, clips, others([one.speaker for one in spoken]), tokenizers)
    return {f"vc: {name}": figure for name, figure in found.items()}


def cleaned(stage: Tasks, codec: Any, spoken: list[Spoken], seeds: list[int]) -> dict[str, Figure]:
    """Log-mel L1 from what the tasks `se` and `again`, given the same, say to the clean recording and to the noisy one."""
    clean, noisy = ([sound(codec, one.row[name]) for one in spoken] for name in ("acoustic", "noisy"))
    batch = {"noisy": [one.row["noisy"] for one in spoken]}
    found = {"noisy to clean": apart(noisy, clean, codec.rate)}
    for tag in ("se", "again"):
        made = [sound(codec, codes) for codes in run(stage, "se", tag, batch, seeds)]
        found[f"{tag}'s tag: to clean"] = apart(made, clean, codec.rate)
        found[f"{tag}'s tag: to noisy"] = apart(made, noisy, codec.rate)
    return found


def apart(ones: list[np.ndarray], wanted: list[np.ndarray], rate: int) -> Figure:
    return mean(np.array([log_mel_l1(torch.from_numpy(a), torch.from_numpy(b), rate) for a, b in zip(ones, wanted)]))
