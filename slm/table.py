"""`slm tokenizers`: codecs side by side, and what comes of a recording that goes through them.

B batch   N samples   Q levels   T frames
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm.codes import BUNDLED, load_tokenizer

if TYPE_CHECKING:
    from slm.evaluate.coders import Coder
    from slm.evaluate.recordings import Recording
    from slm.evaluate.report import Score

PROMPT = Path(__file__).parent / "models" / "default" / "voice.flac"
ITSELF = "the recording itself"
DISTANCES = {"log-mel L1": "mel distance", "STOI": "STOI", "PESQ": "PESQ", "SI-SNR dB": "SI-SNR dB"}
JUDGEMENTS = {"WER %": "WER %", "similarity": "same voice", "MOS": "predicted MOS"}


@dataclass
class Row:
    """What a coder is, as far as that can be said of it; `scores` by name, empty for a shape without weights."""

    name: str
    rate: int | None = None  # Hz
    frames: float | None = None  # a second
    levels: int | None = None
    card: int | None = None
    kbps: float | None = None  # of whole frames, or where a coder's rate varies what it took
    parameters: float | None = None  # millions
    causal: bool | None = None
    scores: dict[str, Score] = field(default_factory=dict)


@dataclass
class Comparison:
    """`each` holds the figures of every recording through every coder, so that coders can be compared pair by pair."""

    rows: list[Row]
    recordings: int
    settings: dict
    each: list[dict]


def describe(name: str, tokenizer: Any, n_q: int | None = None) -> Row:
    parameters = sum(p.numel() for p in tokenizer.parameters()) / 1e6
    causal = bool(getattr(tokenizer.config, "causal", getattr(tokenizer, "causal", False)))
    frames, levels = tokenizer.rate / tokenizer.hop, n_q or tokenizer.n_q
    return Row(name, tokenizer.rate, frames, levels, tokenizer.card, frames * levels * math.log2(tokenizer.card) / 1000, parameters, causal)


def published() -> list[Row]:
    """The published models as shapes; their weights are loaded by path."""
    import torch

    from slm_tokenizers import dac, encodec, mimi, soundstream, speechtokenizer

    shapes = {
        "EnCodec 24 kHz": encodec.Encodec.Config(),
        "EnCodec 48 kHz, stereo": encodec.stereo_48khz(),
        "SoundStream": soundstream.SoundStream.Config(),
        "SpeechTokenizer": speechtokenizer.SpeechTokenizer.Config(),
        "DAC 44 kHz": dac.DAC.Config(),
        "DAC 16 kHz": dac.khz16(),
        "Mimi": mimi.Mimi.Config(),
    }
    with torch.device("meta"):  # shapes alone: nothing is drawn, nothing is stored
        return [describe(name, config.build()) for name, config in shapes.items()]


def coders(paths: Sequence[str], opus: Sequence[float]) -> dict[str, tuple[Coder, Row]]:
    """The bundled tokenizers, those at `paths` (PATH, or PATH@LEVELS for its first levels only), and Opus at `opus` kbit/s.

    SlmError if a path holds no codec, if a codec has fewer levels, or if Opus cannot be had.
    """
    from slm.evaluate.coders import Levels
    from slm.evaluate.opus import Opus

    found, loaded = {}, {}
    for name in (*BUNDLED, *paths):
        path, n_q = level_of(name)
        if path not in loaded:
            loaded[path] = load_tokenizer(path)
        found[name] = Levels(loaded[path], n_q, path), describe(name, loaded[path], n_q)
    for kbps in opus:
        coder = Opus(kbps)
        found[f"Opus at {kbps:g}"] = coder, Row(f"Opus at {kbps:g}", coder.rate)
    return found


def level_of(name: str) -> tuple[str, int | None]:
    """PATH@LEVELS -> PATH and LEVELS; a name without a number, or of something that is there, is a path."""
    path, at, levels = name.rpartition("@")
    return (path, int(levels)) if at and levels.isdecimal() and not Path(name).exists() else (name, None)


def compare(
    paths: Sequence[str] = (),
    data: Sequence[Path] = (),
    opus: Sequence[float] = (),
    judged: bool = False,
    speakers: Collection[str] = (),
    limit: int | None = None,
) -> Comparison:
    """Every coder on every recording, then the published shapes. `judged` lets recogniser, speaker encoder and opinion hear them too.

    data: what slm.evaluate.recordings reads; by default the bundled prompt. What the user can mend is an SlmError before anything is
    measured, but for audio that cannot be read.
    """
    from slm.evaluate.recordings import recordings
    from slm.evaluate.resynthesis import scores

    made, judges, settings = coders(paths, opus), None, {"heard at Hz": 16_000}
    if judged:
        from slm.evaluate.judge import load_judges

        judges = load_judges()
        settings["judges"] = judges.settings
    heard = recordings(data or [PROMPT], speakers, limit)
    each = hear(heard, {name: coder for name, (coder, _) in made.items()}, judges)
    rows = ([Row(ITSELF)] if judges else []) + [row for _, row in made.values()]
    for row in rows:
        row.scores = scores([figures for figures in each if figures["coder"] == row.name])
        if row.kbps is None and "kbit/s" in row.scores:
            row.kbps = row.scores["kbit/s"].value
    return Comparison(rows + published(), len(heard), settings, each)


def hear(heard: Sequence[Recording], coders: dict[str, Coder], judges: Any) -> list[dict]:
    """The figures of each recording, first of itself if there are judges, then through each coder."""
    from rich.console import Console
    from rich.progress import track

    from slm.evaluate.pairs import as_judged
    from slm.evaluate.resynthesis import opinion, rebuild

    each = []
    for recording in track(heard, "Measuring", console=Console(stderr=True), transient=True):
        audio, rate = recording.read()
        known = {"recording": recording.id, "speaker": recording.speaker}
        voice = None
        if judges:
            whole = as_judged(audio, rate)
            voice = judges.encoder.embed(whole)
            each.append({"coder": ITSELF, **known, **opinion(judges, whole, recording.text, None)})
        for name, coder in coders.items():
            rebuilt, figures = rebuild(coder, audio, rate)
            judgement = opinion(judges, rebuilt, recording.text, voice) if judges else {}
            each.append({"coder": name, **known, **figures, **judgement})
    return each


def write(compared: Comparison, path: Path) -> None:
    """Everything as JSON at `path`, whole or not at all."""
    from slm.data.replacing import write_json

    write_json(path, asdict(compared))


def show(compared: Comparison) -> None:
    """Print what coders are and how far off their audio is, and below it what judges say; a shape without weights has no figures."""
    from rich.console import Console
    from rich.table import Table

    rows, n = compared.rows, compared.recordings
    measured = [row for row in rows if row.scores]
    facts = Table(caption="- is a shape whose weights are loaded by their path, or what has no meaning")
    names = [name for name in DISTANCES if any(name in row.scores for row in rows)]
    columns(facts, "tokenizer", "Hz", "frames/s", "codebooks", "kbit/s", "M parameters", "causal", *(DISTANCES[name] for name in names))
    for row in rows:
        if row.name != ITSELF:
            facts.add_row(*fields(row), *(cell(row, name) for name in names))
    console = Console(width=140)
    console.print(facts)
    if judgements := [name for name in JUDGEMENTS if any(name in row.scores for row in rows)]:
        judged = Table()
        columns(judged, "tokenizer", "kbit/s", *(JUDGEMENTS[name] for name in judgements))
        for row in measured:
            judged.add_row(row.name, "-" if row.kbps is None else f"{row.kbps:.2f}", *(cell(row, name) for name in judgements))
        console.print(judged)
    texts = max((row.scores["WER %"].n for row in measured if "WER %" in row.scores), default=0)
    known = f", {texts} of them with a text" if judgements else ""
    interval = "; below a figure its 95 % bootstrap interval over them" if n > 1 else ""
    console.print(f"{n} recording{'s' * (n != 1)}{known}, heard at 16 kHz{interval}", highlight=False)


def columns(table: Any, *headings: str) -> None:
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="right" if i else "left", overflow="fold")


def fields(row: Row) -> list[str]:
    """The facts of a row as text."""
    books = None if row.levels is None else f"{row.levels} x {row.card}"
    kbps, parameters = (None if x is None else f"{x:.{digits}f}" for x, digits in ((row.kbps, 2), (row.parameters, 1)))
    causal = None if row.causal is None else "yes" if row.causal else "no"
    frames = None if row.frames is None else f"{row.frames:g}"
    return ["-" if text is None else str(text) for text in (row.name, row.rate, frames, books, kbps, parameters, causal)]


def cell(row: Row, name: str) -> str:
    """A figure, and below it the interval where there are several recordings."""
    if name not in row.scores:
        return "-"
    score, digits = row.scores[name], 1 if name.endswith(("%", "dB")) else 2
    interval = f"\n[dim]{score.low:.{digits}f}..{score.high:.{digits}f}[/dim]" if score.n > 1 else ""
    return f"{score.value:.{digits}f}{interval}"
