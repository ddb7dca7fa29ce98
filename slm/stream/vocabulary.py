"""One id space for text, markers and every codebook: named, contiguous ranges.

    <pad> <bos> <eos> | <acoustic> <text> ... | acoustic.0 | acoustic.1 | ... | acoustic.10 | ... | text
     fixed markers      a start marker a stream   ranges in canonical order: stream name, then level as a number

A range is called "stream" (one level) or "stream.level". Ids depend on names and sizes alone, never on the order in which
they were given, so two configs that mean the same share a hash. "local" ids count from 0 inside a range, "global" ids are
unique over the vocabulary. The hash belongs into every checkpoint: `check` refuses rows that mean something else.
"""

from __future__ import annotations

import hashlib
import json
import re

import torch
from torch import Tensor, nn

from slm.errors import SlmError

FIXED = ("pad", "bos", "eos")
NAME = re.compile(r"[a-z][a-z0-9_]*(\.(0|[1-9][0-9]*))?")


class Vocabulary:
    """`Vocabulary({"text": 55, "semantic.0": 1024, "acoustic.0": 1024})`.

    Attributes: `size` (all ids), `names` (ranges without markers, in canonical order), `streams`, `sizes`, `pad`, `bos`, `eos`.
    Raises SlmError for a name that is not "stream" or "stream.level", a size below 1, or a stream both with and without levels.
    """

    def __init__(self, sizes: dict[str, int]):
        for name, size in sizes.items():
            _check_entry(name, size)
        self.names: tuple[str, ...] = tuple(sorted(sizes, key=_order))
        self.sizes: dict[str, int] = {name: sizes[name] for name in self.names}
        self.streams: tuple[str, ...] = tuple(dict.fromkeys(name.split(".")[0] for name in self.names))
        for stream in self.streams:
            if stream in sizes and any(name.startswith(stream + ".") for name in self.names):
                raise SlmError(f"vocabulary stream {stream!r} is given both with and without levels; name it one way")
        self._ranges: dict[str, tuple[int, int]] = {}
        widths = {f"<{marker}>": 1 for marker in (*FIXED, *self.streams)} | self.sizes
        start = 0
        for name, width in widths.items():
            self._ranges[name] = (start, start + width)
            start += width
        self.size: int = start
        self.pad, self.bos, self.eos = (self.marker(name) for name in FIXED)

    def __len__(self) -> int:
        return self.size

    def __repr__(self) -> str:
        return f"Vocabulary({self.sizes})"

    def range(self, name: str) -> tuple[int, int]:
        """(start, stop) of the global ids called `name`; SlmError if there is no such range."""
        if name not in self._ranges:
            raise SlmError(f"the vocabulary has no range {name!r}; it has {', '.join(self._ranges)}")
        return self._ranges[name]

    def level(self, stream: str, level: int) -> str:
        """Name of the range that holds codebook `level` of `stream`; a stream without levels has level 0 only."""
        if level == 0 and stream in self.sizes:
            return stream
        name = f"{stream}.{level}"
        if name not in self.sizes:
            raise SlmError(f"the vocabulary has no level {level} of {stream!r}; it has {', '.join(self.names)}")
        return name

    def marker(self, name: str) -> int:
        """Id of the marker "pad", "bos", "eos" or of the start marker of the stream `name`."""
        bracketed = f"<{name.strip('<>')}>"
        if bracketed not in self._ranges:
            raise SlmError(f"the vocabulary has no marker {bracketed!r}; it has {', '.join((*FIXED, *self.streams))}")
        return self._ranges[bracketed][0]

    def to_global(self, name: str, local_ids: Tensor) -> Tensor:
        """Local ids of range `name` (any shape) -> global ids; SlmError names the first id outside [0, size)."""
        start, stop = self.range(name)
        _check_ids(name, "local", local_ids, 0, stop - start)
        return local_ids.long() + start

    def to_local(self, name: str, global_ids: Tensor) -> Tensor:
        """Global ids of range `name` (any shape) -> local ids; SlmError names the first id outside [start, stop)."""
        start, stop = self.range(name)
        _check_ids(name, "global", global_ids, start, stop)
        return global_ids.long() - start

    def name_of(self, id: int) -> str:
        """Range or marker (in angle brackets) that the global `id` belongs to."""
        for name, (start, stop) in self._ranges.items():
            if start <= id < stop:
                return name
        raise SlmError(f"id {id} is outside the vocabulary; legal ids are 0 to {self.size - 1}")

    @property
    def hash(self) -> str:
        """16 hexadecimal digits that change when any id changes its meaning."""
        table = [[name, start, stop] for name, (start, stop) in self._ranges.items()]
        return hashlib.sha256(json.dumps(table, separators=(",", ":")).encode()).hexdigest()[:16]

    def check(self, other_hash: str) -> None:
        """SlmError unless `other_hash` (of a checkpoint, say) is this vocabulary's."""
        if other_hash != self.hash:
            raise SlmError(f"vocabulary {other_hash!r} was expected but this one is {self.hash!r}, made of {self.sizes}")

    def grow(self, embedding: nn.Embedding | Tensor, new: Vocabulary, seed: int = 0) -> Tensor:
        """Rows of this vocabulary [size, D] -> rows of `new` [new.size, D], detached.

        Ranges and markers that both have keep their rows (the first ones, if the size differs). Other rows are drawn, with `seed`,
        from a normal with the mean and deviation of each column of the old rows, so that they look like trained ones.
        """
        old = (embedding.weight if isinstance(embedding, nn.Embedding) else embedding).detach()
        if old.ndim != 2 or old.shape[0] != self.size:
            raise SlmError(f"the embedding to grow has shape {tuple(old.shape)}; this vocabulary needs ({self.size}, D)")
        noise = torch.randn(new.size, old.shape[1], generator=torch.Generator().manual_seed(seed)).to(old.device)
        rows = (old.float().mean(0) + old.float().std(0, correction=0) * noise).to(old.dtype)
        for name, (start, stop) in new._ranges.items():
            if name in self._ranges:
                begin, end = self._ranges[name]
                kept = min(stop - start, end - begin)
                rows[start : start + kept] = old[begin : begin + kept]
        return rows

    def to_json(self) -> str:
        return json.dumps(self.sizes)

    @staticmethod
    def from_json(text: str) -> Vocabulary:
        try:
            sizes = json.loads(text)
        except json.JSONDecodeError as error:
            raise SlmError(f"the vocabulary is not JSON: {error}") from None
        if not isinstance(sizes, dict):
            raise SlmError(f"the vocabulary must be a JSON object of range sizes, not {type(sizes).__name__}")
        return Vocabulary(sizes)


def _order(name: str) -> tuple[str, int]:
    stream, _, level = name.partition(".")
    return stream, int(level or 0)


def _check_entry(name: str, size: int) -> None:
    if not NAME.fullmatch(name) or name in FIXED:
        raise SlmError(f"vocabulary range {name!r} must be called 'stream' or 'stream.level' (lower case, not {', '.join(FIXED)})")
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise SlmError(f"vocabulary range {name!r} has size {size!r}; it must be a whole number of at least 1")


def _check_ids(name: str, kind: str, ids: Tensor, start: int, stop: int) -> None:
    if ids.is_floating_point() or ids.dtype == torch.bool:
        raise SlmError(f"ids of {name!r} have type {ids.dtype}; they must be whole numbers")
    bad = (ids < start) | (ids >= stop)
    if bad.any():
        at = tuple(bad.nonzero()[0].tolist())
        raise SlmError(f"{kind} id {ids[at].item()} of {name!r} at position {at} is outside the legal range {start} to {stop - 1}")
