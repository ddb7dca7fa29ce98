"""A speech corpus on disk -> OUT/cuts.jsonl.gz (Lhotse cuts) and OUT/skipped.jsonl (what could not be used, and why).

Every file is decoded once, here, so that a damaged one shows before training and not in the middle of it.
"""

import gzip
import json
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import soundfile

from slm.data import audio, cuts
from slm.data.corpus import Clip, Skip, read_layout
from slm.data.replacing import replacing
from slm.errors import SlmError

if TYPE_CHECKING:
    from lhotse.cut import Cut
    from rich.console import Console

SILENT = -80.0  # dB below full scale
WHOLE = 0.8  # of the duration in the manifest: a file cut off no longer holds its text


@dataclass
class Prepared:
    """What became of a corpus: n clips of `hours` in all, written to `path`; clips_of, hours_of (source, licence, real or not)."""

    path: Path
    n: int = 0
    hours: float = 0.0
    with_text: int = 0
    speakers: set[str] = field(default_factory=set)
    skipped: list[Skip] = field(default_factory=list)
    excluded: Counter[str] = field(default_factory=Counter)
    clips_of: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    hours_of: Counter[tuple[str, str, str]] = field(default_factory=Counter)


def prepare(source: str | Path, out: str | Path, layout: str = "auto", exclude_sources: Collection[str] = ()) -> Prepared:
    """Read the corpus at `source` and write its cuts into the folder `out`; clips whose source is in `exclude_sources` are left out.

    layout: auto, folder, ljspeech, librispeech or manifest (see corpus.py). Paths in the cuts are absolute. Bad files are skipped.
    SlmError, and no cuts.jsonl.gz, if the source or the layout is not there or nothing at all can be used.
    """
    from rich.console import Console
    from rich.progress import track

    source, out = Path(source), Path(out)
    entries = list(read_layout(source, layout))
    if out.exists() and not out.is_dir():
        raise SlmError(f"{out} is a file, not a folder to prepare into.")
    out.mkdir(parents=True, exist_ok=True)
    done, ids = Prepared(out / "cuts.jsonl.gz"), set()
    # no time and no name in the gzip header: the same corpus gives the same bytes
    with replacing(done.path) as path, open(path, "wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
        for entry in track(entries, f"Reading {source.resolve().name}", console=Console(stderr=True)):
            if isinstance(entry, Clip) and entry.custom["source"] in exclude_sources:
                done.excluded[entry.custom["source"]] += 1
            elif isinstance(cut := _cut(entry, ids), Skip):
                done.skipped.append(cut)
            else:
                _count(cut, done)
                file.write(json.dumps(cut.to_dict(), ensure_ascii=False).encode() + b"\n")
        _report(done, source, out / "skipped.jsonl")
    _summary(done, Console())
    return done


def _cut(entry: Clip | Skip, ids: set[str]) -> "Cut | Skip":
    """The entry as a cut whose file has been read, with an id that `ids` did not have yet."""
    if isinstance(entry, Skip):
        return entry
    try:
        if entry.id in ids:
            raise SlmError(f"The id {entry.id} of {entry.path} is taken by an earlier clip.")
        samples, rate = audio.read(entry.path)  # [1,N]
        if audio.level(samples) < SILENT:
            raise SlmError(f"{entry.path} is silent.")
        seconds = samples.shape[-1] / rate
        if entry.seconds and seconds < WHOLE * entry.seconds:
            raise SlmError(f"{entry.path} lasts {seconds:.2f} s, but its manifest says {entry.seconds:.2f} s.")
    except SlmError as error:
        return Skip(str(entry.path), str(error))
    ids.add(entry.id)
    entry.custom["content"] = blake2b(entry.path.read_bytes(), digest_size=8).hexdigest()
    return cuts.make(entry, rate, samples.shape[-1], soundfile.info(entry.path).channels)


def _count(cut: "Cut", done: Prepared) -> None:
    hours = cut.duration / 3600
    done.n += 1
    done.hours += hours
    done.with_text += bool(cuts.text_of(cut))
    done.speakers |= {cuts.speaker_of(cut)} - {None}
    kind = (str(cut.custom["source"]), str(cut.custom.get("licence", "unknown")), "synthetic" if cut.custom["synthetic"] else "real")
    done.clips_of[kind] += 1
    done.hours_of[kind] += hours


def _report(done: Prepared, source: Path, path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_text("".join(json.dumps(asdict(skip), ensure_ascii=False) + "\n" for skip in done.skipped), encoding="utf-8")
    if done.n == 0:
        why = (
            f"the first of {len(done.skipped)} entries skipped says: {done.skipped[0].reason}"
            if done.skipped
            else "there are no clips in it."
        )
        raise SlmError(f"Nothing at {source} can be used: {why}")


def _summary(done: Prepared, console: "Console") -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("source", "licence", "kind", "clips", "hours")
    for kind in sorted(done.hours_of):
        table.add_row(*map(escape, kind), str(done.clips_of[kind]), f"{done.hours_of[kind]:.2f}")
    console.print(table)
    print(f"{done.path}: {done.n} clips ({done.with_text} with text), {done.hours:.2f} hours, {len(done.speakers)} speakers")
    for name, count in done.excluded.items():
        print(f"{count} clips of {name} left out as asked")
    if done.skipped:
        print(f"{len(done.skipped)} skipped, see {done.path.with_name('skipped.jsonl')}; the first: {done.skipped[0].reason}")
