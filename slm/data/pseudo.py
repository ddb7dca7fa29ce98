"""A language made by rule, for translation where right or wrong is plain: every word has another for it, and they stand in reverse order.

    "who likes milk"  ->  "<milk> <likes> <who>"      each <word> is two or three syllables, spelt by the word alone

Two words may share one spelling, as two words of a real language do; the same word is always spelt alike, on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from torch import Tensor

from slm.data.talks import MadeUpTalks, Talk, Talks, read

NAMES = ("asked_pseudo", "replied_pseudo")
ONSETS, VOWELS = "bdfgklmnprstvz", "aeiou"


def word(plain: str) -> str:
    """What stands for a word: a syllable of a consonant and a vowel for each two letters, at least two and at most three."""
    drawn = blake2b(plain.lower().encode(), digest_size=6).digest()
    count = min(3, max(2, len(plain) // 2))
    return "".join(ONSETS[drawn[2 * i] % len(ONSETS)] + VOWELS[drawn[2 * i + 1] % len(VOWELS)] for i in range(count))


def translate(text: str) -> str:
    """The words of `text`, each for each, from the last to the first."""
    return " ".join(word(plain) for plain in reversed(text.split()))


@dataclass
class Translated:
    """Config: the rows of `of`, and for each text what it is in the language: asked_pseudo, replied_pseudo [L]."""

    of: Talks | MadeUpTalks = field(default_factory=Talks)

    def build(self, tokenizers: dict[str, Any]) -> "TranslatedRows":
        return TranslatedRows(self.of.build(tokenizers), tokenizers["text"])


class TranslatedRows:
    """`at(step)` -> the rows of a batch with their translations; a function of (seed, step)."""

    def __init__(self, talks: Any, text: Any) -> None:
        self.talks, self.text = talks, text

    def at(self, step: int, rank: int = 0, world: int = 1) -> dict[str, list[Tensor]]:
        batch = self.talks.at(step, rank, world)
        return batch | {name: [translated(row, self.text) for row in batch[f"{name[:-7]}_text"]] for name in NAMES}


def translated(row: Tensor, text: Any) -> Tensor:
    """Ids [L] of a text, by a tokenizer that gives it back, as bytes do -> those of its translation."""
    return text.encode(translate(text.decode(row)))


def held(of: Talks, tokenizers: dict[str, Any]) -> list[Talk]:
    """Every dialogue in a voice of `of.held_out`, with its translations."""
    voices, text = read(of, tokenizers), tokenizers["text"]
    talks = [talk for voice in of.held_out for talk in voices.get(voice, [])]
    return [talk | {name: translated(talk[f"{name[:-7]}_text"], text) for name in NAMES} for talk in talks]
