"""What a study measures of a language model over codes in some layout: nats a frame, and how what it says sounds.

Q levels   T frames   L phones
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slm.data.aligned import Aligned
from slm.data.utterances import Utterance
from slm.study.figures import Figure, mean, ratio
from slm.study.heldout import Item

ROWS = 16  # said at a time


def measure(folder: Path, items: list[Item], seed: int = 0, corpus: str = "data/dev", stage: str = "lm") -> dict[str, Figure]:
    """folder: a trained model of text, durations and codes -> its figures on the items that `corpus` has aligned, an item a recording."""
    from slm import model

    loaded = model.load(folder)
    codec, lm = loaded.tokenizers["acoustic"], loaded.stages[stage]
    wanted = {item.id for item in items}
    spoken = [u for u in Aligned().read(Path(corpus), codec, loaded.tokenizers["text"]) if u.id in wanted]
    return {"nats a frame": likelihood(lm, spoken), "mel distance": distances(lm, codec, spoken, seed)}


@torch.inference_mode()
def likelihood(lm: Any, spoken: list[Utterance]) -> Figure:
    """Negative log-likelihood of all levels of a frame together, given text and durations."""
    part = lm.parts[-1]
    levels = len(range(*part.span(lm.streams[part.name].n_q)))
    nats = [float(lm.loss(given(u) | {part.name: [u.codes]})[part.name]) * levels * u.codes.shape[1] for u in spoken]
    return ratio(np.array(nats), np.array([u.codes.shape[1] for u in spoken]))


@torch.inference_mode()
def distances(lm: Any, codec: Any, spoken: list[Utterance], seed: int) -> Figure:
    """Log-mel L1 between what is said, with the recording's own durations, and the recording's codes of as many levels, both decoded."""
    from slm.evaluate.codec import log_mel_l1

    part, found = lm.parts[-1], []
    first, stop = part.span(lm.streams[part.name].n_q)
    for start in range(0, len(spoken), ROWS):
        rows = spoken[start : start + ROWS]
        batch: dict[str, list[Tensor]] = {name: [row for u in rows for row in given(u)[name]] for name in given(rows[0])}
        said = lm.run(batch, [seed * len(spoken) + start + i for i in range(len(rows))])[part.name]
        for u, codes in zip(rows, said):
            pair = (codec.decode(c[None, first:stop])[0, 0] for c in (u.codes, torch.cat([u.codes[:first], codes])))
            found.append(log_mel_l1(*pair, codec.rate))
    return mean(np.array(found))


def given(u: Utterance) -> dict[str, list[Tensor]]:
    return {"text": [u.text], "duration": [u.duration]}
