"""The loop in which a language model speaks: one step at a time, every row by its own seed, and always to an end.

    B rows   S steps   W ids a step   D width   L phones   T frames   Q levels of the part   R rows heard: B, or 2 B with guidance

At each step every column that the layout tells draws an id of its level. How many frames a part has, is known before it starts where
durations or another part tell it (the number of phones, the sum of durations, `Part.like`); then the model has no way to stop early
or run on, and the reason is "end". Elsewhere the part ends by <eos> in column 0 ("end"), at a cap derived from what it was told ("length")
or because it went round in circles ("loop"); levels that lag behind are still told, so that what the model heard of a part, whatever
came to its end, is what it hears of such a part while it learns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from slm.backbone.steps import Step, steps
from slm.condition.window import Sight
from slm.errors import SlmError
from slm.stage.row import Row
from slm.stream.layout import EMPTY, LAYOUTS, open_ended
from slm.stream.part import Part, merge
from slm.stream.sample import Sampling, guided, sample

if TYPE_CHECKING:
    from slm.stage.lm import LM


@dataclass
class Progress:
    """How far a part has come: its rows, and with `tell` the chances [C] of each step of each row so far."""

    part: Part
    rows: list[Row]
    chances: list[list[Tensor]]


def saying(lm: "LM", batch: dict, seeds: list[int]) -> Iterator[Progress]:
    """Batch with the given parts -> what was said after each step. Each part that is over is put into `batch`, and then `stop`."""
    given = [part for part in lm.parts if part.name in batch]
    wanted = [part for part in lm.parts if part.name not in batch]
    if lm.parts[: len(given)] != given:
        raise SlmError(f"parts are said in order; {wanted[0].name!r} comes before a part that was given")
    if not given and f"{wanted[0].name}_begins" not in batch:
        raise SlmError(f"a language model goes on from what it is given; give it {lm.parts[0].name!r} at least, or how that begins")
    talk = _listen(lm, batch, given, seeds)
    stops = ["end"] * len(seeds)
    for part in wanted:
        for now in _say_part(talk, part, batch):
            yield now
        batch[part.name] = [as_codes(lm, part, row.said) for row in now.rows]
        if part.name in lm.config.tell:
            batch[f"{part.name}_chances"] = [torch.stack(row) for row in now.chances]
        stops = [row.reason if row.reason != "end" else old for old, row in zip(stops, now.rows)]
    batch["stop"] = stops


@dataclass
class Talk:
    """What goes on from part to part: what the model remembers, who speaks, what is due, and a generator a row.

    voice [R,D]; features: rows [L,D]. With guidance each row is heard twice, B further on without its voice and its description.
    """

    lm: "LM"
    generators: list[torch.Generator]
    voice: Tensor | None
    features: list[Tensor] | None
    sight: Sight | None
    state: object
    step: Step | None = None
    heads: dict[tuple[str, int, bool], tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.step = steps(self.lm.backbone)

    @property
    def times(self) -> int:
        return 1 if self.lm.config.guidance == 1 else 2

    def head(self, part: Part, level: int, open: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Ids [n] that may be told of a level, <eos> only while a row is open, and the weights [n,D] and biases [n] of their scores."""
        if (part.name, level, open) not in self.heads:
            first, _ = part.span(self.lm.streams[part.name].n_q)
            legal = self.lm.legal(part, first + level)
            if legal[-1] == self.lm.vocabulary.eos and not open:
                legal = legal[:-1]
            self.heads[part.name, level, open] = legal, self.lm.head.weight[legal], self.lm.head.bias[legal]
        return self.heads[part.name, level, open]

    def hear(self, ids: Tensor, hint: Tensor | None, active: list[bool], part: Part, step: int) -> Tensor:
        """ids [B,W] of one step of a part, hint [R,D] -> hidden [R,D] after it; rows that are not active hear nothing."""
        x = self.lm.inputs(ids[:, None].repeat(self.times, 1, 1), None)
        if hint is not None:
            x = x + hint[:, None]
        if self.voice is not None:
            x = x + self.voice[:, None]
        real = None if all(active) else torch.tensor(active * self.times, device=ids.device).long()
        seen = None if self.sight is None else self.sight.step(step, active * self.times).to(ids.device)
        at = self.lm.place(part, step, x)
        if self.step is not None and real is None and seen is None:
            return self.step(x[:, 0], self.state) if at is None else self.step(x[:, 0], self.state, at=at[:, 0])
        hidden, self.state = self.lm.think(x, self.state, real, seen, at=at)
        return hidden[:, -1]


