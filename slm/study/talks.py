"""What a study measures of a model that hears and speaks: every direction, in voices that no training heard, beside its control.

L bytes   U units   n dialogues
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from slm.data.talks import Talk, Talks, read
from slm.stage.tasks import Tasks
from slm.study.figures import Figure, mean, ratio
from slm.study.heldout import following
from slm.study.spoken import Bigram, counted, edits

CHOICES = 4


def measure(folder: Path, seed: int, data: Talks, asked: int = 105) -> dict[str, Figure]:
    """folder: a run with the stage omni -> figures, an item a dialogue in a held-out voice (`asked` of them)."""
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
        "on: nats": cost(stage, "on", talks),
        "on: nats, bigram": counted(
            Bigram([talk["asked"] for talk in known], stage.lm.streams["asked"].card, 1), [t["asked"] for t in talks]
        ),
        "reply: right one of four": chosen(stage, talks, seed),
        "reply: by chance": mean(np.full(len(talks), 1 / CHOICES)),
    }
    found |= heard(stage, talks, others)
    return found | answered(stage, talks, others)


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
        wrong = [edits(talk["asked_text"], text) for talk, text in zip(talks, written)]
        found[name] = ratio(np.array(wrong, float), np.array([len(talk["asked_text"]) for talk in talks]))
    return found


def answered(stage: Tasks, talks: list[Talk], others: list[int]) -> dict[str, Figure]:
    """How often the text of the answer is right to the letter, where there is one on the way."""
    if "replied_text" not in [part.name for part in stage.config.tasks["reply"]]:
        return {}
    found = {}
    for name, rows in (("reply: answers right", talks), ("reply: answers right, another's question", mixed(talks, others, "asked"))):
        said = stage.run({"asked": [talk["asked"] for talk in rows]}, list(range(len(rows))), "reply")["replied_text"]
        found[name] = mean(np.array([float(torch.equal(talk["replied_text"], text)) for talk, text in zip(talks, said)]))
    return found
