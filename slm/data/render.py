"""`slm render`: a text file as a corpus that flite says, each phone known to the frame, in the layout that training reads.

OUT/audio/*.flac, OUT/manifest.jsonl, OUT/cuts.jsonl.gz as of `slm prepare` and OUT/phones.jsonl as of `slm align`. A voice played
faster or slower is another speaker: pitch and formants move together.

L phones   T frames of 20 ms
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slm.data.flite import RATE, VOICES, say_phones
from slm.data.replacing import write_lines
from slm.errors import SlmError

HOP = 320
WARPS = (0.9, 1.0, 1.1)
KNOWN = {"lang": "en", "source": "flite", "licence": "BSD-like (flite), for the voices too", "synthetic": True}


@dataclass
class Line:
    """What is to be said: the voice is one of flite's, played `warp` times as fast."""

    id: str
    text: str
    voice: str
    warp: float


def render(texts: Path, out: Path, count: int, seed: int = 0) -> int:
    """Say `count` lines of the file `texts`, drawn with `seed`, each in one of nine voices. Returns how many could be said.

    SlmError if the file is missing or empty, flite is not installed, or `out` is there already.
    """
    if not texts.is_file():
        raise SlmError(f"there is no text file {texts}")
    lines = [line.strip() for line in texts.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    chosen = [lines[i] for i in np.random.default_rng(seed).permutation(len(lines))[:count]]
    return say_all([Line(f"{i:06d}", text, *voice(i)) for i, text in enumerate(chosen)], out)


def render_dialogues(out: Path, count: int, seed: int = 0) -> int:
    """Say `count` questions and their answers (dialogues.py), 000012-asked and 000012-replied in one voice."""
    from slm.data.dialogues import turns

    lines = []
    for i, (asked, replied) in enumerate(turns(count, seed)):
        lines += [Line(f"{i:06d}-asked", asked, *voice(i)), Line(f"{i:06d}-replied", replied, *voice(i))]
    return say_all(lines, out)


def render_pseudo(out: Path) -> int:
    """Say every sentence of the dialogues in the language made by rule (pseudo.py), once each, in one voice."""
    from slm.data.dialogues import every
    from slm.data.pseudo import translate

    texts = dict.fromkeys(translate(text) for pair in every() for text in pair)
    return say_all([Line(f"{i:04d}", text, VOICES[0], 1.0) for i, text in enumerate(texts)], out)


def voice(number: int) -> tuple[str, float]:
    """Nine voices, one after the other."""
    return VOICES[number % len(VOICES)], WARPS[number // len(VOICES) % len(WARPS)]


def say_all(lines: list[Line], out: Path) -> int:
    from rich.console import Console
    from rich.progress import track

    from slm.data.prepare import prepare
    from slm_tokenizers.text.phonemes import Phonemes

    if out.exists():
        raise SlmError(f"{out} is there already; remove it, or render into another folder")
    phonemes, rows, aligned, why = Phonemes(), [], [], "there is none"
    for line in track(lines, "Saying", console=Console(stderr=True)):
        path = Path("audio") / f"{line.id}.flac"
        try:
            phones = [phone for _, said in phonemes.words(line.text) for phone in said]
            frames = write(phones, line.voice, line.warp, out / path)
        except SlmError as error:
            why = error
            continue  # a line that holds nothing to say, or more than flite takes
        rows.append({"id": line.id, "path": str(path), "text": line.text, "speaker": f"{line.voice}-{line.warp:g}", **KNOWN})
        aligned.append({"id": line.id, "phones": list(zip(phones, frames))})
    if not rows:
        raise SlmError(f"no line could be said; the last: {why}")
    for name, found in (("manifest.jsonl", rows), ("phones.jsonl", aligned)):
        write_lines(out / name, found)
    prepare(out, out, "manifest")
    return len(rows)


def write(phones: list[str], voice: str, warp: float, path: Path) -> list[int]:
    """The audio of the phones, `warp` times as fast, into `path` -> frames of each phone [L]."""
    from slm.data import audio

    said = say_phones(phones, voice)
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = audio.resample(said.audio, round(RATE * warp), RATE)
    audio.write(path, samples, RATE, comment=f"{audio.SYNTHETIC}: flite")
    return frames(np.array(said.ends) / warp, -(-samples.shape[-1] // HOP))


def frames(ends: np.ndarray, total: int) -> list[int]:
    """When phones end, in seconds [L] -> frames of each, `total` in all and none without any. SlmError if they do not fit."""
    if total < len(ends):
        raise SlmError(f"{len(ends)} phones do not fit into {total} frames")
    borders = np.round(ends * RATE / HOP).astype(int)
    borders[-1] = total
    for i in range(len(borders)):  # at least one frame each, from the left …
        borders[i] = max(borders[i], i + 1)
    for i in range(len(borders) - 1, 0, -1):  # … and still inside, from the right
        borders[i - 1] = min(borders[i - 1], borders[i] - 1)
    return np.diff(borders, prepend=0).tolist()
