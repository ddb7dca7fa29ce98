"""The layouts in which speech corpora come, read as clips; clips become Lhotse cuts.

    folder       audio files at any depth, with NAME.txt beside NAME.wav, or one transcripts.tsv / transcripts.csv (path, text, …)
    ljspeech     metadata.csv (name|text|normalised text) and wavs/
    librispeech  SPEAKER/CHAPTER/SPEAKER-CHAPTER-NUMBER.flac with *.trans.txt beside them
    manifest     JSON lines with path and, where known, text, speaker, id, gender, lang, source, licence, synthetic, …: all of it is kept

A layout is a function: folder -> an iterator of Clip, with a Skip for each entry that cannot become one. It reads texts and opens no audio.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from slm.errors import SlmError

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")
TABLES = {"transcripts.tsv": "\t", "transcripts.csv": ","}
PATH_COLUMNS = ("path", "file")
OWN = ("id", "text", "speaker", "lang", "duration", "sample_rate")  # these have a place of their own in a cut


@dataclass
class Clip:
    """One audio file and what is known of it. `custom` ends up in cut.custom."""

    id: str
    path: Path
    text: str | None = None
    speaker: str | None = None
    language: str | None = None
    seconds: float | None = None  # as its manifest has it
    custom: dict = field(default_factory=dict)


@dataclass
class Skip:
    """One entry that could not be used, and a sentence saying why."""

    path: str
    reason: str


def read_layout(source: Path, layout: str = "auto") -> Iterator[Clip | Skip]:
    """The clips of a corpus. SlmError if the source is missing, or the layout is unknown or not the one found there."""
    if not source.exists():
        raise SlmError(f"There is no corpus at {source}.")
    if layout != "auto" and layout not in LAYOUTS:
        raise SlmError(f"The layout {layout!r} is unknown: choose auto, {', '.join(LAYOUTS)}.")
    return LAYOUTS[detect(source) if layout == "auto" else layout](source)


def detect(source: Path) -> str:
    """The name of the layout found at `source`."""
    if source.is_file() or (source / "manifest.jsonl").is_file():
        return "manifest"
    if (source / "metadata.csv").is_file() and (source / "wavs").is_dir():
        return "ljspeech"
    if next(source.rglob("*.trans.txt"), None):
        return "librispeech"
    return "folder"


def folder(source: Path) -> Iterator[Clip | Skip]:
    """Any audio below `source`. The speaker is the table's, or else the first folder on the way to the file."""
    table = next((source / name for name in TABLES if (source / name).is_file()), None)
    rows, unread = _table(table) if table else ({}, [])
    yield from unread
    for path in audio_below(source):
        known = rows.pop(path.relative_to(source).as_posix(), None) or rows.pop(path.name, None) or rows.pop(path.stem, None) or {}
        if not table:
            try:
                known = {"text": _text(path.with_suffix(".txt"))} if path.with_suffix(".txt").is_file() else {}
            except SlmError as error:
                yield Skip(str(path), str(error))
                continue
        below = path.relative_to(source).parts
        yield _clip(path, source, {"speaker": below[0] if len(below) > 1 else None} | known)
    for name in rows:
        yield Skip(str(source / name), f"{table} names {name}, but there is no such audio file.")


def ljspeech(source: Path) -> Iterator[Clip | Skip]:
    """metadata.csv has name|text or name|text|normalised text and no quoting; the normalised text is taken."""
    files = {path.stem: path for path in audio_below(_need(source / "wavs"))}
    for number, line in enumerate(_lines(_need(source / "metadata.csv")), 1):
        name, *texts = line.split("|")
        if not texts:
            if line.strip():
                yield Skip(str(source / "metadata.csv"), f"Line {number} of {source / 'metadata.csv'} is not name|text.")
        elif name not in files:
            yield Skip(str(source / "wavs" / name), f"{source / 'metadata.csv'} names {name}, but there is no such audio file in wavs/.")
        else:
            text = next((text for text in reversed(texts) if text.strip()), "")
            yield _clip(files[name], source, {"id": name, "text": text, "speaker": source.resolve().name, "lang": "en"})


