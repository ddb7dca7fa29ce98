"""What an evaluation asks for: a text, whose voice, and the same speaker's own recording of that text.

A manifest is JSON lines with `prompt_path`, `text` and `gt_path`, perhaps `id` and `speaker`; paths are relative to the manifest.
N samples
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slm.errors import SlmError
from slm.evaluate.normalise import normalise

JUDGED = 16_000  # Hz, what every judge hears


@dataclass(frozen=True)
class Pair:
    """`text` is to be said in the voice of `prompt_path`; `reference_path` is the speaker saying it."""

    text: str
    prompt_path: str
    reference_path: str
    speaker: str
    id: str


def read_pairs(path: str | Path) -> list[Pair]:
    """The pairs of a manifest, in its order; a line without a speaker counts as one of its own prompt.

    Raises SlmError, naming the line, for broken JSON, a missing field, a missing file, a text without words or an id used twice.
    """
    path = Path(path)
    try:
        rows = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SlmError(f"the manifest {path} cannot be read: {error}") from error
    pairs = [_pair(row, path, i) for i, row in enumerate(rows, 1) if row.strip()]
    if not pairs:
        raise SlmError(f"the manifest {path} holds no pairs")
    seen: set[str] = set()
    for pair in pairs:
        if pair.id in seen:
            raise SlmError(f"{path}: the id {pair.id!r} is used twice; ids name files and must differ")
        seen.add(pair.id)
    return pairs


def _pair(row: str, path: Path, i: int) -> Pair:
    try:
        entry = json.loads(row)
        text, prompt, reference = (entry[key] for key in ("text", "prompt_path", "gt_path"))
    except (ValueError, KeyError, TypeError) as error:
        raise SlmError(f"{path}, line {i}: a pair is a JSON object with text, prompt_path and gt_path ({error!r})") from error
    if not normalise(text):
        raise SlmError(f"{path}, line {i}: the text {text!r} has no words to count errors on")
    prompt, reference = path.parent / prompt, path.parent / reference
    for file in (prompt, reference):
        if not file.is_file():
            raise SlmError(f"{path}, line {i}: there is no file {file}")
    name = str(entry.get("id", f"{i:05d}")).replace("/", "_")
    return Pair(text, str(prompt), str(reference), str(entry.get("speaker", prompt)), name)


def read_audio(path: str | Path) -> tuple[np.ndarray, int]:
    """A recording's channels averaged, [N] float32, and its own rate in Hz. Raises SlmError when it is no audio, empty or not finite."""
    from slm.data.audio import read

    audio, rate = read(path, shortest=0)
    return audio[0].numpy(), rate


def as_judged(audio, rate: int) -> np.ndarray:
    """audio [N], [1,N] or [1,1,N] at `rate` Hz, a tensor or an array -> [N] float32 at 16 kHz."""
    import torch

    from slm.data.audio import resample

    flat = torch.as_tensor(audio).detach().to("cpu", torch.float32).reshape(-1)
    return (resample(flat, rate, JUDGED) if len(flat) else flat).numpy()
