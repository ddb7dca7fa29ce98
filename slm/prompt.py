"""A voice as a model hears it, made of a recording.

C channels   N samples   Q levels   P prompt frames   E latent width   L phones   V width of a voice
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from slm.data.aligned import Aligned
from slm.data.audio import resample, to_mono
from slm.data.prosody import PitchBins, Tracker, by_phone
from slm.data.utterances import shorten
from slm.errors import SlmError


@dataclass
class Prompt:
    """A voice as a model hears it. Keep it, to speak again in the same voice without reading the file.

    codes [Q,P] of the codec; units [P] of a model that says units first; text: what is said there; description: words in place of a voice.
    phones [L] as they are heard there, and prosody: the pitch and the duration [L] of each, of a model that says these first.
    voice [V]: as a vocoder of units has heard it.
    """

    codes: Tensor | None = None
    units: Tensor | None = None
    text: str = ""
    description: str = ""
    phones: Tensor | None = None
    prosody: dict[str, Tensor] = field(default_factory=dict)
    voice: Tensor | None = None


def clip(codec: Any, audio: Tensor, rate: int, name: str) -> Tensor:
    """audio [1,N] -> codes [Q,P] of the three seconds with the most speech. SlmError: too short, or silent."""
    return codec.encode(loud_part(heard_at(codec.rate, audio, rate), codec.rate, codec.hop, name)[None])[0]


def aligned(codec: Any, aligner: Any, bins: PitchBins | None, audio: Tensor, text: str) -> Prompt:
    """audio [1,N] at the codec's rate, whole frames of it -> its codes, and of each phone of its text how long and how high it is said.

    As training is told (slm/data/aligned.py, prosody.py): what lasts longer than a row may say, in practice a pause, loses its middle.
    SlmError if the text cannot be what is said there.
    """
    codes = codec.encode(audio[None])[0]
    phones, duration = aligner.align(heard_at(aligner.rate, audio, codec.rate), text)
    if duration.sum() != codes.shape[1]:
        raise SlmError(f"the codec makes {codes.shape[1]} frames of what lasts {duration.sum()} of 20 ms, in which durations are told")
    hertz = Tracker().encode(heard_at(Tracker.rate, audio, codec.rate)[None])[0, 0] / 10
    prosody = {} if bins is None else {"pitch": bins.encode(by_phone(hertz, duration))}
    phones, duration, codes = shorten(phones, duration, codes, Aligned.longest)
    return Prompt(codes, text=text, phones=phones, prosody=prosody | {"duration": duration})


def latents(codec: Any, prompt: Prompt) -> Tensor:
    """The voice as a stage hears it [P,E]."""
    return codec.codebooks.decode(prompt.codes[None])[0].T


def heard_at(wanted: int, audio: Tensor, rate: int) -> Tensor:
    """audio [C,N] at `rate` -> [1,N] at the rate that is wanted"""
    return resample(to_mono(audio), rate, wanted)


def loud_part(audio: Tensor, rate: int, hop: int, name: str, seconds: float = 3.0, least: float = 1.0) -> Tensor:
    """audio [1,N] -> the `seconds` of it that hold the most speech, at an even loudness. SlmError: too short, or silent."""
    if audio.shape[-1] < least * rate:
        raise SlmError(f"{name} lasts {audio.shape[-1] / rate:.2f} s; a voice needs at least {least:g} s, three are better")
    whole = audio.shape[-1] // hop * hop
    energy = audio[0, :whole].view(-1, hop).square().mean(1)  # [frames]
    if energy.max().sqrt() < 1e-3:
        raise SlmError(f"{name} is silent; a voice needs at least {least:g} s of speech")
    speech = (energy > energy.max() * 1e-3).float()
    if speech.sum() * hop < 0.5 * rate:
        raise SlmError(
            f"{name} holds {speech.sum() * hop / rate:.2f} s of speech; a voice needs at least half a second of it, three are better"
        )
    size = min(len(speech), int(seconds * rate / hop))
    counts = speech.unfold(0, size, 1).sum(1)
    start = int(counts.argmax())
    part = audio[:, start * hop : (start + size) * hop]
    level = (part.square().mean()).sqrt().clamp(min=1e-5)
    return part * torch.minimum(0.06 / level, 0.95 / part.abs().max())
