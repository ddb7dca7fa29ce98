"""A model speaks every pair in its prompt's voice, beside the real recordings and the codec's reconstruction of them.

The real line says what the judges make of a human being, the reconstruction what the codec alone costs; the rest is the model's own.
RTF is wall time over seconds of speech, reading the prompt included; one request before the first is not counted, since it loads things.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from slm.errors import SlmError
from slm.evaluate.judge import Judges, Voiced, judge, load_judges
from slm.evaluate.page import kept, write_page
from slm.evaluate.pairs import Pair, read_audio
from slm.evaluate.peers import peer
from slm.evaluate.report import Report

REAL, REBUILT, MODEL = "real recordings", "codec reconstruction", "model"


class Spoken(Protocol):
    """audio [N] at `rate` Hz."""

    audio: Any
    rate: int
    stop_reason: str

    def save(self, path: str) -> None: ...


class Speaks(Protocol):
    """What is asked of a model."""

    settings: dict

    def speak(self, text: str, voice: str, seed: int) -> Spoken: ...

    def stream(self, text: str, voice: str, seed: int) -> Iterator[Spoken]: ...

    def reconstruct(self, audio: Any, rate: int) -> tuple[Any, int]: ...


def evaluate(model: Speaks, pairs: Sequence[Pair], out_dir: str | Path, seed: int = 0, judges: Judges | None = None,
             streamed: int = 16, progress: bool = True, beside: Sequence[str] = (), title: str = "Evaluation") -> Report:
    """Speak and judge `pairs`; out_dir gets report.json (seed and decode settings inside), audio/ID.wav of what was said, and index.html.

    beside: other systems that are heard too, as peers.py names them. Pair i is spoken with seed + i; time to first audio is taken on the
    first `streamed` pairs. Raises SlmError for an unreadable file, speech that is not finite, or a judge that is not installed.
    """
    if not pairs:
        raise SlmError("there is nothing to evaluate: the list of pairs is empty")
    others = dict(map(peer, beside))
    judges = judges or load_judges()
    folder = Path(out_dir)
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    model.speak(pairs[0].text, voice=pairs[0].prompt_path, seed=seed)

    def spoken(i: int, pair: Pair) -> Voiced:
        voiced = speak(model, pair, seed + i, folder / "audio" / f"{pair.id}.wav")
        if i < streamed:
            voiced.first_audio_seconds = first_audio(model, pair, seed + i)
        return voiced

    sources = {REAL: recording, REBUILT: lambda i, pair: rebuilt(model, pair), MODEL: spoken} | others
    sources = {line: kept(line, source, folder) for line, source in sources.items()}
    report = judge(sources, pairs, judges, seed, progress)
    report.settings |= {"decode": dict(model.settings), "streamed": min(streamed, len(pairs))}
    report.write(folder / "report.json")
    write_page(report, pairs, folder, title)
    return report


def recording(i: int, pair: Pair) -> Voiced:
    """The speaker's own recording of the text: the source of the line REAL."""
    return Voiced(*read_audio(pair.reference_path))


def rebuilt(model: Speaks, pair: Pair) -> Voiced:
    """The same recording through the model's codec."""
    import torch

    audio, rate = read_audio(pair.reference_path)
    again, again_rate = model.reconstruct(torch.from_numpy(audio)[None], rate)
    return Voiced(again, again_rate, original=Voiced(audio, rate))


def speak(model: Speaks, pair: Pair, seed: int, path: Path) -> Voiced:
    """The text in the prompt's voice, timed and kept at `path`."""
    start = time.perf_counter()
    speech = model.speak(pair.text, voice=pair.prompt_path, seed=seed)
    wall = time.perf_counter() - start
    if len(speech.audio):  # an empty answer is judged as silence, but makes no file
        speech.save(str(path))
    return Voiced(speech.audio, speech.rate, wall, stop_reason=speech.stop_reason)


def first_audio(model: Speaks, pair: Pair, seed: int) -> float | None:
    """Seconds from the request to the first piece that holds samples; None when there is none."""
    start = time.perf_counter()
    pieces = model.stream(pair.text, voice=pair.prompt_path, seed=seed)
    for piece in pieces:
        if len(piece.audio):
            return time.perf_counter() - start
    return None
