"""Text and speech of one utterance told in turns: some text, some of its frames, more text, more frames.

    L tokens of text   T frames   S steps   n tokens and m frames a span   K words

    <text> h e <codes> a a a <text> y , <codes> a a a <text> o <eos> <codes> a a a a a a <eos>        Spans(2, 3): n = 2, m = 3

Each span stands behind its stream's marker. The last of either kind ends with <eos>, and the last span of speech comes behind all
text, with whatever frames are left. Three ways to share out:

    Spans(n, m)         by number, as GLM-4-Voice (Zeng et al., 2024; 13 : 26) and CosyVoice 2 (Du et al., 2024; 5 : 15) do
    Spans(n, None)      n tokens, then the frames in which those are said
    Spans(None, None)   a word, then the frames in which it is said, as SpiRit-LM (Nguyen et al., 2024)

By number, frames may run out before the text: then all of the text comes before what is left of them. How long a span of frames is
must be said by the model unless m says it: where text is still to come the marker <text> asks for it. What a span is made of never
depends on text that comes later, so that a speaker who is fed token by token says n tokens as if he knew them all.

One code a frame; finer levels are for a later stage.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from slm.errors import SlmError
from slm.stream.vocabulary import Vocabulary

EOS = "<eos>"
Plan = list[tuple[int, int]]  # tokens and frames of each pair of spans; behind the last of each kind stands <eos>


@dataclass
class Spans:
    """text: tokens in a span, None for one word.   frames: frames in a span, None for those in which its text is said."""

    text: int | None = 5
    frames: int | None = 15

    def __post_init__(self) -> None:
        if self.text is None and self.frames is not None:
            raise SlmError(f"spans of {self.frames} frames each need a number of tokens each: words have no fixed length")
        for name, value in (("text", self.text), ("frames", self.frames)):
            if value is not None and value < 1:
                raise SlmError(f"spans.{name} is {value}; it must be at least 1, or none")

    def plan(self, text: int, frames: int, duration: list[int] | None = None, words: list[int] | None = None) -> Plan:
        """How L tokens and T frames are shared out.   duration [L]: frames of each token.   words [K]: tokens of each word.

        SlmError if there is no text, or if durations or words are needed and missing, or do not add up.
        """
        if text < 1:
            raise SlmError("there is no text to tell beside its speech")
        if self.frames is None:
            return self._aligned(text, frames, duration, words)
        told: Plan = []
        while text >= self.text and frames >= self.frames:
            told.append((self.text, self.frames))
            text, frames = text - self.text, frames - self.frames
        return [*told, (text, frames)]

    def _aligned(self, text: int, frames: int, duration: list[int] | None, words: list[int] | None) -> Plan:
        if duration is None or len(duration) != text or sum(duration) != frames:
            raise SlmError(f"spans by alignment need durations of the {text} tokens that add up to {frames} frames")
        if self.text is None and (words is None or sum(words) != text or min(words) < 1):
            raise SlmError(f"spans of a word each need the number of tokens of each word, {text} of them in all")
        counts = [self.text] * (text // self.text) if self.text else words
        told, start = [], 0
        for count in counts:
            told.append((count, sum(duration[start : start + count])))
            start += count
        return [*told, (text - start, sum(duration[start:]))]


class Cursor:
    """Where in such a stream one stands, and what may be told next: whatever is legal leads to a stream that `tell` would tell.

    text, codes: names of the ranges.   side: the range that is told, None before the first marker.   here: ids of it in this span.
    total: tokens told.   ended: whether the text is over.   over: whether all is.   room: the most frames behind the text, None for any.
    """

    def __init__(self, spans: Spans, text: str, codes: str) -> None:
        self.spans, self.text, self.codes = spans, text, codes
        self.asks, self.speaks = f"<{text.split('.')[0]}>", f"<{codes.split('.')[0]}>"
        self.side: str | None = None
        self.here = self.total = 0
        self.ended = self.over = False
        self.room: int | None = None

    def legal(self) -> tuple[str, ...]:
        """Names of the ranges and markers that may come next; none when all is told."""
        if self.over:
            return ()
        if self.side is None:
            return (self.asks,)
        return self._text() if self.side == self.text else self._codes()

    def hear(self, name: str) -> None:
        """The next id is of this range. SlmError if that is not legal."""
        legal = self.legal()
        if name not in legal:
            raise SlmError(f"{name} cannot stand here between text and speech: {', '.join(legal) or 'nothing'} may")
        if name in (self.asks, self.speaks):
            self.side, self.here = (self.text if name == self.asks else self.codes), 0
        elif name != EOS:
            self.here += 1
            self.total += name == self.text
        elif self.side == self.text:
            self.ended, self.room = True, self._room()
        else:
            self.over = True

    def _text(self) -> tuple[str, ...]:
        n, m = self.spans.text, self.spans.frames
        if self.ended or (m is None and self.here == n):
            return (self.speaks,)
        full = self.here > 0 if n is None else self.here == n
        may_end = self.total > 0 and not (n is None and full)
        return (self.text, *([EOS] if may_end else []), *([self.speaks] if full else []))

    def _room(self) -> int | None:
        """Frames that may come behind text whose last span holds `here` tokens."""
        n, m = self.spans.text, self.spans.frames
        if m is None:
            return None if self.here else 0  # no token, none in which it is said
        return m - 1 if self.here >= n else None  # with more, the text would have been told in turns

    def _codes(self) -> tuple[str, ...]:
        m = self.spans.frames
        if self.ended:
            return (EOS,) if self.here == self.room else (self.codes, EOS)
        if m is None:
            return self.codes, self.asks
        return (self.codes,) if self.here < m else (self.asks,)


def tell(text: Tensor, codes: Tensor, plan: Plan, vocabulary: Vocabulary, names: tuple[str, str]) -> Tensor:
    """Local ids text [L], codes [T] -> global ids [S], shared out by `plan`; `names` of their ranges."""
    told = [vocabulary.to_global(name, ids) for name, ids in zip(names, (text, codes), strict=True)]
    marks = [torch.tensor([vocabulary.marker(name.split(".")[0])], device=text.device) for name in names]
    end, pieces, starts = torch.tensor([vocabulary.eos], device=text.device), [], [0, 0]
    for i, counts in enumerate(plan):
        for side, count in enumerate(counts):
            stop = starts[side] + count
            pieces += [marks[side], told[side][starts[side] : stop], *([end] if i == len(plan) - 1 else [])]
            starts[side] = stop
    if starts != [len(text), len(codes)]:
        raise SlmError(f"a plan of {starts[0]} tokens and {starts[1]} frames cannot tell {len(text)} and {len(codes)}")
    return torch.cat(pieces)


def walk(ids: Tensor, spans: Spans, vocabulary: Vocabulary, names: tuple[str, str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What each of the ids [S] is, and what would have been legal in its place. SlmError at the first that is not."""
    cursor = Cursor(spans, *names)
    for id in ids.tolist():
        name, legal = vocabulary.name_of(id), cursor.legal()
        cursor.hear(name)
        yield name, legal


def untell(ids: Tensor, spans: Spans, vocabulary: Vocabulary, names: tuple[str, str]) -> tuple[Tensor, Tensor, Plan]:
    """What `tell` was given: text [L], codes [T] and the plan. SlmError if the ids [S] are not what it tells, all of it."""
    kinds = [kind for kind, _ in walk(ids, spans, vocabulary, names)]
    markers = [f"<{name.split('.')[0]}>" for name in names]
    if kinds.count(EOS) != 2:
        raise SlmError(f"a stream of {len(ids)} steps breaks off before its text and its speech have ended")
    text, codes = (vocabulary.to_local(name, ids[[i for i, kind in enumerate(kinds) if kind == name]]) for name in names)
    counts: list[int] = []
    for kind in kinds:
        counts += [0] if kind in markers else []
        counts[-1] += kind in names
    return text, codes, list(zip(counts[::2], counts[1::2]))


def ids_of(names: tuple[str, ...], vocabulary: Vocabulary) -> Tensor:
    """All ids of these ranges and markers, in this order."""
    return torch.cat([torch.arange(*vocabulary.range(name)) for name in names])
