"""Byte-pair merges over units: sequences that often come together become one id, and nothing is lost.

Sennrich et al., 2016, "Neural Machine Translation of Rare Words with Subword Units"; over units of speech Ren et al., 2022,
"Speech Pre-training with Acoustic Piece".

T units, K of them, S ids. Ids below K are the units themselves, later ones stand for two ids that came before them.

Hugging Face's `tokenizers` finds the merges and applies them; it works on text, so unit u is the character FIRST + u.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from slm.errors import SlmError

FIRST = 0x20000  # a plane of Unicode with 42,720 characters in a row, none of which is a space or combines with others
MOST = 42_720


class UnitBPE:
    """units [T] in 0..K-1 <-> ids [S] in 0..card-1. merges: pairs of ids; the i-th makes id K + i."""

    def __init__(self, units: int, merges: list[tuple[int, int]]) -> None:
        if not 1 <= units <= MOST:
            raise SlmError(f"units is {units} but must be from 1 to {MOST}")
        self.units, self.merges = units, merges
        self.pieces = [(u,) for u in range(units)]  # the units of each id
        for i, (left, right) in enumerate(merges):
            if not 0 <= min(left, right) <= max(left, right) < units + i:
                raise SlmError(f"merge {i} joins {left} and {right} but only ids below {units + i} exist before it")
            self.pieces.append(self.pieces[left] + self.pieces[right])
        self.model = text_model(self.pieces, merges)

    @property
    def card(self) -> int:
        return len(self.pieces)

    def encode(self, units: Tensor) -> Tensor:
        """units [T] -> ids [S]. SlmError on a unit that is none."""
        check(units, self.units)
        tokens = self.model.tokenize(text_of(units.tolist())) if len(units) else []
        return torch.tensor([token.id for token in tokens], dtype=torch.long, device=units.device)

    def decode(self, ids: Tensor) -> Tensor:
        """ids [S] -> units [T]. SlmError on an id that is none."""
        check(ids, self.card)
        return torch.tensor([u for i in ids.tolist() for u in self.pieces[i]], dtype=torch.long, device=ids.device)

    def save(self, path: str | Path) -> None:
        from slm.data.replacing import replacing

        with replacing(Path(path)) as temporary:
            temporary.write_text(json.dumps({"units": self.units, "merges": self.merges}))


def load(path: str | Path) -> UnitBPE:
    """What `save` wrote. SlmError if it is missing, damaged or something else."""
    try:
        stored = json.loads(Path(path).read_text())
        units, merges = int(stored["units"]), [(int(left), int(right)) for left, right in stored["merges"]]
    except (OSError, ValueError, KeyError, TypeError):
        raise SlmError(f"{path} holds no merges of units") from None
    return UnitBPE(units, merges)


def learn(rows: Iterable[Tensor], units: int, card: int) -> UnitBPE:
    """Rows [T] of `units` different units -> merges until there are `card` ids, or no pair occurs twice.

    SlmError if `card` is below `units`, or on a unit that is none.
    """
    from tokenizers import Tokenizer, models, trainers

    if card < units or not 1 <= units <= MOST:
        raise SlmError(f"card is {card} and units {units}, but units must be from 1 to {MOST} and card at least as many")

    def texts() -> Iterable[str]:
        for row in rows:
            check(row, units)
            yield text_of(row.tolist())

    alphabet = [chr(FIRST + u) for u in range(units)]
    trainer = trainers.BpeTrainer(vocab_size=card, min_frequency=2, initial_alphabet=alphabet, show_progress=False)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.train_from_iterator(texts(), trainer)
    found = json.loads(tokenizer.to_str())["model"]
    ids = found["vocab"]
    assert all(ids[character] == u for u, character in enumerate(alphabet)), "the alphabet comes first, in order"
    return UnitBPE(units, [(ids[left], ids[right]) for left, right in found["merges"]])


def text_model(pieces: list[tuple[int, ...]], merges: list[tuple[int, int]]):
    from tokenizers import models

    texts = [text_of(piece) for piece in pieces]
    return models.BPE(vocab={text: i for i, text in enumerate(texts)}, merges=[(texts[left], texts[right]) for left, right in merges])


def text_of(units: Iterable[int]) -> str:
    return "".join(chr(FIRST + u) for u in units)


def check(ids: Tensor, card: int) -> None:
    if ids.dim() != 1 or ids.is_floating_point():
        raise SlmError(f"ids are {ids.dtype} of shape {list(ids.shape)} but one row [T] of whole numbers is needed")
    bad = (ids < 0) | (ids >= card)
    if bad.any():
        at = int(bad.nonzero()[0])
        raise SlmError(f"id {int(ids[at])} at place {at} is outside 0 to {card - 1}")
