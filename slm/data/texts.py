"""Texts beside what was said of them as codes of any tokenizer, whole utterances each, and a prompt of the same voice.

    L phones   U codes   T frames of the codec   P prompt frames   E latent width

An utterance is never cut, so that codes may last differently long, as merged units do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from slm.data.aligned import Aligned
from slm.data.batches import Batches, drawn
from slm.data.madeup import MadeUpUtterances, utterance
from slm.data.utterances import Utterance, Utterances
from slm.errors import SlmError


@dataclass
class Texts:
    """Config: the utterances of `of` that have at most `longest` frames, with codes of the tokenizer `codes`, of one level."""

    of: Aligned | MadeUpUtterances = field(default_factory=Aligned)
    codes: str = "units"
    longest: int = 500

    def build(self, tokenizers: dict[str, Any]) -> "TextRows":
        tokenizer = tokenizers[self.codes]
        found = encoded(self.of, tokenizer) if isinstance(self.of, Aligned) else made_up(self.of, tokenizers, self.codes)
        return TextRows(self, self.of.build(tokenizers), found)


def encoded(of: Aligned, tokenizer: Any) -> dict[str, Tensor]:
    """id -> codes [U] of every recording of its folders, from the cache."""
    from slm.data import cuts as cut_files
    from slm.data.cache import codes_of

    cuts = [cut for folder in of.folders for cut in cut_files.load(Path(folder)) if cut_files.speaker_of(cut) not in of.held_out]
    return {id: codes[0] for id, codes in codes_of(cuts, tokenizer, of.cache).items()}


def made_up(of: MadeUpUtterances, tokenizers: dict[str, Any], name: str) -> dict[str, Tensor]:
    """id -> codes [U] of the sounds that `of` makes up."""
    codec, text, tokenizer = tokenizers[of.codec], tokenizers["text"], tokenizers[name]
    sounds = [utterance(of.seed + i, i % 4, of.phones, text.card, codec.hop, codec.rate)[2] for i in range(of.count)]
    return {str(i): tokenizer.encode(sound[None])[0, 0] for i, sound in enumerate(sounds)}


class TextRows:
    """`at(step)` -> text [L], the codes [U] under their name, prompt [P,E]; a function of (seed, step)."""

    def __init__(self, config: Texts, spoken: Utterances, codes: dict[str, Tensor]) -> None:
        items = [u for u in spoken.batches.items if u.id in codes and u.codes.shape[1] <= config.longest]
        if not items:
            raise SlmError(f"no utterance of at most {config.longest} frames has both a text and codes")
        self.config, self.spoken, self.codes = config, spoken, codes
        self.batches = Batches(items, lambda u: u.codes.shape[1], max(config.of.frames, config.longest), config.of.seed)

    def __len__(self) -> int:
        return len(self.batches)

    def at(self, step: int, rank: int = 0, world: int = 1) -> dict[str, list[Tensor]]:
        return drawn(self.batches, self.row, self.config.of.seed, step, rank, world)

    def row(self, item: Utterance, draw: np.random.Generator) -> dict[str, Tensor]:
        """The prompt is a piece of another utterance of the speaker; one with a single utterance lends a piece of it."""
        lent = [other for other in self.spoken.others[item.speaker] if other is not item] or [item]
        prompt = self.spoken.piece(lent[int(draw.integers(len(lent)))].codes, draw)
        return {"text": item.text, self.config.codes: self.codes[item.id], "prompt": self.spoken.latents(prompt)}
