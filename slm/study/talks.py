"""What a study measures of a model that hears and speaks: every direction, in voices that no training heard, beside its control.

L bytes   U units   n dialogues
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slm.data.spoken import Spoken, told
from slm.data.talks import Talk, Talks, read
from slm.stage.tasks import Tasks
from slm.study.figures import Figure, mean, ratio
from slm.study.heldout import Item, following
from slm.study.spoken import Bigram, counted, share, unit_errors

CHOICES = 4


def measure(folder: Path, items: list[Item], seed: int, data: Talks, speech: Spoken, asked: int = 105) -> dict[str, Figure]:
    """folder: a run with the stage omni -> figures, an item a dialogue in a held-out voice (`asked` of them).

    items: recordings whose beginnings go on, as long as those of `speech`, from which the task `on` was learned.
    """
    from slm.model import load

    model = load(folder)
    stage, voices = model.stages["omni"], read(data, model.tokenizers)
    talks = [talk for voice in data.held_out for talk in voices[voice]][:asked]
    known = [talk for voice, own in voices.items() if voice not in data.held_out for talk in own]
    others = [different(talks, i) for i in range(len(talks))]
    found = {
        "hear: nats": cost(stage, "hear", talks),
        "hear: nats, another's speech": cost(stage, "hear", mixed(talks, others, "asked")),
        "say: nats": cost(stage, "say", talks),
        "say: nats, another's text": cost(stage, "say", mixed(talks, others, "asked_text")),
        "reply: right one of four": chosen(stage, talks, seed),
        "reply: by chance": mean(np.full(len(talks), 1 / CHOICES)),
    }
    found |= gone_on(stage, items, speech, model.tokenizers)
    found |= heard(stage, talks, others) | read_out(stage, talks, others, talks + known)
    return found | answered(stage, talks, others, talks + known)


def gone_on(stage: Tasks, items: list[Item], speech: Spoken, tokenizers: dict[str, Any]) -> dict[str, Figure]:
    """Nats a unit of the beginning of each item, and of pairs counted in what was learned from."""
    units = tokenizers["semantic"]
    longest, collapsed = int(speech.seconds * units.rate), "semantic" in speech.collapsed
    with torch.inference_mode():
        said = [told(units.encode(item.audio[None, :, :longest])[0], collapsed) for item in items]
    learned = [told(clip["semantic"], collapsed) for corpus in speech.folders for clip in speech.read(Path(corpus), tokenizers)]
    pairs = Bigram(learned, stage.lm.streams["semantic"].card, 1)
    return {"on: nats": cost(stage, "on", [{"semantic": row} for row in said]), "on: nats, bigram": counted(pairs, said)}


def different(talks: list[Talk], i: int) -> int:
    """The next dialogue, in a circle, with another question and another answer."""
    texts = ("asked_text", "replied_text")
    return following(len(talks), i, lambda j: all(not torch.equal(talks[i][n], talks[j][n]) for n in texts))


def mixed(talks: list[Talk], others: list[int], name: str) -> list[Talk]:
    """The same dialogues with another's `name`."""
    return [talk | {name: talks[j][name]} for talk, j in zip(talks, others)]


@torch.inference_mode()
def cost(stage: Tasks, task: str, talks: list[Talk]) -> Figure:
    """Nats an id of what a task says, all its parts, each dialogue alone."""
    losses, counts = zip(*(surprise(stage, task, talk) for talk in talks))
    return ratio(np.array(losses), np.array(counts))


def surprise(stage: Tasks, task: str, talk: Talk) -> tuple[float, int]:
    parts = [part.name for part in stage.config.tasks[task]]
    batch = {name: [talk[name]] for name in parts} | {"task": stage.tagged(task, 1)}
    counts = {name: len(talk[name]) + 1 for name in parts}  # <eos> too
    nats = {name.partition(".")[2]: float(loss) for name, loss in stage.loss(batch).items()}
    return sum(loss * counts[name] for name, loss in nats.items()), sum(counts[name] for name in nats)


@torch.inference_mode()
def chosen(stage: Tasks, talks: list[Talk], seed: int) -> Figure:
    """Of four replies in the same voice, is the right one the likeliest?"""
    draw, right = np.random.default_rng(seed), []
    said = [part.name for part in stage.config.tasks["reply"] if part.learn]
    for i, talk in enumerate(talks):
        wrong = [j for j in draw.permutation(len(talks)) if not torch.equal(talks[j]["replied_text"], talk["replied_text"])]
        costs = [surprise(stage, "reply", talk | {name: talks[j][name] for name in said})[0] for j in (i, *wrong[: CHOICES - 1])]
        right.append(float(np.argmin(costs) == 0))
    return mean(np.array(right))


def heard(stage: Tasks, talks: list[Talk], others: list[int]) -> dict[str, Figure]:
    """Letter errors of what was written down, from the speech and from another's."""
    found = {}
    for name, rows in (("hear: letter errors", talks), ("hear: letter errors, another's speech", mixed(talks, others, "asked"))):
        written = stage.run({"asked": [talk["asked"] for talk in rows]}, list(range(len(rows))), "hear")["asked_text"]
        found[name] = unit_errors([(talk["asked_text"], text) for talk, text in zip(talks, written)])
    return found


def read_out(stage: Tasks, talks: list[Talk], others: list[int], every: list[Talk]) -> dict[str, Figure]:
    """How often a text is read out right: of all sentences of `every` dialogue, in any voice, its own is nearest to what was said."""
    found = {}
    for about, rows in (("", talks), (", another's text", mixed(talks, others, "asked_text"))):
        said = stage.run({"asked_text": [talk["asked_text"] for talk in rows]}, list(range(len(rows))), "say")["asked"]
        found[f"say: spoken right{about}"] = right(nearest(said, every, "asked"), talks, "asked")
    return found


def answered(stage: Tasks, talks: list[Talk], others: list[int], every: list[Talk]) -> dict[str, Figure]:
    """How often an answer is right: its text to the letter, where there is one on the way, and its units if they are nearest to it."""
    found = {}
    for about, rows in (("", talks), (", another's question", mixed(talks, others, "asked"))):
        said = stage.run({"asked": [talk["asked"] for talk in rows]}, list(range(len(rows))), "reply")
        found[f"reply: spoken right{about}"] = right(nearest(said["replied"], every, "replied"), talks, "replied")
        if "replied_text" in [part.name for part in stage.config.tasks["reply"]]:
            found[f"reply: answers right{about}"] = right(said["replied_text"], talks, "replied")
    return found


def nearest(said: list[Tensor], every: list[Talk], turn: str) -> list[Tensor]:
    """units [U] -> the text [L] of the dialogue whose units of that turn are nearest, in any voice, for units tell none."""
    return [min(every, key=lambda talk, units=units: share(talk[turn], units))[f"{turn}_text"] for units in said]


def right(texts: list[Tensor], talks: list[Talk], turn: str) -> Figure:
    """The share of texts [L] that are the dialogue's own of that turn, to the letter."""
    return mean(np.array([float(torch.equal(talk[f"{turn}_text"], text)) for talk, text in zip(talks, texts)]))
