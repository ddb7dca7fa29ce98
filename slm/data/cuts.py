"""Lhotse cuts: one is a piece of a recording with its text and speaker, one JSON line in a manifest.

Plain files are read by `slm.data.audio`, so that one reader and one set of errors serve everything; whatever else a cut can be (mixed,
augmented, behind a URL) is left to Lhotse. Lhotse takes seconds to import and is imported on use.
"""

import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from slm.data import audio
from slm.data.corpus import Clip
from slm.errors import SlmError

if TYPE_CHECKING:
    import numpy as np
    from lhotse import CutSet
    from lhotse.cut import Cut


def make(clip: Clip, rate: int, samples: int, channels: int) -> "Cut":
    """A cut over the whole of a clip's file. The clip's id is the cut's; clip.custom becomes cut.custom."""
    from lhotse import AudioSource, Recording, SupervisionSegment

    recording = Recording(
        id=clip.id,
        sources=[AudioSource(type="file", channels=list(range(channels)), source=str(clip.path))],
        sampling_rate=rate,
        num_samples=samples,
        duration=samples / rate,
    )
    cut = recording.to_cut()
    cut.custom = clip.custom
    cut.supervisions = [
        SupervisionSegment(
            id=clip.id,
            recording_id=clip.id,
            start=0.0,
            duration=recording.duration,
            channel=cut.channel,
            text=clip.text,
            language=clip.language,
            speaker=clip.speaker,
            gender=clip.custom.get("gender"),
        )
    ]
    return cut


def load(path: str | Path) -> "CutSet":
    """A manifest such as cuts.jsonl.gz, or a folder that holds one of that name -> its cuts, all in memory."""
    path = Path(path) / "cuts.jsonl.gz" if Path(path).is_dir() else Path(path)
    if not path.is_file():
        raise SlmError(f"There is no manifest {path}: `slm prepare` makes one.")
    from lhotse import CutSet

    try:
        cuts = CutSet.from_cuts(list(CutSet.from_file(path)))
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError, EOFError, OSError, zlib.error):
        raise SlmError(f"{path} is not a Lhotse manifest of cuts, or it is damaged.") from None
    return cuts


def text_of(cut: "Cut") -> str:
    """The texts of a cut's supervisions, joined; empty if there are none."""
    return " ".join(supervision.text for supervision in cut.supervisions if supervision.text)


def speaker_of(cut: "Cut") -> str | None:
    """The speaker of a cut's first supervision, if known."""
    return next((supervision.speaker for supervision in cut.supervisions), None)


def key_of(cut: "Cut") -> str:
    """What the cut's audio is, for a cache: its content where `prepare` noted that, wherever the file lies; its id and place otherwise."""
    content = (cut.custom or {}).get("content") if hasattr(cut, "custom") else None
    return f"{content or cut.id}:{getattr(cut, 'start', 0)}:{cut.duration}"


def audio_of(cut: "Cut", shortest: float = 0.1) -> tuple[Tensor, int]:
    """A cut -> (audio [1,N] float32, rate in Hz). Several channels are averaged. SlmError as for `audio.read`."""
    recording = getattr(cut, "recording", None)
    if recording is None or recording.transforms or [source.type for source in recording.sources] != ["file"]:
        return _by_lhotse(cut)
    if isinstance(cut.channel, list) and cut.channel != recording.channel_ids:
        return _by_lhotse(cut)
    channel = cut.channel if isinstance(cut.channel, int) and recording.num_channels > 1 else None
    part = {} if cut.start == 0 and cut.duration == recording.duration else {"start": cut.start, "seconds": cut.duration}
    return audio.read(recording.sources[0].source, shortest, channel, **part)


def clip_of(cut: "Cut", rate: int) -> "np.ndarray | None":
    """A cut -> its samples [N] at `rate` Hz, int16 to be kept; None, and a warning that says why, where it cannot be read."""
    try:
        samples, own = audio_of(cut)
    except SlmError as error:
        warnings.warn(f"Left out of training: {error}", stacklevel=3)
        return None
    return audio.narrow(audio.resample(samples, own, rate)[0])


def _by_lhotse(cut: "Cut") -> tuple[Tensor, int]:
    from lhotse.audio import AudioLoadingError, DurationMismatchError

    try:
        samples = torch.from_numpy(cut.load_audio())  # [C,N]
    except (AudioLoadingError, DurationMismatchError, OSError) as error:
        raise SlmError(f"The audio of cut {cut.id} cannot be loaded: {str(error).splitlines()[0]}") from None
    if not bool(samples.isfinite().all()):
        raise SlmError(f"The audio of cut {cut.id} holds samples that are NaN or infinite.")
    return audio.to_mono(samples.float()), cut.sampling_rate
