"""Other systems that say the same texts, heard beside a model: programs of this machine, or recordings that someone else made.

    flite, flite:slt     flite, with a voice of its own
    espeak-ng            espeak-ng, with its English voice
    NAME=FOLDER          FOLDER/ID.wav (or .flac) of every pair, as any other system said it

None of the programs hears a prompt, so that their similarity to it is that of any stranger. N samples
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from slm.errors import SlmError
from slm.evaluate.judge import Voiced
from slm.evaluate.pairs import Pair, read_audio

Source = Callable[[int, Pair], Voiced]
PROGRAMS = {
    "flite": ["flite", "-voice", "{voice}", "-t", "{text}", "-o", "{out}"],
    "espeak-ng": ["espeak-ng", "-v", "{voice}", "-w", "{out}", "{text}"],
}
VOICES = {"flite": "slt", "espeak-ng": "en-us"}


def peer(told: str) -> tuple[str, Source]:
    """What --beside names -> the line of the report, and what gives its audio. SlmError: no such program or folder."""
    name, given, folder = told.partition("=")
    if given:
        if not Path(folder).is_dir():
            raise SlmError(f"--beside {told}: there is no folder {folder}")
        return name, lambda i, pair: recorded(Path(folder), pair)
    program, _, voice = told.partition(":")
    if program not in PROGRAMS:
        raise SlmError(f"--beside {told}: give {', '.join(PROGRAMS)}, perhaps with :VOICE, or NAME=FOLDER of ID.wav")
    if shutil.which(program) is None:
        raise SlmError(f"--beside {told}: {program} is not installed; on Debian and Ubuntu: apt install {program}")
    voice = voice or VOICES[program]
    if program == "flite" and voice not in (voices := flite_voices()):  # it would take another without a word
        raise SlmError(f"--beside {told}: flite has no voice {voice!r}; it has {', '.join(voices)}")
    return told, lambda i, pair: said(program, voice, pair.text)


def flite_voices() -> list[str]:
    listed = subprocess.run(["flite", "-lv"], capture_output=True, text=True, timeout=60).stdout
    return listed.partition(":")[2].split()


def said(program: str, voice: str, text: str) -> Voiced:
    """The text as a program says it, in lower case, for capitals alone may be spelt. SlmError if it says nothing."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "said.wav"
        words = {"voice": voice, "text": text.lower() if text.isupper() else text, "out": str(out)}
        began = time.perf_counter()
        done = subprocess.run([part.format(**words) for part in PROGRAMS[program]], capture_output=True, text=True, timeout=120)
        wall = time.perf_counter() - began
        if done.returncode or not out.exists():
            raise SlmError(f"{program} could not say {text[:60]!r} in the voice {voice!r}: {(done.stderr or done.stdout).strip()[:200]}")
        return Voiced(*read_audio(out), wall)


def recorded(folder: Path, pair: Pair) -> Voiced:
    """FOLDER/ID.wav or .flac. SlmError if neither is there."""
    found = next((path for suffix in (".wav", ".flac") if (path := folder / f"{pair.id}{suffix}").exists()), None)
    if found is None:
        raise SlmError(f"{folder} has no {pair.id}.wav or .flac")
    return Voiced(*read_audio(found))
