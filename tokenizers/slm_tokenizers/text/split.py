"""Long text in pieces that can be spoken one after the other.

Pieces end at the ends of sentences; a sentence that is too long is cut after a comma or its like, else at a space, else anywhere.
"""

import re

from slm.errors import SlmError
from slm_tokenizers.text.normalise import NUMBERED, SHORTENED, TITLES, normalise

SENTENCE = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s)|\n\s*\n|[。！？]")
CLAUSE = re.compile(r"[,;:—)\]]+[\"'”’]*(?=\s)|—|\s-+(?=\s)")
SPACE = re.compile(r"\S(?=\s)")
ABBREVIATIONS = "|".join([*TITLES, *NUMBERED, *SHORTENED, "st", "no"])
NOT_AN_END = re.compile(rf"(?:^|[\s(\"'“])(?:{ABBREVIATIONS}|[A-Za-z]|(?:[A-Za-z]\.)+[A-Za-z])\.$", re.IGNORECASE)


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
    if limit < 1:
        raise SlmError(f"limit is {limit}; a piece of text needs at least 1 character")
    out, rest = [], text.strip()
    while rest:
        end = len(rest) if len(rest) <= limit else _cut(rest, limit)
        out.append(rest[:end].strip())
        rest = rest[end:].strip()
    return [piece for piece in out if normalise(piece)]
