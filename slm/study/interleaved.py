"""What a study measures of speech that begins before its text is known: nats a frame, words gone wrong, and how much text it waits for.

L phones   T frames   P prompt frames   E latent width   n items
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slm.data.aligned import Aligned
from slm.data.replacing import write_json
from slm.data.utterances import Utterance
from slm.errors import SlmError
from slm.evaluate.wer import Errors, count_errors
from slm.stage.interleaved import Interleaved
from slm.study.figures import Figure, mean, ratio
from slm.study.hard import capped, sound, sounding
from slm.study.heldout import Item, following

LONGEST = 400  # frames of what is said
PROMPT = 150  # frames of a voice
ROWS = 16  # said at a time


def measure(
    folder: Path, items: list[Item], seed: int, corpus: str = "data/dev", count: int = 60, codec: str | None = None
) -> dict[str, Figure]:
    """folder: a run with the stage lm -> its figures on `count` of the items that `corpus` has aligned, an item a recording.

    codec: the folder of one that makes sound of the first level alone; None: the model's own.
    FOLDER/interleaved.json tells of each what was heard. SlmError if none of the items is aligned.
    """
    from slm.model import load

    model, texts = load(folder), {item.id: item.text for item in items}
    own, lm = model.tokenizers["acoustic"], model.stages["lm"]
    every = [u for u in Aligned().read(Path(corpus), own, model.tokenizers["text"]) if u.id in texts and u.codes.shape[1] <= LONGEST]
    if not every:
        raise SlmError(f"none of the held-out recordings is aligned in {corpus}; run slm align {corpus}")
    voices = prompts(every, own.codebooks.embed)
    chosen = sorted(np.random.default_rng(0).permutation(len(every))[:count].tolist())  # the same of every run
    rows, voices = [every[i] for i in chosen], [voices[i] for i in chosen]
    said = [one for start in range(0, len(rows), ROWS) for one in say(lm, rows, voices, seed, range(start, min(start + ROWS, len(rows))))]
    wanted, words = [texts[u.id] for u in rows], heard(sounding(own, codec), said)
    errors, others = ([count_errors(wanted[i - step], text) for i, text in enumerate(words)] for step in (0, 1))
    write_json(folder / "interleaved.json", list(map(told, rows, wanted, words, said, errors)))
    known, length = np.array([[waited(lm, u.text, voice), len(u.text)] for u, voice in zip(rows, voices)], float).T
    return {
        "nats a frame": nats(lm, rows, voices),
        "word errors": capped(errors),
        "word errors, another's text": capped(others),
        "phones known": mean(known),
        "share known": ratio(known, length),
        "endless": mean(np.array([one["stop"] != "end" for one in said], float)),
        "length": ratio(np.array([one["codes"].shape[1] for one in said]), np.array([u.codes.shape[1] for u in rows])),
    }


def prompts(spoken: list[Utterance], embed: Tensor) -> list[Tensor]:
    """The voice of each: the beginning of the speaker's next recording, its own where there is no other -> latents [P,E]."""
    who = [u.speaker for u in spoken]
    others = [following(len(who), i, lambda j, own=own: who[j] == own) for i, own in enumerate(who)]
    return [sum(embed[q][level[:PROMPT]] for q, level in enumerate(spoken[i].codes)) for i in others]


@torch.inference_mode()
def nats(lm: Interleaved, rows: list[Utterance], voices: list[Tensor]) -> Figure:
    """What the first level and its end cost, and with it what is said of where the text goes on, over frames."""
    costs = []
    for u, voice in zip(rows, voices):
        batch = {"text": [u.text], "acoustic": [u.codes[:1]], "duration": [u.duration], "prompt": [voice]}
        costs.append(float(lm.loss(batch)["acoustic"]) * sum(int(cells.sum()) for cells in lm.told(batch).choices.values()))
    return ratio(np.array(costs), np.array([u.codes.shape[1] for u in rows]))


def say(lm: Interleaved, rows: list[Utterance], voices: list[Tensor], seed: int, which: range) -> list[dict[str, Any]]:
    """The phones of some of the rows -> codes [1,T] and the stop reason of each."""
    batch = {"text": [rows[i].text for i in which], "prompt": [voices[i] for i in which]}
    done = lm.run(batch, [seed * len(rows) + i for i in which])
    return [{"codes": codes, "stop": stop} for codes, stop in zip(done["acoustic"], done["stop"])]


def heard(codec: Any, said: list[dict[str, Any]]) -> list[str]:
    """What a recogniser makes of each."""
    from slm.evaluate.transcribe import Recogniser

    recogniser = Recogniser("base")
    return [recogniser.transcribe(sound(codec, one["codes"])) for one in said]


def told(u: Utterance, text: str, words: str, one: dict[str, Any], errors: Errors) -> dict[str, Any]:
    """What is written down of a recording, beside what was to be said."""
    counts = {"errors": errors.total, "words": errors.words, "stop": one["stop"], "frames": one["codes"].shape[1]}
    return {"id": u.id, "text": text, "heard": words} | counts


def waited(lm: Interleaved, text: Tensor, voice: Tensor) -> int:
    """How many of its phones [L] must be known before the first frame is said, fed one by one."""
    feeding = lm.speak(0, voice)
    for known, phone in enumerate(text.split(1), 1):
        if next(feeding.feed(phone), None) is not None:
            return known
    return len(text)
