"""What a study measures of a residual codec: distortion by level, phones in the first level, and whose voice the others carry.

T frames   Q levels
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slm.study.figures import Figure, mean, pnmi
from slm.study.heldout import HOP, Item, following, phone_counts

SECONDS = 5.0  # of each recording


def measure(folder: Path, items: list[Item], seed: int = 0) -> dict[str, Figure]:
    """folder: a run with codec/ in it -> its figures, an item a recording. Needs the speaker encoder of slm[evaluate]."""
    from slm_tokenizers import load

    codec = load(folder / "codec").eval()
    audio = [item.audio[:, : int(SECONDS * codec.rate)] for item in items]
    with torch.inference_mode():
        codes = [codec.encode(a[None]) for a in audio]  # [1,Q,T]
    found = {f"mel distance, {n} levels": distortion(codec, audio, codes, n) for n in prefixes(codec.n_q)}
    if codec.hop == HOP:  # labels and codes count the same frames
        found["PNMI, level 1"] = pnmi(phone_counts(items, [c[0, 0] for c in codes], codec.card))
    return found | voices(codec, items, audio, codes)


def prefixes(n_q: int) -> list[int]:
    return [n for n in (1, 2, 4, 8, 16, 32) if n <= n_q]


def distortion(codec: Any, audio: list[Tensor], codes: list[Tensor], levels: int) -> Figure:
    """Log-mel L1 of each recording, the first `levels` levels decoded."""
    from slm.evaluate.codec import log_mel_l1

    with torch.inference_mode():
        return mean([log_mel_l1(a[0], codec.decode(c[:, :levels], a.shape[-1])[0, 0], codec.rate) for a, c in zip(audio, codes)])


def voices(codec: Any, items: list[Item], audio: list[Tensor], codes: list[Tensor]) -> dict[str, Figure]:
    """Cosines of voices: of a reconstruction to its own recording and to another speaker's, also when levels 2 to Q are his."""
    from slm.evaluate.speaker import SpeakerEncoder, similarity

    encoder = SpeakerEncoder()
    real = [encoder.embed(a[0].numpy()) for a in audio]
    whole = [encoder.embed(sound(codec, c)) for c in codes]
    alone = [encoder.embed(sound(codec, c[:, :1])) for c in codes]
    others = [another(items, i) for i in range(len(items))]
    swapped = [encoder.embed(sound(codec, swap(codes[i], codes[j]))) for i, j in enumerate(others)]
    return {
        "similarity to itself": mean([similarity(a, b) for a, b in zip(whole, real)]),
        "similarity to itself, level 1": mean([similarity(a, b) for a, b in zip(alone, real)]),
        "similarity to another voice": mean([similarity(whole[i], real[j]) for i, j in enumerate(others)]),
        "similarity to another voice, swapped": mean([similarity(swapped[i], real[j]) for i, j in enumerate(others)]),
    }


def sound(codec: Any, codes: Tensor) -> np.ndarray:
    with torch.inference_mode():
        return codec.decode(codes)[0, 0].float().numpy()


def another(items: list[Item], i: int) -> int:
    """The first recording behind the i-th, in a circle, of another speaker."""
    return following(len(items), i, lambda j: items[j].speaker != items[i].speaker)


def swap(words: Tensor, voice: Tensor) -> Tensor:
    """Level 1 of `words` [1,Q,T] and the others of `voice` [1,Q,T'], repeated or cut to T -> [1,Q,T]"""
    T = words.shape[-1]
    over = voice[:, 1:].repeat(1, 1, -(-T // voice.shape[-1]))[..., :T]
    return torch.cat([words[:, :1], over], 1)
