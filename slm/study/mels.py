"""What a study measures of a quantiser of mels: how far its mels are, what its codes tell of the phones, how many are in use.

M mel bands   L mel frames   T frames of codes
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from slm.study.figures import Figure, entropy, mean, pnmi
from slm.study.heldout import HOP, Item, phone_counts


def measure(folder: Path, items: list[Item], seed: int = 0) -> dict[str, Figure]:
    """folder: a run whose codec has `mel(codes)` -> mean |ln mel - ln mel| a recording, PNMI and perplexity of its first level."""
    from slm_tokenizers import load

    codec = load(folder / "codec").eval()
    distances, codes = [], []
    with torch.inference_mode():
        for item in items:
            heard = item.audio[None]
            codes.append(codec.encode(heard))
            wanted = truth(codec, heard)
            distances.append(float((codec.mel(codes[-1]) - wanted).abs().mean()))
    found = {"mel distance": mean(np.array(distances)), "perplexity": usage([c[0, 0] for c in codes], codec.card)}
    if codec.hop == HOP:
        found["PNMI"] = pnmi(phone_counts(items, [c[0, 0] for c in codes], codec.card))
    return found


def truth(codec, audio: torch.Tensor) -> torch.Tensor:
    """audio [1,1,N] -> the log-mel [1,M,L] that the codec's mel is to be"""
    from slm_tokenizers.melvq import whole_mel

    return whole_mel(codec.hear, audio, codec.hop)


def usage(codes: list[torch.Tensor], card: int) -> Figure:
    """codes [T] of each item -> exp of the entropy of all of them: how many are in even use"""
    counts = np.stack([np.bincount(c.numpy(), minlength=card) for c in codes]).astype(np.float32)
    return Figure(counts, lambda sums: np.exp(entropy(sums / sums.sum(1, keepdims=True))))