def librispeech(source: Path) -> Iterator[Clip | Skip]:
    """A line of *.trans.txt is an utterance's name and its text."""
    tables = sorted(source.rglob("*.trans.txt"))
    if not tables:
        raise SlmError(f"There is no *.trans.txt below {source}, so it is not in the librispeech layout.")
    for table in tables:
        files = {path.stem: path for path in table.parent.iterdir() if path.suffix.lower() in SUFFIXES}
        try:
            lines = _lines(table)
        except SlmError as error:
            yield Skip(str(table), str(error))
            continue
        for name, _, text in (line.partition(" ") for line in lines if line.strip()):
            if name in files:
                yield _clip(files[name], source, {"id": name, "text": text, "speaker": name.split("-")[0], "lang": "en"})
            else:
                yield Skip(str(table.parent / name), f"{table} names {name}, but there is no such audio file beside it.")


def manifest(source: Path) -> Iterator[Clip | Skip]:
    """One JSON object a line; paths are relative to the manifest."""
    path = source if source.is_file() else _need(source / "manifest.jsonl")
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            known = json.loads(line)
            audio = path.parent / known.pop("path")
        except (ValueError, KeyError, TypeError, AttributeError):
            yield Skip(str(path), f"Line {number} of {path} is not a JSON object with a path.")
            continue
        yield _clip(audio, path.parent, known)


LAYOUTS: dict[str, Callable[[Path], Iterator[Clip | Skip]]] = {
    "folder": folder,
    "ljspeech": ljspeech,
    "librispeech": librispeech,
    "manifest": manifest,
}


def _clip(path: Path, source: Path, known: dict) -> Clip:
    below = path.relative_to(source) if path.is_relative_to(source) else Path(path.name)
    custom = {"source": source.resolve().name, "synthetic": False}
    custom |= {name: value for name, value in known.items() if name not in OWN and value is not None}
    custom["synthetic"] = str(custom["synthetic"]).lower() in ("true", "yes", "1")  # a table holds words, not booleans
    text, speaker, language = (None if known.get(name) in (None, "") else str(known[name]).strip() for name in ("text", "speaker", "lang"))
    seconds = known.get("duration") if isinstance(known.get("duration"), (int, float)) else None
    return Clip(str(known.get("id") or below.with_suffix("").as_posix()), path.resolve(), text or None, speaker, language, seconds, custom)


def _table(path: Path) -> tuple[dict[str, dict], list[Skip]]:
    """transcripts.tsv / .csv -> {path or name: its other columns}. Without a heading the columns are path and text."""
    delimiter = TABLES[path.name]
    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    lines = [line for line in csv.reader(io.StringIO(_text(path), newline=""), delimiter=delimiter, quoting=quoting) if line]
    heading = [column.strip().lower() for column in lines[0]] if lines else []
    key = next((column for column in PATH_COLUMNS if column in heading), None)
    if key is None or "text" not in heading:
        heading, key = ["path", "text"], "path"
        rows = [[line[0], delimiter.join(line[1:])] for line in lines]
    else:
        rows = lines[1:]
    known, skipped = {}, []
    for number, row in enumerate(rows, 1):
        if len(row) != len(heading):
            skipped.append(Skip(str(path), f"Row {number} of {path} has {len(row)} columns instead of {len(heading)}."))
            continue
        entry = dict(zip(heading, row))
        known[entry.pop(key)] = entry
    return known, skipped


def audio_below(source: Path) -> list[Path]:
    return sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))


def _need(path: Path) -> Path:
    if not path.exists():
        raise SlmError(f"There is no {path}, which this layout needs.")
    return path


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError):
        raise SlmError(f"{path} cannot be read as UTF-8 text.") from None


def _lines(path: Path) -> list[str]:
    return _text(path).split("\n")  # str.splitlines would also cut at characters such as U+2028, which texts contain
