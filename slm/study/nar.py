"""What a study measures of a stage that adds the codec's finer levels: nats a level, and what they do to the sound.

Q levels   C codes a level   P prompt frames   T frames   L phones   n recordings
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from slm import ways
from slm.data.batch import pad
from slm.data.continued import Continued, Row, joined, within
from slm.errors import SlmError
from slm.evaluate.wer import count_errors
from slm.study.figures import Figure, mean, ratio
from slm.study.hard import capped
from slm.study.heldout import Item
from slm.study.spoken import LEANS, others

PROMPT, SHORTEST, LONGEST = 150, 50, 250  # frames of a prompt, and of what is said behind it
ROWS = 8


def measure(folder: Path, items: list[Item], seed: int, data: Continued, known: Continued, count: int = 40) -> dict[str, Figure]:
    """A run with the stage nar adds the finer levels of `count` recordings, given their first level, a prompt and both texts -> figures.

    data: the recordings. known: what was learned from, where pairs of codes are counted: what level q is where level q - 1 of the same
    frame is known, leaning on how common a code is as the recordings like it best, a high floor. `another's prompt` is that of another
    speaker. Mel distances are to all levels of the codec. Needs slm[evaluate].
    """
    from slm.model import load

    model = load(folder)
    stage, texts = model.stages["nar"], {item.id: item.text for item in items}
    rows, said = chosen(data, model.tokenizers, texts, count)
    mixed = [row | {"prompt": rows[k]["prompt"]} for row, k in zip(rows, others([row["speaker"] for row in rows]))]
    costs = {"": nats(stage, rows), ", another's prompt": nats(stage, mixed)}
    found = {f"nats{about}": overall(cost) for about, cost in costs.items()}
    found |= {f"nats, level {q + 1}": of_level(costs[""], q - stage.config.known) for q in range(stage.config.known, stage.n_q)}
    learned = [u.codes for u in known.build(model.tokenizers).batches.items]
    found |= {"nats, counted pairs": counted(learned, [row["target"]["acoustic"] for row in rows], stage)}
    found |= {"nats, uniform": mean(np.full(len(rows), np.log(stage.vectors.shape[1])))}
    return found | heard(stage, model.tokenizers["acoustic"], rows, mixed, said)


def chosen(
    data: Continued, tokenizers: dict[str, Any], texts: dict[str, str], count: int, shortest: int = SHORTEST
) -> tuple[list[dict[str, Any]], list[str]]:
    """`count` recordings, a few of each speaker, of LONGEST frames at most and with another for a prompt -> rows, and their texts."""
    rows, said = [], []
    built = data.build(tokenizers)
    for own in built.others.values():
        fit = [u for u in own if u.id in texts and shortest <= u.codes.shape[1] <= LONGEST]
        for u in fit[: 1 + count // len(built.others)]:
            prompts = [other for other in own if other is not u and other.codes.shape[1] >= shortest]
            if prompts:
                rows.append({"speaker": u.speaker, "prompt": within(built.told(prompts[-1]), 0, PROMPT), "target": built.told(u)})
                said.append(texts[u.id])
    if not rows:
        raise SlmError("none of the held-out speakers has two aligned recordings; run slm align")
    return rows[:count], said[:count]


def batch_of(rows: list[dict[str, Any]]) -> dict[str, list[Tensor]]:
    whole: list[Row] = [joined(row["prompt"], row["target"], whole=False) for row in rows]
    return {name: [row[name] for row in whole] for name in whole[0]}


@torch.inference_mode()
def nats(stage: Any, rows: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """The surprise of each level that is added [n,Q'], and frames [n]."""
    costs, frames = [], []
    for start in range(0, len(rows), ROWS):
        batch = batch_of(rows[start : start + ROWS])
        codes, lengths = pad(batch["acoustic"])
        context, levels = stage.context(batch), []
        for level in range(stage.config.known, stage.n_q):
            scores = stage.scores(codes, lengths, torch.full_like(lengths, level), context)
            cost = F.cross_entropy(scores.transpose(1, 2), codes[:, level], reduction="none")  # [B,T]
            levels.append((cost * (torch.arange(codes.shape[2]) < lengths[:, None])).sum(1))
        costs.append(torch.stack(levels, 1).numpy())
        frames.append(lengths.numpy())
    return np.concatenate(costs), np.concatenate(frames).astype(float)


def overall(cost: tuple[np.ndarray, np.ndarray]) -> Figure:
    """Nats a code over all levels that are added."""
    return ratio(cost[0].sum(1), cost[1] * cost[0].shape[1])


def of_level(cost: tuple[np.ndarray, np.ndarray], level: int) -> Figure:
    return ratio(cost[0][:, level], cost[1])


def counted(learned: list[Tensor], told: list[Tensor], stage: Any) -> Figure:
    """Nats a code of each level given that below it in the same frame, counted in the rows `learned` [Q,T], of the rows `told`."""
    card, levels = stage.vectors.shape[1], range(stage.config.known, stage.n_q)
    codes, costs = torch.cat(learned, 1), np.zeros((len(LEANS), len(told)))
    for q in levels:
        pairs = torch.zeros(card, card).index_put_((codes[q - 1], codes[q]), torch.ones(codes.shape[1]), accumulate=True)
        alone = (pairs.sum(0) + 1) / (pairs.sum() + card)
        for i, row in enumerate(told):
            below, own = row[q - 1], row[q]
            for j, lean in enumerate(LEANS):
                p = (pairs[below, own] + lean * alone[own]) / (pairs[below].sum(1) + lean)
                costs[j, i] -= float(p.log().sum())
    return ratio(costs[costs.sum(1).argmin()], np.array([len(levels) * row.shape[1] for row in told]))


@torch.inference_mode()
def heard(stage: Any, codec: Any, rows: list[dict[str, Any]], mixed: list[dict[str, Any]], texts: list[str]) -> dict[str, Figure]:
    """Mel distances, word errors and voices of all levels as they are, as the stage adds them, and of the first level alone."""
    from slm.evaluate.codec import log_mel_l1
    from slm.evaluate.speaker import SpeakerEncoder, similarity
    from slm.evaluate.transcribe import Recogniser

    whole = [row["target"]["acoustic"] for row in rows]
    ways_of = {
        "recording": whole,
        "first level": [codes[: stage.config.known] for codes in whole],
        "second stage": added(stage, rows),
        "another's prompt": added(stage, mixed),
    }
    sounds = {name: [ways.sound(codec, codes) for codes in said] for name, said in ways_of.items()}
    recogniser, encoder = Recogniser("base"), SpeakerEncoder()
    prompts = [encoder.embed(ways.sound(codec, row["prompt"]["acoustic"]).numpy()) for row in rows]
    found = {}
    for name, said in sounds.items():
        found[f"mel distance, {name}"] = mean([log_mel_l1(one, own, codec.rate) for one, own in zip(said, sounds["recording"])])
        found[f"word errors, {name}"] = capped([count_errors(text, recogniser.transcribe(one.numpy())) for text, one in zip(texts, said)])
        found[f"voice, {name}"] = mean([similarity(encoder.embed(one.numpy()), prompt) for one, prompt in zip(said, prompts)])
    return found


def added(stage: Any, rows: list[dict[str, Any]]) -> list[Tensor]:
    """All levels [Q,T], the finer ones as the stage says them."""
    said = []
    for start in range(0, len(rows), ROWS):
        batch = batch_of(rows[start : start + ROWS])
        given = [codes[: stage.config.known] for codes in batch.pop("acoustic")]
        said += stage.run(batch | {"given": given}, [0] * len(given))[stage.config.codes]
    return said
