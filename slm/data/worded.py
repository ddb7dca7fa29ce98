"""The rows of any text-to-speech data with the words that their phones belong to, for spans of a word each (slm/stream/spans.py).

    L phones   K words

A pause belongs to the word before it, one at the beginning to the first. The rows are cut and drawn as without words: until they are
made, the number of its word is part of each phone.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slm.data.aligned import Aligned
from slm.data.batches import drawn
from slm.data.madeup import MadeUpUtterances
from slm.data.short import Short
from slm.data.utterances import Utterance, Utterances
from slm.errors import SlmError
from slm_tokenizers.text.phonemes import Phonemes


@dataclass
class Worded:
    """Config."""

    of: Aligned | Short | MadeUpUtterances = field(default_factory=Aligned)

    def build(self, tokenizers: dict[str, Any]) -> "WordedRows":
        spoken = self.of.build(tokenizers)
        items, source = spoken.batches.items, self.of.of if isinstance(self.of, Short) else self.of
        if isinstance(source, MadeUpUtterances):
            words = {item.id: torch.arange(len(item.text)) // 2 for item in items}  # two phones each
        else:
            words = read(source, items, tokenizers["text"])
        return WordedRows(spoken, words, tokenizers["text"].card)


def read(of: Aligned, items: list[Utterance], text: Phonemes) -> dict[str, Tensor]:
    """id -> the number of the word of each phone [L], by the texts of the corpora."""
    from slm.data import cuts as cut_files

    said = {cut.id: cut_files.text_of(cut) for folder in of.folders for cut in cut_files.load(Path(folder))}
    return {item.id: numbered(text, said[item.id], item.text) for item in items}


def numbered(text: Phonemes, said: str, phones: Tensor) -> Tensor:
    """What was said, and its phones [L] as they were heard, pauses anywhere -> the number of the word of each [L]. SlmError if others."""
    words = [phones for word, phones in text.words(said) if word]  # a pause is no word
    due = [(phone, number) for number, word in enumerate(words) for phone in word]
    found, told = [], iter(due)
    for id in phones.tolist():
        if id == text.sil:
            found.append(found[-1] if found else 0)
            continue
        phone, number = next(told, (None, None))
        if phone != text.symbols[id]:
            raise SlmError(f"the phones that were aligned are not those of {said[:40]!r}; run slm align again")
        found.append(number)
    return torch.tensor(found)


class WordedRows:
    """`at(step)` -> the batch of `spoken` with words [K], how many phones each has; a function of (seed, step)."""

    def __init__(self, spoken: Utterances, words: dict[str, Tensor], card: int) -> None:
        self.spoken, self.words, self.card, self.batches = spoken, words, card, spoken.batches

    def __len__(self) -> int:
        return len(self.spoken)

    def at(self, step: int, rank: int = 0, world: int = 1) -> dict:
        return drawn(self.batches, self.row, self.spoken.seed, step, rank, world)

    def row(self, item: Utterance, draw: np.random.Generator) -> dict[str, Tensor]:
        row = self.spoken.row(replace(item, text=item.text + self.card * self.words[item.id]), draw)
        _, words = (row["text"] // self.card).unique_consecutive(return_counts=True)
        return row | {"text": row["text"] % self.card, "words": words}
