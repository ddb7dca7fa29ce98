"""Scores side by side: a table for people, one JSON file for everything else, seed and settings stored beside the figures.

A line is a kind of audio ("real recordings", "codec reconstruction", the model); a score is one measure of it.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slm.data.replacing import replacing
from slm.evaluate.interval import Paired, bootstrap

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


@dataclass(frozen=True)
class Score:
    """One measure over `n` utterances; `low` and `high` bound it at 95 %."""

    name: str
    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        digits = 1 if self.name.endswith(("%", "dB")) else 3
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}] n={self.n}"


def mean_score(name: str, values: list[float], seed: int = 0) -> Score:
    """The mean of `values` with its bootstrap interval. `values` must not be empty."""
    return Score(name, float(np.mean(values)), *bootstrap(values, seed=seed), len(values))


def ratio_score(name: str, tops: list[float], bottoms: list[float], seed: int = 0) -> Score:
    """sum(tops) / sum(bottoms) with its bootstrap interval: the pooled WER of errors and words, the RTF of wall and speech seconds."""
    return Score(name, float(np.sum(tops) / np.sum(bottoms)), *bootstrap(tops, bottoms, seed=seed), len(tops))


@dataclass
class Report:
    """Everything an evaluation found. `lines` holds the scores of each kind of audio, `settings` what is needed to run it again."""

    lines: dict[str, list[Score]]
    settings: dict
    paired: dict[str, Paired] = field(default_factory=dict)
    stop_reasons: dict[str, int] = field(default_factory=dict)
    utterances: list[dict] = field(default_factory=list)

    def score(self, line: str, name: str) -> Score:
        """The score called `name` of `line`. Raises KeyError when there is none."""
        return {s.name: s for s in self.lines[line]}[name]

    def table(self) -> "Table":
        """Measures down, lines across; an empty cell where a measure makes no sense for a line."""
        from rich.table import Table

        table = Table("measure", *self.lines)
        for name, cells in self.rows():
            table.add_row(name, *cells)
        return table

    def rows(self) -> list[tuple[str, list[str]]]:
        """Each measure with what each line has of it."""
        names = dict.fromkeys(s.name for scores in self.lines.values() for s in scores)
        return [(name, [next((str(s) for s in scores if s.name == name), "") for scores in self.lines.values()]) for name in names]

    def remarks(self) -> list[str]:
        """The lines below the table: paired tests, stop reasons, size, and what n and the brackets mean."""
        lines = [f"{name}: {t.difference:+.3f} [{t.low:+.3f}, {t.high:+.3f}], p={t.p:.2g}, n={t.n}" for name, t in self.paired.items()]
        if self.stop_reasons:
            lines.append("stop reasons: " + ", ".join(f"{reason} {count}" for reason, count in self.stop_reasons.items()))
        if parameters := self.settings.get("decode", {}).get("parameters"):
            lines.append(f"the model: {parameters / 1e6:.1f} million parameters, its codec among them")
        return [*lines, "value [95 % bootstrap interval over utterances] n=utterances"]

    def show(self, console: "Console") -> None:
        """Print the table and, below it, the remarks."""
        console.print(self.table())
        for line in self.remarks():
            console.print(line, highlight=False, markup=False)

    def write(self, path: str | Path) -> None:
        """Store everything as JSON at `path`, whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            part.write_text(json.dumps(asdict(self), indent=1, default=str) + "\n", encoding="utf-8")