def _listen(lm: "LM", batch: dict, given: list[Part], seeds: list[int]) -> Talk:
    """The given parts, heard."""
    times = 1 if lm.config.guidance == 1 else 2
    rows = len(seeds) * times
    voice = lm.hear(batch)
    voice = voice if voice is None or times == 1 else torch.cat([voice, torch.zeros_like(voice)])
    told = lm.read(batch)
    told = told if told is None or times == 1 else told.and_without()
    batch = batch if times == 1 else {name: content * 2 for name, content in batch.items() if isinstance(content, list)}
    features = lm.guide.phones(batch[lm.config.guide.text], voice) if lm.guide else None
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    if not given:
        return Talk(lm, generators, voice, features, None, lm.start(rows, told))
    merged = merge(given, batch, lm.vocabulary)
    even = None if len(set(merged.lengths.tolist())) == 1 else merged.lengths
    x = lm.inputs(merged.ids, lm.hints(batch, merged, voice))
    _, state = lm.think(x, lm.start(rows, told), even, lm.looks(merged, batch), at=lm.where(merged))
    sight = None if lm.window is None else Sight(lm.window, merged, batch)
    return Talk(lm, generators, voice, features, sight, state)


def _say_part(talk: Talk, part: Part, batch: dict) -> Iterator[Progress]:
    """What was said after each step, at least once."""
    lm = talk.lm
    due = _due(talk, part, batch)
    rows = _rows(lm, part, batch, due)
    now = Progress(part, rows, [[] for _ in rows])
    told = now.chances if part.name in lm.config.tell else None
    ids = torch.full((len(rows), 1), lm.vocabulary.marker(part.of), device=lm.head.weight.device)
    if talk.sight is not None:
        talk.sight.begin(part.name, [row.steps for row in rows] * talk.times, batch)
    step = 0
    while True:
        hint = None if due is None else torch.stack([_hint(d, rows[r % len(rows)], step) for r, d in enumerate(due)])
        hidden = talk.hear(ids, hint, [step <= row.steps for row in rows], part, step)  # a finished row hears and draws no more
        if all(step >= row.steps for row in rows):
            yield now
            return
        ids = _tell(talk, part, rows, step, hidden, told)
        step += 1
        yield now


def _tell(talk: Talk, part: Part, rows: list[Row], step: int, hidden: Tensor, told: list[list[Tensor]] | None) -> Tensor:
    """hidden [R,D] -> the ids [B,W] of the step, kept in the rows."""
    lm, width = talk.lm, rows[0].width
    ids = torch.full((len(rows), width), EMPTY, device=hidden.device)
    deep = lm.depth.start(len(hidden), width) if lm.depth else None
    for column in range(width):
        before = hidden
        if lm.depth:
            last = ids[:, column - 1].repeat(talk.times) if column else None
            before, deep = lm.depth.step(hidden, last, lm.embed, deep)
        at = [row.level(step, column) for row in rows]
        for level in sorted(set(at) - {EMPTY}):
            going = [r for r, here in enumerate(at) if here == level]
            free = [r for r in going if rows[r].known(level) is None]
            drawn = dict(zip(free, _draw(talk, part, level, rows, free, before, told).tolist() if free else ()))
            for r in going:
                ids[r, column] = id = drawn.get(r, rows[r].known(level))
                if part.end and id == lm.vocabulary.eos:
                    rows[r].finish("end")
                else:
                    rows[r].said[level].append(id)
        for r, row in enumerate(rows if column == 0 and part.end else []):
            if step == row.last:
                ids[r, 0] = lm.vocabulary.eos
    for row in rows:
        row.look()
    return ids


def _draw(talk: Talk, part: Part, level: int, rows: list[Row], going: list[int], before: Tensor, told: list[list[Tensor]] | None) -> Tensor:
    """before [R,D] -> an id of `level` for each row of `going`."""
    lm, sampling = talk.lm, talk.lm.config.sampling.get(part.name, Sampling())
    legal, weight, bias = talk.head(part, level, rows[going[0]].open)
    scores = F.linear(before if len(going) == len(before) else before[going], weight, bias).float()
    if talk.times == 2:
        without = F.linear(before[[len(rows) + r for r in going]], weight, bias).float()
        scores = guided(scores, without, lm.config.guidance)
    if told is not None:
        for r, chances in zip(going, scores.softmax(-1)):
            told[r].append(chances)
    history = None
    if sampling.remembers:
        past = [torch.tensor(rows[r].said[level], dtype=torch.long, device=legal.device) - legal[0] for r in going]
        history = torch.nn.utils.rnn.pad_sequence(past, batch_first=True, padding_value=EMPTY)
    drawn = legal[sample(scores, sampling, [talk.generators[r] for r in going], history=history)]
    if lm.config.guide and part.name == lm.config.guide.duration and lm.config.pace != 1:
        return _stretched(drawn, lm.vocabulary.range(part.name), lm.config.pace)
    return drawn


