"""A description in words, read by a small Transformer: what each layer of a language model looks at besides what is said.

Lyth & King (2024), Parler-TTS: there a T5 has read what is to be heard ("a woman speaks slowly, with little noise"), here a model
that learns to read along with the one that speaks, a byte a step, and so knows no word that was never in a description. What a T5
brings along, that "slowly" and "fast" are not the same, it may be taught: from the mean of a memory one must tell how the recording
was measured to sound. The next code alone says too little of that, and a reader that learns of nothing else reads all as one.

    B rows   M bytes   D width of the memory   A attributes, each in one of K bins
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.backbone.transformer import Transformer
from slm.errors import SlmError

SOUNDS = "sounds"  # in a batch: the bin of each attribute [A], a row each


@dataclass
class Told:
    """memory [B,M,D], of which `lengths` [B] steps are real; a row of none is told nothing."""

    memory: Tensor
    lengths: Tensor

    def where(self, kept: Tensor) -> "Told":
        """The same where kept [B], nothing elsewhere."""
        return Told(self.memory, self.lengths * kept)

    def and_without(self) -> "Told":
        """2 B rows: the same, and all of them again with nothing told."""
        return Told(self.memory.repeat(2, 1, 1), torch.cat([self.lengths, torch.zeros_like(self.lengths)]))


class Description(nn.Module):
    """Rows of bytes [M] -> memories; an empty row is told nothing, as one whose description is forgotten."""

    @dataclass
    class Config:
        text: str = "description"  # stream of the bytes
        reader: Transformer.Config = field(default_factory=lambda: Transformer.Config(256, 2, 4, causal=False))
        attributes: int = 0  # of a recording, that a description must tell; 0: what it tells is learned from the codes alone
        bins: int = 3

        def build(self, card: int) -> "Description":
            return Description(self, card)

    def __init__(self, config: "Description.Config", card: int) -> None:
        super().__init__()
        if config.reader.causal:
            raise SlmError("a description is read in both directions: its reader must be a Transformer with causal=False")
        self.embed = nn.Embedding(card, config.reader.dim)
        nn.init.normal_(self.embed.weight, std=0.3)
        self.reader = config.reader.build()
        self.bins = config.bins
        self.head = nn.Linear(config.reader.dim, config.attributes * config.bins) if config.attributes else None

    def forward(self, rows: list[Tensor]) -> Told:
        lengths = torch.tensor([len(row) for row in rows], device=self.embed.weight.device)
        ids = lengths.new_zeros(len(rows), max(1, *map(len, rows)))  # there is a step to look at even where nothing is told
        for target, row in zip(ids, rows):
            target[: len(row)] = row
        return Told(self.reader(self.embed(ids), lengths=lengths)[0], lengths)  # [B,M,D]

    def surprise(self, told: Told, sounds: list[Tensor]) -> Tensor:
        """How little the descriptions tell of the bins [A] of each recording, in nats an attribute."""
        real = torch.arange(told.memory.shape[1], device=told.memory.device) < told.lengths[:, None]
        mean = (told.memory * real[..., None]).sum(1) / told.lengths.clamp(min=1)[:, None]
        scores = self.head(mean).view(-1, self.bins)  # [B A,K]
        return F.cross_entropy(scores.float(), torch.cat(sounds))
