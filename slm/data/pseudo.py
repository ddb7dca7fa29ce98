"""A language made by rule, for translation where right or wrong is plain: every word has another for it, and they stand in reverse order.

    "who likes milk"  ->  "<milk> <likes> <who>"      each <word> is two or three syllables, spelt by the word alone

Two words may share one spelling, as two words of a real language do; the same word is always spelt alike, on every machine. Nobody speaks
it but flite: `slm render pseudo FOLDER` says every sentence of the dialogues once, in one voice.

    L bytes   U units
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from torch import Tensor

from slm.data.talks import MadeUpTalks, Talk, Talks, read
from slm.errors import SlmError

SIDES = ("asked", "replied")
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
    """Config: the rows of `of`, for each text what it is in the language, asked_pseudo, replied_pseudo [L], and, if it was rendered into
    the folder `speech`, how that sounds, asked_spoken, replied_spoken [U]."""

    of: Talks | MadeUpTalks = field(default_factory=Talks)
    speech: str = ""

    def build(self, tokenizers: dict[str, Any]) -> "TranslatedRows":
        return TranslatedRows(self.of.build(tokenizers), tokenizers["text"], spoken(self, tokenizers) if self.speech else None)


class TranslatedRows:
    """`at(step)` -> the rows of a batch with their translations; a function of (seed, step)."""

    def __init__(self, talks: Any, text: Any, said: dict[str, Tensor] | None = None) -> None:
        self.talks, self.text, self.said = talks, text, said

    def at(self, step: int, rank: int = 0, world: int = 1) -> dict[str, list[Tensor]]:
        batch = self.talks.at(step, rank, world)
        rows = [told({side: batch[f"{side}_text"][i] for side in SIDES}, self.text, self.said) for i in range(len(batch["asked"]))]
        return batch | {name: [row[name] for row in rows] for name in rows[0]}


def told(texts: dict[str, Tensor], text: Any, said: dict[str, Tensor] | None) -> dict[str, Tensor]:
    """Ids [L] of a text each side, by a tokenizer that gives it back, as bytes do -> those of its translation, and its units."""
    found = {}
    for side, row in texts.items():
        translation = translate(text.decode(row))
        found[f"{side}_pseudo"] = text.encode(translation)
        if said is not None:
            if translation not in said:
                raise SlmError(f"nobody has said {translation!r}: slm render pseudo FOLDER")
            found[f"{side}_spoken"] = said[translation]
    return found


def spoken(c: Translated, tokenizers: dict[str, Any]) -> dict[str, Tensor]:
    """sentence of the language -> its units [U], none twice in a row. SlmError if the folder holds none."""
    from slm_tokenizers.semantic.runs import collapse

    if isinstance(c.of, MadeUpTalks):
        talks = c.of.build(tokenizers).talks
        return {translate(tokenizers["text"].decode(talk[f"{side}_text"])): talk[side] for talk in talks for side in SIDES}
    from slm.data import cuts as cut_files
    from slm.data.cache import codes_of

    cuts = list(cut_files.load(c.speech))
    codes = codes_of(cuts, tokenizers[c.of.codec], c.of.cache)
    found = {cut_files.text_of(cut): collapse(codes[cut.id][0])[0] for cut in cuts if cut.id in codes}
    if not found:
        raise SlmError(f"{c.speech} holds no sentences: slm render pseudo {c.speech}")
    return found


def held(c: Translated, tokenizers: dict[str, Any]) -> list[Talk]:
    """Every dialogue in a voice of `held_out`, with its translations."""
    voices, text = read(c.of, tokenizers), tokenizers["text"]
    said = spoken(c, tokenizers) if c.speech else None
    talks = [talk for voice in c.of.held_out for talk in voices.get(voice, [])]
    return [talk | told({side: talk[f"{side}_text"] for side in SIDES}, text, said) for talk in talks]
