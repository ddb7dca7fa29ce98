"""Pairs for an evaluation out of single recordings: until a pause they are the voice, and what is said behind it is the text.

So a speaker of whom there is one long recording can be tested with, such as those of LibriSpeech. Needs what `slm align` found.

N samples   L phones
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slm.data.replacing import write_lines
from slm.errors import SlmError

FRAME = 0.02  # seconds of a frame in which phones are counted
PAUSE = 8  # frames that a pause lasts at least
VOICE = (2.5, 6.0)  # seconds of a voice, at least and at most
TEXT = (2.0, 9.0)  # of what it says


@dataclass
class Half:
    """Where a recording is cut: the pause's middle and the text's end, in frames, and the words between."""

    cut: int
    end: int
    text: str


def halve(folder: Path, speakers: tuple[str, ...], out: Path) -> list[dict]:
    """OUT/pairs.jsonl and OUT/audio of the recordings of `speakers` in a prepared and aligned folder, as far as they can be cut.

    SlmError: no alignments, or no recording that can be cut.
    """
    from rich.console import Console
    from rich.progress import track

    from slm.data import audio
    from slm.data import cuts as cut_files
    from slm.data.aligned import read_phones

    phones, rows = read_phones(folder), []
    (out / "audio").mkdir(parents=True, exist_ok=True)
    cuts = [cut for cut in cut_files.load(folder) if cut_files.speaker_of(cut) in speakers and cut.id in phones]
    for cut in track(cuts, "Cutting", console=Console(stderr=True)):
        half = place(cut_files.text_of(cut), phones[cut.id])
        if half is None:
            continue
        samples, rate = cut_files.audio_of(cut)
        at, end = (round(frames * FRAME * rate) for frames in (half.cut, half.end))
        paths = {"prompt_path": f"audio/{cut.id}-voice.flac", "gt_path": f"audio/{cut.id}.flac"}
        audio.write(out / paths["prompt_path"], samples[:, :at], rate)
        audio.write(out / paths["gt_path"], samples[:, at:end], rate)
        rows.append({"id": cut.id, "speaker": cut_files.speaker_of(cut), "text": half.text} | paths)
    if not rows:
        raise SlmError(f"{folder} has no recording of {len(speakers)} speakers that has a pause after {VOICE[0]:g} to {VOICE[1]:g} s")
    write_lines(out / "pairs.jsonl", rows)
    return rows


def place(said: str, phones: list[tuple[str, int]]) -> Half | None:
    """What was said and its phones with their frames -> where to cut it, None if no pause is where one is needed."""
    import torch

    from slm.data.worded import numbered
    from slm_tokenizers.text.phonemes import IDS, SIL, Phonemes

    text = Phonemes()
    words = [word for word, _ in text.words(said) if word]
    number = numbered(text, said, torch.tensor([IDS[symbol] for symbol, _ in phones])).tolist()
    pauses, at = [], 0  # (first frame, middle, words before it)
    for i, (symbol, frames) in enumerate(phones):
        if symbol == SIL and frames >= PAUSE and i:
            pauses.append((at, at + frames // 2, number[i] + 1))
        at += frames
    if not pauses or pauses[-1][2] < len(words):
        pauses.append((at, at, len(words)))
    for begin, middle, before in pauses:
        if not VOICE[0] <= begin * FRAME <= VOICE[1]:
            continue
        ends = [pause for pause in pauses if TEXT[0] <= (pause[0] - middle) * FRAME <= TEXT[1]]
        if ends:
            return Half(middle, ends[-1][1], " ".join(words[before : ends[-1][2]]))
    return None
