"""Long text in pieces that can be spoken one after the other, and text that is still being written in pieces and words.

Pieces end at the ends of sentences; a sentence that is too long is cut after a comma or its like, else at a space, else anywhere.
Text may come bit by bit. Where it is cut depends on the text alone, never on the bits that it came in.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from slm.errors import SlmError
from slm_tokenizers.text.normalise import NUMBERED, SHORTENED, TITLES, normalise

SENTENCE = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s)|\n\s*\n|[。！？]")
CLAUSE = re.compile(r"[,;:—)\]]+[\"'”’]*(?=\s)|—|\s-+(?=\s)")
SPACE = re.compile(r"\S(?=\s)")
ABBREVIATIONS = "|".join([*TITLES, *NUMBERED, *SHORTENED, "st", "no"])
NOT_AN_END = re.compile(rf"(?:^|[\s(\"'“])(?:{ABBREVIATIONS}|[A-Za-z]|(?:[A-Za-z]\.)+[A-Za-z])\.$", re.IGNORECASE)

GAP = re.compile(r"(?<=[^\s\d])\s+(?=[^\s\d])")  # numbers are read with the words beside them: "May 3, 1921"
ENDED = re.compile(r"[.!?…]+[\"'”’)\]]*$")


def _ends(pattern: re.Pattern, text: str) -> list[int]:
    return [m.end() for m in pattern.finditer(text) if m.end() < len(text)]


def _cut(text: str, limit: int) -> int:
    """Where to cut `text`, which is longer than `limit`: the last good place within the first `limit` characters."""
    head = text[: limit + 1]
    sentences = [end for end in _ends(SENTENCE, head) if not NOT_AN_END.search(head[:end])]
    spaces = _ends(SPACE, head)
    free = [end for end in spaces if not any(c.isdigit() for c in head[end - 1 : end + 2])]
    for ends in (sentences, _ends(CLAUSE, head), free, spaces):
        if ends:
            return ends[-1]
    return limit


def pieces(text: str, limit: int = 200) -> list[str]:
    """`text` in order, in stripped pieces of at most `limit` characters, each with something to speak; no spoken word is lost.

    Raises SlmError on a limit below 1.
    """
    return list(coming([text], limit))


def coming(bits: Iterable[str], limit: int = 200) -> Iterator[str]:
    """The `pieces` of a text that comes bit by bit, each as soon as the text is longer."""
    if limit < 1:
        raise SlmError(f"limit is {limit}; a piece of text needs at least 1 character")
    rest = ""
    for bit in bits:
        rest = (rest + bit).lstrip()
        while len(rest.rstrip()) > limit:
            end = _cut(rest, limit)
            piece, rest = rest[:end].strip(), rest[end:].lstrip()
            if normalise(piece):
                yield piece
    if normalise(rest):
        yield rest.strip()


@dataclass
class Word:
    """A word with the marks beside it, or a few that are read together. last: a sentence ends with it, or has become too long."""

    text: str
    last: bool = False


def words(bits: Iterable[str], limit: int = 200) -> Iterator[Word]:
    """The words of a text that comes bit by bit, each as soon as the next is complete; none if there is nothing to speak."""
    held, length = "", 0
    for word in _between_gaps(bits):
        if held and normalise(held) and normalise(word):
            length += len(held) + 1
            last = length > limit or (ENDED.search(held) is not None and not NOT_AN_END.search(held))
            yield Word(held, last)
            held, length = word, 0 if last else length
        else:
            held = f"{held} {word}".strip()  # a mark by itself
    if normalise(held):
        yield Word(held, True)


def _between_gaps(bits: Iterable[str]) -> Iterator[str]:
    rest = ""
    for bit in bits:
        rest += bit
        while gap := GAP.search(rest):
            yield rest[: gap.start()].strip()
            rest = rest[gap.end() :]
    if rest.strip():
        yield rest.strip()
