"""Text as word errors are counted on it: lower-case words, numbers spelt out, no punctuation. English only.

A recogniser writes "Dr. Brown's 2nd" where a transcript says "DOCTOR BROWN'S SECOND"; both become "doctor brown's second".
"""

import re

from num2words import num2words

SIGNS = {"’": "'", "-": " ", "&": " and ", "%": " percent"}
TITLES = {"mr": "mister", "mrs": "missus", "dr": "doctor", "st": "saint"}

TITLE = re.compile(r"\b(mr|mrs|dr)\.?(?=\s)|\b(st)\.(?=\s)")  # "st" without its dot may be a street
THOUSANDS = re.compile(r"(\d),(\d{3})")
ORDINAL = re.compile(r"(\d{1,99})(st|nd|rd|th)\b")
YEAR = re.compile(r"\b(1[1-9]\d\d|20\d\d)\b")
NUMBER = re.compile(r"\d{1,99}")  # a recogniser that loops writes hundreds of digits, more than have a name
OTHER = re.compile(r"[^a-z' ]")
QUOTE = re.compile(r"(?<![a-z])'|'(?![a-z])")  # an apostrophe counts only inside a word


def normalise(text: str) -> str:
    """The words of `text`, separated by single spaces: [a-z'] only, perhaps none."""
    text = text.lower()
    for sign, word in SIGNS.items():
        text = text.replace(sign, word)
    text = TITLE.sub(lambda m: TITLES[m[1] or m[2]], text)
    text = THOUSANDS.sub(r"\1\2", text)
    text = ORDINAL.sub(lambda m: _spelt(m[1], "ordinal"), text)
    text = YEAR.sub(lambda m: _spelt(m[1], "year"), text)
    text = NUMBER.sub(lambda m: _spelt(m[0], "cardinal"), text)
    return " ".join(QUOTE.sub(" ", OTHER.sub(" ", text)).split())


def _spelt(digits: str, kind: str) -> str:
    words = num2words(int(digits), to=kind)
    return f" {words.replace('-', ' ').replace(',', '').replace(' and ', ' ')} "
