"""What a study measures of a model that writes down and translates by its tag: each task in voices it has not heard, beside its control.

L bytes   U units   n dialogues
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from slm.data.pseudo import Translated, held
from slm.data.talks import Talk
from slm.stage.tasks import Tasks
from slm.study.figures import Figure, mean
from slm.study.spoken import edits, unit_errors
from slm.study.talks import cost, different, mixed

GIVEN = {"asr": "asked", "mt": "asked_text", "ast": "asked", "asr_ast": "asked", "s2st": "asked", "asr_ast_s2st": "asked"}
SAID = {"asr": "asked_text", "mt": "asked_pseudo", "ast": "asked_pseudo", "asr_ast": "asked_pseudo"}  # the last thing that a task says
SPOKEN = {"s2st": "asked_spoken", "asr_ast_s2st": "asked_spoken"}
OTHER = {"asked_text": "asked_pseudo", "asked_pseudo": "asked_text"}


def measure(folder: Path, seed: int, data: Translated, count: int = 105) -> dict[str, Figure]:
    """folder: a run with the stage lm -> figures, an item a dialogue in a held-out voice (`count` of them)."""
    from slm.model import load

    model = load(folder)
    talks = held(data, model.tokenizers)
    order = np.random.default_rng(seed).permutation(len(talks))[:count]
    return figures(model.stages["lm"], [talks[i] for i in order])


def figures(stage: Tasks, talks: list[Talk]) -> dict[str, Figure]:
    """Of each task: letter errors, beside those with what another dialogue gives, and beside what the wrong tag would have had it say.

    "right" counts what is right to the letter. Tasks that say several parts are judged by their last, the translation or its sound.
    """
    shuffled = [different(talks, i) for i in range(len(talks))]
    found = {}
    for task, name in SAID.items():
        wanted, said = [talk[name] for talk in talks], answers(stage, task, talks)
        found[f"{task}: letter errors"] = errors(wanted, said)
        found[f"{task}: letter errors, another's"] = errors(wanted, answers(stage, task, mixed(talks, shuffled, GIVEN[task])))
        found[f"{task}: right"] = mean(np.array([float(torch.equal(a, b)) for a, b in zip(wanted, said)]))
        found[f"{task}: letter errors, as if by the other tag"] = errors([talk[OTHER[name]] for talk in talks], said)
        found[f"{task}: nats"] = cost(stage, task, talks)
    for task in SPOKEN:
        found |= translated_aloud(stage, task, talks, shuffled)
    return found


def translated_aloud(stage: Tasks, task: str, talks: list[Talk], shuffled: list[int]) -> dict[str, Figure]:
    """Units that are wrong, and whether of all translations there are what was said is nearest to the right one."""
    wanted, given = [talk[SPOKEN[task]] for talk in talks], GIVEN[task]
    said, other = answers(stage, task, talks), answers(stage, task, mixed(talks, shuffled, given))
    known = {tuple(row.tolist()): row for row in wanted}
    nearest = [min(known, key=lambda row: edits(known[row], one)) for one in said]
    return {
        f"{task}: unit errors": errors(wanted, said),
        f"{task}: unit errors, another's": errors(wanted, other),
        f"{task}: the right sentence": mean(np.array([float(a == tuple(b.tolist())) for a, b in zip(nearest, wanted)])),
        f"{task}: the right sentence, by chance": mean(np.full(len(talks), 1 / len(known))),
        f"{task}: nats": cost(stage, task, talks),
    }


@torch.inference_mode()
def answers(stage: Tasks, task: str, talks: list[Talk]) -> list[Tensor]:
    """The last thing that the task says of each dialogue [L]."""
    given = GIVEN[task]
    return stage.run({given: [talk[given] for talk in talks]}, list(range(len(talks))), task)[(SAID | SPOKEN)[task]]


def errors(wanted: list[Tensor], said: list[Tensor]) -> Figure:
    """Letters that are wrong, missing or too many, over those that were wanted."""
    return unit_errors(list(zip(wanted, said)))
