"""The likeliest that a language model can say, rather than a draw: beam search over one part of one row, deterministic.

    K sequences kept   D width   n legal ids

At each step every kept sequence goes on with every legal id, and the K likeliest of all are kept; one that has ended stays as it is.
With K as large as the number of sequences there are, what is found is the likeliest of them. Probabilities are the model's own, without
temperature, and not divided by a length: a part that ends by itself is said as short as the model thinks likely.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from slm.backbone.state import reorder
from slm.errors import SlmError
from slm.stage.lm import LM
from slm.stage.row import Row
from slm.stage.say import Talk, _due, _hint, _listen, _rows, as_codes
from slm.stream.layout import EMPTY
from slm.stream.part import Part


@dataclass
class Kept:
    """A sequence: what it has said, its log-probability in nats, and the id that the model hears next."""

    row: Row
    score: float
    last: int


@torch.no_grad()
def search(lm: LM, batch: dict, width: int = 4) -> dict:
    """Batch of one row that lacks its last part -> the batch with it, `stop` and `score`, its log-probability in nats.

    SlmError: another number of rows, another part lacking, a part that tells several ids a step, guidance, a window.
    """
    part = lm.parts[-1]
    if any(len(batch.get(p.name, ())) != 1 for p in lm.parts[:-1]) or part.name in batch or len(lm.parts) < 2:
        raise SlmError(f"beam search says {part.name!r} of one row, given all other parts: {', '.join(p.name for p in lm.parts[:-1])}")
    if width < 1 or lm.config.guidance != 1 or lm.config.window is not None:
        raise SlmError(
            f"beam search keeps at least one sequence (width is {width}), hears it once (guidance is {lm.config.guidance}), and all of it "
            f"(window is {lm.config.window})"
        )
    talk = _listen(lm, batch, lm.parts[:-1], [0])
    due = _due(talk, part, batch)
    (row,) = _rows(lm, part, batch, due)
    if row.width > 1:
        raise SlmError(f"beam search tells one id a step; part {part.name!r} is laid out {part.layout!r}, which tells {row.width}")
    kept, state, step = [Kept(row, 0.0, lm.vocabulary.marker(part.of))], talk.state, 0
    while any(k.row.level(step, 0) != EMPTY for k in kept):
        x = lm.inputs(torch.tensor([[[k.last]] for k in kept], device=lm.head.weight.device), None)
        if due is not None:
            x = x + torch.stack([_hint(due[0], k.row, step) for k in kept])[:, None]
        if talk.voice is not None:
            x = x + talk.voice[:, None]
        hidden, state = lm.think(x, state, None, None, at=lm.place(part, step, x))
        kept, parents = _best(talk, part, kept, hidden[:, -1], step, width)
        state, step = reorder(state, torch.tensor(parents)), step + 1
    best = max(kept, key=lambda k: k.score)
    return batch | {part.name: [as_codes(lm, part, best.row.said)], "stop": [best.row.reason], "score": [best.score]}


def _best(talk: Talk, part: Part, kept: list[Kept], hidden: Tensor, step: int, width: int) -> tuple[list[Kept], list[int]]:
    """hidden [K,D] -> the likeliest sequences one step on, the likeliest first, and which of the old each goes on from."""
    found: list[tuple[float, int, int | None]] = []  # score, parent, id
    for parent, (k, h) in enumerate(zip(kept, hidden)):
        level = k.row.level(step, 0)
        if level == EMPTY:
            found.append((k.score, parent, None))
            continue
        legal, weight, bias = talk.head(part, level, k.row.open)  # [n]
        chances, at = F.linear(h, weight, bias).double().log_softmax(-1).topk(min(width, len(legal)))
        found += [(k.score + chance, parent, id) for chance, id in zip(chances.tolist(), legal[at].tolist())]
    found = sorted(found, key=lambda f: -f[0])[:width]
    return [_on(talk.lm, kept[parent], score, id, step) for score, parent, id in found], [parent for _, parent, _ in found]


def _on(lm: LM, k: Kept, score: float, id: int | None, step: int) -> Kept:
    """The sequence with one more id; None: it has ended."""
    k = Kept(deepcopy(k.row), score, lm.vocabulary.eos if id is None else id)
    if id == lm.vocabulary.eos:
        k.row.finish("end")
    elif id is not None:
        k.row.said[k.row.level(step, 0)].append(id)
    return k
