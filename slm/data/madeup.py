"""Made-up speech: tones that last as long as their phones. For small recipes and tests, where no corpus is at hand.

    T frames   L phones   N samples
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slm.config import LATER
from slm.data.aligned import framed
from slm.data.audio import narrow
from slm.data.batch import coded
from slm.data.rough import in_noise
from slm.data.utterances import Utterance, Utterances


def tone(symbol: int, frames: int, pitch: float, hop: int, rate: int, draw: np.random.Generator) -> np.ndarray:
    """One phone as three partials whose strengths depend on the symbol, with a little noise. -> samples [frames * hop]"""
    time = np.arange(frames * hop) / rate
    partials = sum(np.sin(2 * np.pi * pitch * k * time) / (1 + abs(k - 1 - symbol % 7)) for k in (1, 3, 5))
    return (0.1 * partials * (symbol > 0) + 0.003 * draw.standard_normal(len(time))).astype(np.float32)


def utterance(seed: int, speaker: int, phones: int, card: int, hop: int, rate: int) -> tuple[Tensor, Tensor, Tensor]:
    """text [L], duration [L], audio [1,N]"""
    draw = np.random.default_rng([seed, speaker])
    text = np.concatenate([[0], draw.integers(1, card, phones), [0]])
    duration = draw.integers(2, 8, len(text))
    pitch = 90 + 20 * speaker
    audio = np.concatenate([tone(int(s), int(n), pitch, hop, rate, draw) for s, n in zip(text, duration)])
    return torch.from_numpy(text), torch.from_numpy(duration), torch.from_numpy(audio)[None]


@dataclass
class MadeUpSounds:
    """Config of crops for a codec; the same batch keys as `Sounds`."""

    seconds: float = 0.4
    batch: int = 4
    rate: int = 16000
    hop: int = 320
    seed: int = 0
    codec: str = ""

    def build(self, tokenizers: dict[str, Any]) -> "MadeUpCrops":
        return MadeUpCrops(self, tokenizers[self.codec] if self.codec else None)


class MadeUpCrops:
    def __init__(self, config: MadeUpSounds, codec: Any) -> None:
        self.config, self.codec = config, codec

    def at(self, step: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
        c = self.config
        frames = round(c.seconds * c.rate / c.hop)
        audio, teacher = [], []
        for row in range(c.batch):
            text, duration, samples = utterance(c.seed + 1000 * (step * world + rank) + row, row, frames, 40, c.hop, c.rate)
            audio.append(samples[:, : frames * c.hop])
            teacher.append(text.repeat_interleave(duration)[:frames])
        batch = {"audio": torch.stack(audio), "teacher": torch.stack(teacher)}
        return batch if self.codec is None else coded(batch, self.codec)


@dataclass
class MadeUpUtterances:
    """Config of examples for text to speech; the same batch keys as `Aligned`."""

    count: int = 12
    phones: int = 8
    frames: int = 600
    codec: str = "acoustic"
    seed: int = 0
    sound: bool = False
    rough: float = field(default=0.0, metadata=LATER)

    def build(self, tokenizers: dict[str, Any]) -> Utterances:
        codec, text = tokenizers[self.codec], tokenizers["text"]
        items = []
        for i in range(self.count):
            ids, duration, audio = utterance(self.seed + i, i % 4, self.phones, text.card, codec.hop, codec.rate)
            codes = codec.encode(audio[None])[0]
            sound = framed(narrow(audio[0]), codec.hop, codes.shape[1]) if self.sound else None
            rough = codec.encode(in_noise(audio, 0.0, np.random.default_rng(i))[None])[0] if self.rough else None
            items.append(Utterance(str(i), f"speaker {i % 4}", ids, duration, codes, rough, sound))
        return Utterances(items, codec.codebooks.embed, self.frames, self.seed, prompt=(8, 16))
