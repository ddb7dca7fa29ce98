"""What a study measures of backbones on one task: cross-entropy and how often the likeliest label is the right one.

Q levels   T frames
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from slm.data.tagged import Tagged, clip, held_rows
from slm.study.figures import Figure, ratio
from slm.study.heldout import Item


def tagging(data: Tagged, codec: Any, items: list[Item]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Held-out items as rows of the task: codes [Q,T] and labels."""
    with torch.inference_mode():
        clips = [clip(codec.encode(i.audio[None], data.levels)[0], i.phones.tolist(), i.sex) for i in items]
    return held_rows(clips, data)


def measure(stage: Path, rows: list[tuple[torch.Tensor, torch.Tensor]], name: str) -> dict[str, Figure]:
    """stage: the folder of a trained Tagger -> its figures on rows, an item a row; `name` goes before each."""
    from slm_tokenizers.stored import load

    tagger = load(stage, of="slm.stage.")
    sums = []
    with torch.inference_mode():
        for codes, labels in rows:
            logits = tagger.logits(codes[None])[0].float().reshape(-1, tagger.config.labels)
            known = labels.reshape(-1) >= 0
            logits, labels = logits[known], labels.reshape(-1)[known]
            sums.append((float(F.cross_entropy(logits, labels, reduction="sum")), int((logits.argmax(-1) == labels).sum()), len(labels)))
    nats, right, count = np.array(sums, float).T
    return {f"{name}: nats": ratio(nats, count), f"{name}: right": ratio(right, count)}
