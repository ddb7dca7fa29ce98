"""flite, a small synthesizer whose phones are exact: robotic speech for experiments that must know what is said in every frame.

Black & Lenzo, 2001. It is no package of Python's: Debian and Ubuntu have it as `flite`, macOS as a port.

N samples at 16 kHz   L phones
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from slm.errors import SlmError

RATE = 16_000
VOICES = ("slt", "rms", "awb")
OURS = {"sil": "pau", "AH0": "ax"}  # where its names are not ours in lower case


@dataclass
class Said:
    """audio [1,N]; ends [L]: when each phone ends, in seconds."""

    audio: Tensor
    ends: list[float]


def present() -> bool:
    return shutil.which("flite") is not None


def say(text: str, voice: str = VOICES[0]) -> Said:
    """A text, read by flite's own rules. SlmError if flite is not installed, or cannot say it."""
    return spoken(["-t", text], voice)


def say_phones(phones: list[str], voice: str = VOICES[0]) -> Said:
    """Phones as slm_tokenizers.text.phonemes names them, pauses included. SlmError also if flite says others."""
    said = spoken(["-p", " ".join(map(named, phones))], voice)
    if len(said.ends) != len(phones):
        raise SlmError(f"flite said {len(said.ends)} phones where {len(phones)} were given: {' '.join(phones)[:80]}")
    return said


def named(phone: str) -> str:
    """Ours -> flite's: stress only where it is 1."""
    return OURS.get(phone) or phone.lower().removesuffix("0")


def spoken(arguments: list[str], voice: str) -> Said:
    from slm.data import audio

    if not present():
        raise SlmError("flite is not installed; on Debian and Ubuntu: apt install flite")
    if voice not in VOICES:
        raise SlmError(f"voice is {voice!r} but must be one of {', '.join(VOICES)}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "said.wav"
        result = subprocess.run(
            ["flite", "-voice", voice, "-psdur", *arguments, "-o", str(path)], capture_output=True, text=True, timeout=60
        )
        if result.returncode or not path.exists():
            raise SlmError(f"flite could not say {arguments[-1][:60]!r}: {(result.stderr or result.stdout).strip()[:200]}")
        samples, rate = audio.read(path, shortest=0.0)
    return Said(audio.resample(samples, rate, RATE), [float(phone.rpartition(":")[2]) for phone in result.stdout.split()])
