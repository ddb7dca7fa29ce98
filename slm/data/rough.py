"""Recordings made worse, so that a voice is known again on a telephone, in a room or in noise: for prompts, never for what is to be said.

    N samples   Q levels   T frames
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

from slm.data import audio as audio_files
from slm.data.quick import Quick

VERSION = 1  # of what is done: codes of another lie elsewhere in the cache
TELEPHONE = (300.0, 3400.0)  # Hz
CHANCE = 0.5  # of each of telephone, room and noise
REVERB = (0.1, 0.5)  # seconds until an echo is 60 dB weaker
WET = (0.1, 0.5)  # share of the echo
NOISE = (5.0, 25.0)  # dB by which speech is louder


def worse(audio: Tensor, rate: int, draw: np.random.Generator) -> Tensor:
    """audio [1,N] at `rate` Hz -> [1,N] in a room, in noise, over a telephone, each or none of them, as loud as it was."""
    loud = audio.square().mean().sqrt()
    made = audio
    if draw.random() < CHANCE:
        made = in_a_room(made, rate, draw.uniform(*REVERB), draw.uniform(*WET), draw)
    if draw.random() < CHANCE:
        made = in_noise(made, draw.uniform(*NOISE), draw)
    if draw.random() < CHANCE:
        made = over_telephone(made, rate)
    made = made * (loud / made.square().mean().sqrt().clamp(min=1e-8))
    return made / made.abs().max().clamp(min=1.0)


def in_a_room(audio: Tensor, rate: int, seconds: float, wet: float, draw: np.random.Generator) -> Tensor:
    """An echo of decaying noise beside the sound itself."""
    from torchaudio.functional import fftconvolve

    n = max(2, round(seconds * rate))
    echo = torch.from_numpy(draw.standard_normal(n).astype(np.float32)) * torch.logspace(0, -3, n)
    echo = fftconvolve(audio, echo[None])[..., : audio.shape[-1]]
    return (1 - wet) * audio + wet * echo * (audio.norm() / echo.norm().clamp(min=1e-8))


def in_noise(audio: Tensor, louder: float, draw: np.random.Generator) -> Tensor:
    """Noise between white and pink, `louder` dB weaker than the sound."""
    n = audio.shape[-1]
    spectrum = torch.fft.rfft(torch.from_numpy(draw.standard_normal(n).astype(np.float32)))
    spectrum = spectrum / (1 + torch.arange(len(spectrum))) ** (0.5 * draw.random())
    noise = torch.fft.irfft(spectrum, n)[None]
    return audio + noise * (audio.norm() / noise.norm().clamp(min=1e-8) * 10 ** (-louder / 20))


def over_telephone(audio: Tensor, rate: int) -> Tensor:
    """What is left of it between 300 and 3,400 Hz."""
    frequencies = torch.fft.rfftfreq(audio.shape[-1], 1 / rate)
    passed = (frequencies >= TELEPHONE[0]) & (frequencies <= TELEPHONE[1])
    return torch.fft.irfft(torch.fft.rfft(audio) * passed, audio.shape[-1])


@dataclass
class Rough:
    """A tokenizer that hears every recording made worse, always in the same way."""

    codec: Quick

    @property
    def rate(self) -> int:
        return self.codec.rate

    @property
    def made(self) -> str:
        """What tells its codes from others, for a cache."""
        return f"{self.codec.made} rough {VERSION}"

    def encode(self, audio: Tensor) -> Tensor:
        """audio [1,1,N] -> codes [1,Q,T]"""
        content = blake2b(audio_files.narrow(audio).tobytes(), digest_size=8).digest()
        return self.codec.encode(worse(audio[0], self.rate, np.random.default_rng(list(content)))[None])
