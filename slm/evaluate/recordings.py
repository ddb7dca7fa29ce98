"""Recordings to measure on, from wherever they are listed: files, folders, prepared folders, manifests.

N samples
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from slm.errors import SlmError

if TYPE_CHECKING:
    from lhotse.cut import Cut
    from torch import Tensor

HELD_OUT = "held-out"  # as a speaker: those of slm.data.splits


@dataclass
class Recording:
    """`text` and `speaker` where they are known."""

    id: str
    source: Path | Cut
    text: str | None = None
    speaker: str | None = None

    def read(self) -> tuple[Tensor, int]:
        """audio [1,N] and its rate in Hz. SlmError if it is no audio, empty or not finite."""
        from slm.data import audio, cuts

        return audio.read(self.source, shortest=0.0) if isinstance(self.source, Path) else cuts.audio_of(self.source, shortest=0.0)


def recordings(places: Sequence[str | Path], speakers: Collection[str] = (), limit: int | None = None) -> list[Recording]:
    """Everything at `places`, in order: of `speakers` only where they are given, and `limit` of it, spread evenly.

    A place is an audio file, a manifest (.jsonl), cuts (.jsonl.gz) or a folder: prepared, in a layout of slm.data.corpus, or of audio.
    SlmError if a place holds no audio, or a speaker is in none.
    """
    found = [recording for place in map(Path, places) for recording in listed(place)]
    if speakers:
        wanted = expand(speakers)
        if missing := sorted(expand(set(speakers) - {HELD_OUT}) - {r.speaker for r in found}):
            raise SlmError(f"there is no recording of the speaker {missing[0]!r} in {', '.join(map(str, places))}")
        found = [r for r in found if r.speaker in wanted]
        if not found:
            raise SlmError(f"none of the held-out speakers is in {', '.join(map(str, places))}")
    if limit is not None and limit < len(found):
        found = [found[i * len(found) // limit] for i in range(limit)]
    return found


def expand(speakers: Collection[str]) -> set[str]:
    from slm.data import splits

    return {s for name in speakers for s in (splits.HELD_OUT if name == HELD_OUT else (name,))}


def listed(place: Path) -> list[Recording]:
    prepared = place / "cuts.jsonl.gz" if place.is_dir() else place
    if prepared.name.endswith(".jsonl.gz") and prepared.exists():
        found = of_cuts(prepared)
    elif place.is_dir() or place.suffix == ".jsonl":
        found = of_corpus(place)
    else:
        found = [Recording(place.name, place)]
    if not found:
        raise SlmError(f"{place} holds no audio")
    return found


def of_cuts(path: Path) -> list[Recording]:
    from slm.data import cuts

    return [Recording(cut.id, cut, cuts.text_of(cut) or None, cuts.speaker_of(cut)) for cut in cuts.load(path)]


def of_corpus(place: Path) -> list[Recording]:
    """What a corpus lists and cannot give, such as a line whose file is missing, is left out with a warning."""
    from slm.data.corpus import Skip, read_layout

    found = []
    for clip in read_layout(place, "manifest" if place.is_file() else "auto"):
        if isinstance(clip, Skip):
            warnings.warn(f"Left out: {clip.reason}", stacklevel=2)
        else:
            found.append(Recording(clip.id, clip.path, clip.text, clip.speaker))
    return found
