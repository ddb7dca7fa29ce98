"""A language model: a vector for each id, a backbone, and a score for each id that may come next.

It knows nothing of what its ids stand for. One that has learnt text can be given further ids, for speech: see `grow`.

B batch   S steps   D width   C ids of one table   V ids of all tables
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.backbone.gated_conv import GatedConv
from slm.backbone.hybrid import Hybrid
from slm.backbone.mamba2 import Mamba2
from slm.backbone.rwkv import RWKV
from slm.backbone.state import leaves
from slm.backbone.transformer import Transformer
from slm.errors import SlmError

if TYPE_CHECKING:
    from slm.reading import Report


class LanguageModel(nn.Module):
    """ids [B,S] -> logits [B,S,V] of the ids that come next, float32 (float64 in a float64 model), and the state after them."""

    @dataclass
    class Config:
        card: int = 256
        backbone: Transformer.Config | Mamba2.Config | RWKV.Config | GatedConv.Config | Hybrid.Config = field(
            default_factory=Transformer.Config
        )
        tied: bool = False  # an id is scored by the vector it is heard as
        grown: tuple[int, ...] = ()  # ids of each table that was added later

        def build(self) -> "LanguageModel":
            return LanguageModel(self)

    def __init__(self, config: "LanguageModel.Config") -> None:
        super().__init__()
        if min(config.card, *config.grown, 1) < 1:
            raise SlmError(f"LanguageModel: card = {config.card} and grown = {config.grown} must be at least 1.")
        self.config = config
        self.report: Report | None = None  # what became of each tensor, if it was read from a file
        self.backbone = config.backbone.build()
        if not self.backbone.causal:
            raise SlmError(f"a language model says one step after the other: its {type(self.backbone).__name__} must be causal")
        self.dim = self.backbone.dim
        sizes = (config.card, *config.grown)
        self.tables = nn.ModuleList(Table(card, self.dim, config.tied, grown=i > 0) for i, card in enumerate(sizes))
        state = self.backbone.start(1, "meta", torch.float32)
        self._kind, self._shapes = type(state), shapes(state)

    @property
    def card(self) -> int:
        """V, with all that was grown."""
        return sum(table.card for table in self.tables)

    def start(self, batch: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Any:
        """The state of `batch` rows that have seen nothing: that of the backbone."""
        return self.backbone.start(batch, device, dtype)

    def forward(self, ids: Tensor, state: Any = None, lengths: Tensor | None = None, documents: Tensor | None = None) -> tuple[Tensor, Any]:
        """ids [B,S] -> logits [B,S,V] and, if a state was given, the state after each row's `lengths` [B] real steps.

        What stands behind a row's real steps may be any number. documents [B,S]: as for the backbone.
        SlmError: an id outside the vocabulary, or the state of another model or number of rows.
        """
        if state is not None:
            self._check(state, len(ids))
        hidden, state = self.backbone(self.hear(ids, lengths), state, lengths=lengths, documents=documents)
        return self.score(hidden), state

    def hear(self, ids: Tensor, lengths: Tensor | None = None) -> Tensor:
        """ids [B,S] -> what the backbone is told [B,S,D]."""
        ids = self._legal(ids, lengths)
        x, first = self.tables[0].embed(ids.clamp(max=self.config.card - 1)), self.config.card
        for table in self.tables[1:]:
            here = ((ids >= first) & (ids < first + table.card))[..., None]
            x = torch.where(here, table.embed((ids - first).clamp(0, table.card - 1)), x)
            first += table.card
        return x

    def score(self, hidden: Tensor) -> Tensor:
        """hidden [B,S,D] -> logits [B,S,V]; each table by itself, so that growing changes no bit of the others."""
        logits = [table.score(hidden) for table in self.tables]
        logits = logits[0] if len(logits) == 1 else torch.cat(logits, -1)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    @torch.no_grad()
    def grow(self, more: int, init: Literal["mean", "zero", "normal"] = "mean") -> range:
        """Add `more` ids behind the others and return them; logits of the old ones stay what they are, bit for bit.

        mean    each new vector is the mean of the first table. A new id then gets at most the mean of the old ones'
                e^logit, so all of them together never take more than more / (more + C) of the probability (Hewitt, 2021).
        zero    as AudioPaLM (Rubenstein et al., 2023). Every new logit is 0, which may be far above or below the old ones',
                and the first norm multiplies what it hears by 1 / sqrt(eps), and its gradient too.
        normal  drawn with the mean and the deviation that the first table has in each channel: new ids differ at once.
        """
        if more < 1:
            raise SlmError(f"a vocabulary grows by at least 1 id, not by {more}.")
        if init not in ("mean", "zero", "normal"):
            raise SlmError(f"new ids start as 'mean', 'zero' or 'normal', not {init!r}.")
        old, first = self.tables[0], self.card
        table = Table(more, self.dim, self.config.tied, grown=True).to(old.embed.weight)
        for new, known in zip(table.parameters(), old.parameters(), strict=True):
            new.copy_(begin(known, more, init))
        self.tables.append(table.train(self.training))
        self.config = replace(self.config, grown=(*self.config.grown, more))
        return range(first, first + more)

    def _legal(self, ids: Tensor, lengths: Tensor | None) -> Tensor:
        if ids.dim() != 2 or ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
            raise SlmError(f"a language model reads whole numbers [B,S], not {list(ids.shape)} of {ids.dtype}.")
        ids = ids.long()
        if lengths is not None:
            ids = torch.where(torch.arange(ids.shape[1], device=ids.device) < lengths.to(ids.device)[:, None], ids, 0)
        wrong = (ids < 0) | (ids >= self.card)
        if wrong.any():
            row, step = wrong.nonzero()[0].tolist()
            raise SlmError(f"row {row}, step {step}: the id {int(ids[row, step])} is outside the vocabulary, 0 .. {self.card - 1}.")
        return ids

    def _check(self, state: Any, rows: int) -> None:
        """SlmError unless `state` has the form and the sizes of this model's states, for `rows` rows."""
        if type(state) is not self._kind or shapes(state) != self._shapes:
            raise SlmError(f"the state is that of another model, not of this {type(self.backbone).__name__} of width {self.dim}.")
        held = len(next(leaves(state))[1])
        if held != rows:
            raise SlmError(f"the state holds {held} rows, but {rows} rows of ids were given.")


class Table(nn.Module):
    """C ids in a row: a vector for each to be heard as, and another to be scored by unless they are tied."""

    def __init__(self, card: int, dim: int, tied: bool, grown: bool) -> None:
        super().__init__()
        self.card, self.grown = card, grown
        self.embed = nn.Embedding(card, dim)
        self.head = None if tied else nn.Linear(dim, card, bias=False)
        for weight in self.parameters():
            nn.init.normal_(weight, std=0.02)

    def score(self, hidden: Tensor) -> Tensor:
        """hidden [...,D] -> logits [...,C]"""
        return F.linear(hidden, self.embed.weight) if self.head is None else self.head(hidden)


def begin(known: Tensor, more: int, init: str) -> Tensor:
    """The vectors [more,D] of new ids beside the known ones [C,D]."""
    known = known.float()
    if init == "zero":
        return known.new_zeros(more, known.shape[1])
    mean = known.mean(0).expand(more, -1)
    return mean if init == "mean" else mean + known.std(0, correction=0) * torch.randn_like(mean)


def shapes(state: Any) -> list[tuple[str, torch.Size]]:
    """The lengths of each leaf's axes but the row's and the one that grows."""
    return [(name, leaf.shape[1:2] + leaf.shape[3:] if grows else leaf.shape[1:]) for name, leaf, grows in leaves(state)]
