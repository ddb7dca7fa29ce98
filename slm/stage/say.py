"""The loop in which a language model speaks: one step at a time, every row by its own seed, and always to an end.

    B rows   S steps   D width   L phones   T frames

How long a part is, is known before it starts where durations tell it (the number of phones, the sum of durations); then
the model has no way to stop early or run on, and the reason is "end". Elsewhere the part ends by <eos> ("end"), at a cap
derived from the text ("length") or because it went round in circles ("loop").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from slm.errors import SlmError
from slm.stream.part import Part, merge
from slm.stream.sample import Sampling, looping, sample

if TYPE_CHECKING:
    from slm.stage.lm import LM

CHECK = 16  # steps between looks for loops


def say(lm: "LM", batch: dict, seeds: list[int]) -> dict:
    """Batch with the given parts -> batch with the said ones and `stop`, a reason a row."""
    batch = dict(batch)
    given = [part for part in lm.parts if part.name in batch]
    wanted = [part for part in lm.parts if part.name not in batch]
    if lm.parts[: len(given)] != given:
        raise SlmError(f"parts are said in order; {wanted[0].name!r} comes before a part that was given")
    device = lm.head.weight.device
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    voice = lm.hear(batch)
    features = lm.guide.phones(batch[lm.config.guide.text], voice) if lm.guide else None
    merged = merge(given, batch, lm.vocabulary)
    rows = len(seeds)
    even = None if len(set(merged.lengths.tolist())) == 1 else merged.lengths
    _, state = lm.backbone(lm.inputs(merged.ids, lm.hints(batch, merged)), lm.backbone.start(rows, device=device), even)
    stops = ["end"] * rows
    for part in wanted:
        said, chances, state, reasons = _say_part(lm, part, batch, features, voice, state, generators)
        batch[part.name] = said
        if chances:
            batch[f"{part.name}_chances"] = chances
        stops = [new if new != "end" else old for old, new in zip(stops, reasons)]
    batch["stop"] = stops
    return batch


def _say_part(
    lm: "LM", part: Part, batch: dict, features: list[Tensor] | None, voice: Tensor | None, state, generators: list[torch.Generator]
):
    stream = lm.streams[part.name]
    first, last = part.span(stream.n_q)
    levels = last - first
    if part.layout not in ("flat", "parallel") or (part.layout == "parallel" and levels > 1):
        raise SlmError(f"part {part.name!r} is laid out {part.layout!r}; a language model says flat parts")
    due = _due(lm, part, batch, features, levels)
    steps, fixed = _steps(lm, part, batch, due, levels)
    sampling = lm.config.sampling.get(part.name, Sampling())
    legal = [lm.legal(part, level) for level in range(first, last)]
    rows, device = len(generators), lm.head.weight.device
    ids = torch.full((rows, 1), lm.vocabulary.marker(part.name), device=device)
    spoken: list[list[int]] = [[] for _ in range(rows)]
    told: list[list[Tensor]] = [[] for _ in range(rows)]
    reasons = ["" for _ in range(rows)]
    alone = rows == 1
    for step in range(max(steps) + 1):
        active = [not reason for reason in reasons]
        x = lm.inputs(ids[:, None], None)
        if due is not None:
            x = x + torch.stack([d[step] if step < len(d) else torch.zeros_like(d[0]) for d in due])[:, None]
        if voice is not None:
            x = x + voice[:, None]
        hidden, state = lm.backbone(x, state, None if alone or all(active) else torch.tensor(active, device=device).long())
        for row in range(rows):
            if active[row] and step >= steps[row]:
                reasons[row] = "end" if fixed else "length"
        if all(reasons):
            break
        allowed = legal[step % levels]
        going = [row for row in range(rows) if not reasons[row]]  # a finished row draws no more: its seed is its own
        scores = lm.score(hidden[going, -1], allowed).float()
        if part.name in lm.config.tell:
            for row, chances in zip(going, scores.softmax(-1)):
                told[row].append(chances)
        drawn = allowed[sample(scores, sampling, [generators[row] for row in going])]
        if lm.config.guide and part.name == lm.config.guide.duration and lm.config.pace != 1:
            drawn = _stretched(drawn, lm.vocabulary.range(part.name), lm.config.pace)
        ids = ids.clone()
        for row, id in zip(going, drawn.tolist()):
            ids[row, 0] = id
            if part.end and id == lm.vocabulary.eos:
                reasons[row] = "end"
                continue
            spoken[row].append(id)
            if not fixed and step % CHECK == CHECK - 1 and looping(spoken[row]):
                reasons[row] = "loop"
    chances = [torch.stack(row) for row in told] if part.name in lm.config.tell else []
    return [_codes(lm, part, row, levels, device) for row in spoken], chances, state, reasons


def _stretched(ids: Tensor, reach: tuple[int, int], pace: float) -> Tensor:
    """Global ids of durations -> those of durations `pace` times as long, at least one frame."""
    begin, end = reach
    return begin + ((ids - begin) * pace).round().long().clamp(1, end - begin - 1)


def _due(lm: "LM", part: Part, batch: dict, features: list[Tensor] | None, levels: int) -> list[Tensor] | None:
    """Hints of each row for every step of a part, None without a guide."""
    if features is None:
        return None
    durations = batch.get(lm.config.guide.duration, [None] * len(features))
    return [lm.due(part.name, f, d).repeat_interleave(levels, 0) for f, d in zip(features, durations)]


def _steps(lm: "LM", part: Part, batch: dict, due: list[Tensor] | None, levels: int) -> tuple[list[int], bool]:
    """Steps each row has in a part, and whether that is known (or a cap)."""
    if due is not None and not part.end:
        return [len(d) for d in due], True
    text = batch[lm.parts[0].name]
    return [int(lm.config.cap * max(1, row.shape[-1])) * levels for row in text], False


def _codes(lm: "LM", part: Part, said: list[int], levels: int, device: torch.device) -> Tensor:
    """Global ids in the order said -> local codes [L], or [Q',T] for a stream with levels (an unfinished frame is dropped)."""
    stream = lm.streams[part.name]
    whole = torch.tensor(said, dtype=torch.long, device=device)
    first, _ = part.span(stream.n_q)
    if stream.n_q == 1:
        return lm.vocabulary.to_local(part.name, whole)
    frames = whole[: len(whole) // levels * levels].view(-1, levels)
    return torch.stack([lm.vocabulary.to_local(f"{part.name}.{first + q}", frames[:, q]) for q in range(levels)])
