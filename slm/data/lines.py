"""Lines of plain text, for a language model of text alone.   L ids of a line"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from slm.data.batches import Batches
from slm.errors import SlmError

WORDS = "the sun came out and a small dog ran over the wide green hill to the sea".split()


@dataclass
class Lines:
    """Config: text files, a sentence a line; batches of at most `ids` ids, of lines of at most `longest`."""

    files: tuple[str, ...] = ("data/texts/librispeech.txt", "data/texts/ljspeech.txt")
    longest: int = 256
    ids: int = 4096
    seed: int = 0

    def build(self, tokenizers: dict[str, Any]) -> "LineRows":
        return LineRows(self, tokenizers["text"], [line for file in self.files for line in read(Path(file))])


@dataclass
class MadeUpLines:
    """Config: the same from a dozen words, in any order."""

    count: int = 40
    seed: int = 0

    def build(self, tokenizers: dict[str, Any]) -> "LineRows":
        draw = np.random.default_rng(self.seed)
        lines = [" ".join(draw.choice(WORDS, 5)) for _ in range(self.count)]
        return LineRows(Lines((), ids=300, seed=self.seed), tokenizers["text"], lines)


def read(path: Path) -> list[str]:
    """The lines of a file that hold anything. SlmError: it cannot be read."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise SlmError(f"{path}: no lines of text can be read here ({type(error).__name__})") from None


class LineRows:
    """`at(step)` -> text, a list of rows [L]; a function of (seed, step)."""

    def __init__(self, config: Lines, tokenizer: Any, lines: list[str]) -> None:
        rows = [row for row in map(tokenizer.encode, lines) if 0 < len(row) <= config.longest]
        if not rows:
            raise SlmError(f"no line of {', '.join(config.files)} has at most {config.longest} ids")
        self.batches = Batches(rows, len, max(config.ids, config.longest), config.seed)

    def at(self, step: int, rank: int = 0, world: int = 1) -> dict[str, list[Tensor]]:
        return {"text": self.batches.at(step, rank, world)}