def _stretched(ids: Tensor, reach: tuple[int, int], pace: float) -> Tensor:
    """Global ids of durations -> those of durations `pace` times as long, at least one frame."""
    begin, end = reach
    return begin + ((ids - begin) * pace).round().long().clamp(1, end - begin - 1)


def _due(talk: Talk, part: Part, batch: dict) -> list[Tensor] | None:
    """Hints of each row heard for every frame of a part, None without a guide."""
    if talk.features is None:
        return None
    durations = list(batch.get(talk.lm.config.guide.duration, [None] * len(talk.generators))) * talk.times
    return [talk.lm.due(part.name, f, d) for f, d in zip(talk.features, durations)]


def _hint(due: Tensor, row: Row, step: int) -> Tensor:
    """due [T,D] -> the hint [D] of a step: of the frame that it is about, and of none behind the last."""
    frame = row.about[step] if step < len(row.about) else EMPTY
    return due[frame] if 0 <= frame < len(due) else due.new_zeros(due.shape[-1])


def _rows(lm: "LM", part: Part, batch: dict, due: list[Tensor] | None) -> list[Row]:
    """The rows of a part before anything of it is said, with as many frames as are known, or may be at most."""
    first, stop = part.span(lm.streams[part.name].n_q)
    if part.like is not None:
        if part.like not in batch:
            raise SlmError(f"part {part.name!r} has as many frames as {part.like!r}, which is neither given nor said before it")
        frames, open = [row.shape[-1] for row in batch[part.like]], False
    elif lm.window is not None and part.name == lm.window.config.codes:
        frames, open = [int(row.sum()) for row in batch[lm.window.config.duration]], False
    elif due is not None and not part.end:
        frames, open = [len(d) for d in due[: len(batch[lm.parts[0].name])]], False
    elif open_ended(LAYOUTS[part.layout], stop - first):
        frames, open = [int(lm.config.cap * n) for n in _told(lm, part, batch)], True
    else:
        raise SlmError(
            f"part {part.name!r} is laid out {part.layout!r}, level by level: how many frames it has must be known before it is said, "
            "from durations or from another part (Part.like)"
        )
    begins = _begins(lm, part, batch.get(f"{part.name}_begins"))
    return [Row(part, stop - first, T, open, begin) for T, begin in zip(frames, begins or [[]] * len(frames))]


def _told(lm: "LM", part: Part, batch: dict) -> list[int]:
    """The length of the longest that each row has been told so far, or of how the part begins; at least 1."""
    names = [p.name for p in lm.parts if p.name in batch] or [f"{part.name}_begins"]
    return [max(1, *(row.shape[-1] for row in rows)) for rows in zip(*(batch[name] for name in names))]


def _begins(lm: "LM", part: Part, given: list[Tensor] | None) -> list[list[list[int]]]:
    """Local codes of the part's levels, [P] or [Q,P], that it goes on from -> the global ids of each row and level."""
    first, stop = part.span(lm.streams[part.name].n_q)
    names, found = [lm.vocabulary.level(part.of, level) for level in range(first, stop)], []
    for row in given or []:
        row = row.view(-1, row.shape[-1])
        if len(row) != len(names):
            raise SlmError(f"{part.name}_begins has {len(row)} levels where the part has {len(names)}")
        found.append([lm.vocabulary.to_global(name, codes).tolist() for name, codes in zip(names, row)])
    return found


def as_codes(lm: "LM", part: Part, said: list[list[int]]) -> Tensor:
    """Global ids of each level -> local codes [T], or [Q,T] for a stream with levels."""
    stream, device = lm.streams[part.name], lm.head.weight.device
    first, _ = part.span(stream.n_q)
    names = [lm.vocabulary.level(part.of, first + q) for q in range(len(said))]
    codes = [lm.vocabulary.to_local(name, torch.tensor(ids, dtype=torch.long, device=device)) for name, ids in zip(names, said)]
    return codes[0] if stream.n_q == 1 else torch.stack(codes)
