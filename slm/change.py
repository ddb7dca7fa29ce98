"""Speech in, the same words out in another voice, or without its noise: what Make-A-Voice and UniAudio do beside speaking a text.

    changed = change(slm.load("runs/uniaudio"), "me.wav", voice="you.wav")     # in your voice
    changed = change(slm.load("runs/uniaudio"), "noisy.wav")                   # in mine, and clean

N samples
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from slm.errors import SlmError
from slm.speak import Speaker, Speech, recording
from slm.ways import Tagged, Units

LONGEST = 12.0  # seconds of speech, about as much as the models of the recipes learned from at a time


@torch.no_grad()
def change(speaker: Speaker, speech: str | Path | Speech, voice: Any = None, seed: int = 0) -> Speech:
    """voice: whose it is to be, as in `speak`; without one noise is taken away, by a model that can.

    SlmError: a model that changes no speech, or speech that cannot be heard or is longer than LONGEST.
    """
    way, began = speaker.way, time.perf_counter()
    if not isinstance(way, (Tagged, Units)):
        raise SlmError(f"{speaker.model.folder} changes no speech: recipes/speech_lm/uniaudio.py and makeavoice.py train models that do")
    audio, rate, name = recording(speech, longest=LONGEST)
    sound, reason = way.change(audio, rate, None if voice is None else speaker.voice(voice), seed)
    if not len(sound):
        raise SlmError(f"the model ended before it said anything of {name}; try another seed")
    return Speech(sound, speaker.rate, reason, seed, (time.perf_counter() - began) * speaker.rate / len(sound))
