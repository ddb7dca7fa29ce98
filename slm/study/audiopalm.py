"""What a study measures of a model that writes down and translates by its tag: each task in voices it has not heard, beside its control.

L bytes   U units   n dialogues
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from slm.data.pseudo import held
from slm.data.talks import Talk, Talks
from slm.stage.tasks import Tasks
from slm.study.figures import Figure, mean, ratio
from slm.study.spoken import edits
from slm.study.talks import cost, different, mixed

GIVEN = {"asr": "asked", "mt": "asked_text", "ast": "asked", "asr_ast": "asked"}
SAID = {"asr": "asked_text", "mt": "asked_pseudo", "ast": "asked_pseudo", "asr_ast": "asked_pseudo"}  # the last thing that a task says
OTHER = {"asked_text": "asked_pseudo", "asked_pseudo": "asked_text"}


def measure(folder: Path, seed: int, data: Talks, count: int = 105) -> dict[str, Figure]:
    """folder: a run with the stage lm -> figures, an item a dialogue in a held-out voice (`count` of them)."""
    from slm.model import load

    model = load(folder)
    talks = held(data, model.tokenizers)
    order = np.random.default_rng(seed).permutation(len(talks))[:count]
    return figures(model.stages["lm"], [talks[i] for i in order])


def figures(stage: Tasks, talks: list[Talk]) -> dict[str, Figure]:
    """Of each task: letter errors, beside those with what another dialogue gives, and beside what the wrong tag would have had it say.

    "right" counts what is right to the letter. "asr_ast" is judged by its last part, the translation.
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
    return found


@torch.inference_mode()
def answers(stage: Tasks, task: str, talks: list[Talk]) -> list[Tensor]:
    """The last thing that the task says of each dialogue [L]."""
    given = GIVEN[task]
    return stage.run({given: [talk[given] for talk in talks]}, list(range(len(talks))), task)[SAID[task]]


def errors(wanted: list[Tensor], said: list[Tensor]) -> Figure:
    """Letters that are wrong, missing or too many, over those that were wanted."""
    return ratio(np.array([edits(a, b) for a, b in zip(wanted, said)], float), np.array([len(a) for a in wanted]))
