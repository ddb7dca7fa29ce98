"""Speech as codes of several tokenizers at once, cut where all of them are cut: the data of language models that need no text.

    Q levels   T frames   U units

`units` of a tokenizer that counts other frames than the first one are cut in proportion; with `collapsed` they lose their repetitions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from slm.errors import SlmError


@dataclass
class Spoken:
    """Config: `batch` crops of at most `seconds`, as codes of each of `streams`, from prepared folders.

    collapsed: streams of one level that are told without repetitions.   spans: streams that are levels (first, stop) of another.
    """

    streams: tuple[str, ...] = ("units", "acoustic")
    seconds: float = 6.0
    batch: int = 16
    folders: tuple[str, ...] = ("data/train", "data/synthetic", "data/more")
    held_out: tuple[str, ...] = ()
    collapsed: tuple[str, ...] = ("units",)
    spans: dict[str, tuple[str, int, int]] | None = None
    cache: str = "data/codes"
    seed: int = 0

    def build(self, tokenizers: dict[str, Any]) -> "SpokenRows":
        clips = [clip for folder in self.folders for clip in self.read(Path(folder), tokenizers)]
        return SpokenRows(self, clips, {name: tokenizers[name].rate / tokenizers[name].hop for name in self.streams})

    def read(self, folder: Path, tokenizers: dict[str, Any]) -> list[dict[str, Tensor]]:
        from slm.data import cuts as cut_files
        from slm.data.cache import codes_of

        cuts = [cut for cut in cut_files.load(folder) if cut_files.speaker_of(cut) not in self.held_out]
        codes = {name: codes_of(cuts, tokenizers[name], self.cache) for name in self.streams}
        return [{name: found[cut.id] for name, found in codes.items()} for cut in cuts if all(cut.id in found for found in codes.values())]


@dataclass
class MadeUpSpoken:
    """Config: the same rows from made-up speech."""

    of: Spoken

    def build(self, tokenizers: dict[str, Any]) -> "SpokenRows":
        from slm.data.madeup import utterance

        first = tokenizers[self.of.streams[0]]
        sounds = [utterance(0, row, 20, 40, 320, first.rate)[2] for row in range(8)]
        clips = [{name: tokenizers[name].encode(sound[None])[0] for name in self.of.streams} for sound in sounds]
        return SpokenRows(self.of, clips, {name: tokenizers[name].rate / tokenizers[name].hop for name in self.of.streams})


class SpokenRows:
    """`at(step)` -> a list of rows for each stream, [Q,T], or [U] for one level; a function of (seed, step).

    rates: frames a second. SlmError if there is no speech.
    """

    def __init__(self, config: Spoken, clips: list[dict[str, Tensor]], rates: dict[str, float]) -> None:
        if not clips:
            raise SlmError(f"no speech was found in {', '.join(config.folders)}; run slm prepare")
        self.config, self.clips, self.rates = config, clips, rates
        self.seconds = [min(clip[name].shape[1] / rates[name] for name in config.streams) for clip in clips]
        self.ends = np.cumsum(self.seconds)

    def at(self, step: int, rank: int = 0, world: int = 1) -> dict[str, list[Tensor]]:
        draw = np.random.default_rng([self.config.seed, step * world + rank])
        rows = [self.row(draw) for _ in range(self.config.batch)]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def row(self, draw: np.random.Generator) -> dict[str, Tensor]:
        """A longer recording is drawn more often, as it holds more speech."""
        i = int(np.searchsorted(self.ends, draw.uniform(0, self.ends[-1]), side="right"))
        length = min(self.config.seconds, self.seconds[i])
        return crop(self.config, self.clips[i], self.rates, draw.uniform(0, self.seconds[i] - length), length)


def crop(c: Spoken, clip: dict[str, Tensor], rates: dict[str, float], start: float, length: float) -> dict[str, Tensor]:
    """Codes of `length` seconds of a clip from `start` on, as a language model is given them."""
    base = rates[c.streams[0]]
    first, count = round(start * base), max(1, round(length * base))  # in frames of the first stream, so that all are cut alike
    out: dict[str, Tensor] = {}
    for name in c.streams:
        scale = rates[name] / base
        codes = clip[name][:, round(first * scale) : round((first + count) * scale)]
        out[name] = told(codes, name in c.collapsed)
    for name, (stream, begin, stop) in (c.spans or {}).items():
        out[name] = out[stream][begin:stop]
    return out


def told(codes: Tensor, collapsed: bool) -> Tensor:
    """codes [Q,T] -> [Q,T], or [U] without repetitions"""
    from slm_tokenizers.semantic.runs import collapse

    return collapse(codes[0])[0] if collapsed else codes if len(codes) > 1 else codes[0]
