"""A description in words, read by a small Transformer: what each layer of a language model looks at besides what is said.

Lyth & King (2024), Parler-TTS: there a T5 has read what is to be heard ("a woman speaks slowly, with little noise"), here a model
that learns to read along with the one that speaks, a byte a step, and so knows no word that was never in a description.

    B rows   M bytes   D width of the memory
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from slm.backbone.transformer import Transformer
from slm.errors import SlmError


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

        def build(self, card: int) -> "Description":
            return Description(self, card)

    def __init__(self, config: "Description.Config", card: int) -> None:
        super().__init__()
        if config.reader.causal:
            raise SlmError("a description is read in both directions: its reader must be a Transformer with causal=False")
        self.embed = nn.Embedding(card, config.reader.dim)
        nn.init.normal_(self.embed.weight, std=0.3)
        self.reader = config.reader.build()

    def forward(self, rows: list[Tensor]) -> Told:
        lengths = torch.tensor([len(row) for row in rows], device=self.embed.weight.device)
        ids = lengths.new_zeros(len(rows), max(1, *map(len, rows)))  # there is a step to look at even where nothing is told
        for target, row in zip(ids, rows):
            target[: len(row)] = row
        return Told(self.reader(self.embed(ids), lengths=lengths)[0], lengths)  # [B,M,D]
