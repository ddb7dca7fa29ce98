"""A latent variable sequence: how each phone sounds where it stands, as a vector that is predicted from the phones alone.

Wang et al. (2024), HAM-TTS. While a model learns, an aligner makes the vectors from units of an encoder such as HuBERT, heard in the
frames of each phone, and a predictor learns to say them without hearing anything; the language model is given the predicted ones at its
phones, then as when it speaks. Two losses beside the model's own: how far the predicted vectors lie from the aligner's (L1), and how
well the aligner's tell which phone they are of.

The paper's aligner is a cross-attention from the phones to the units of the whole recording, and must find the place of each. Here the
durations of an alignment say where: a phone looks at its own frames and those of `reach` phones to each side. What the aligner makes is
normalised, and it learns from naming phones alone, for nothing is nearer to its prediction than a vector that tells nothing.

    B rows   L phones   T frames   S steps   E width of the sequence   D width of the language model
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.errors import SlmError
from slm.stream.part import Merged

LVS = "lvs"  # of the sequence, in a batch


class Aligner(nn.Module):
    """Phones look at the units in and around their frames; used in training alone."""

    def __init__(self, card: int, units: int, dim: int, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.ask = nn.Embedding(card, dim)
        self.key, self.value = nn.Embedding(units, dim), nn.Embedding(units, dim)
        self.offset = nn.Parameter(torch.zeros(2 * reach + 1))  # what is added to the scores of frames that are so many phones away
        self.name = nn.Linear(dim, card)

    def forward(self, text: list[Tensor], units: list[Tensor], duration: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Rows [L], [T], [L] -> vectors [B,L,E], and which of them are of a phone with frames in its reach [B,L].

        SlmError if a row has other units than one a frame.
        """
        for heard, frames in zip(units, duration):
            if heard.shape != (whole := (int(frames.sum()),)):
                raise SlmError(f"a row has units of shape {tuple(heard.shape)}; its phones last {whole[0]} frames, and each has one unit")
        phones, heard = (nn.utils.rnn.pad_sequence(rows, batch_first=True) for rows in (text, units))  # [B,L], [B,T]
        whose = [torch.repeat_interleave(torch.arange(len(d), device=d.device), d) for d in duration]
        far = phones.shape[1] + self.reach  # from every phone
        whose = nn.utils.rnn.pad_sequence(whose, batch_first=True, padding_value=far)[:, None]  # [B,1,T]
        away = whose - torch.arange(phones.shape[1], device=phones.device)[:, None]  # [B,L,T]
        real = torch.arange(phones.shape[1], device=phones.device) < torch.tensor([len(row) for row in text], device=phones.device)[:, None]
        seen = (away.abs() <= self.reach) & real[..., None]
        scores = self.ask(phones) @ self.key(heard).transpose(1, 2) / self.ask.embedding_dim**0.5
        scores = scores + self.offset[(away + self.reach).clamp(0, 2 * self.reach)]
        weights = scores.float().masked_fill(~seen, torch.finfo(torch.float32).min).softmax(-1)
        made = weights @ self.value(heard).float()
        return F.layer_norm(made, made.shape[-1:]), seen.any(-1)


class Latent(nn.Module):
    """Phones to the sequence, and the sequence to what a language model hears of it."""

    @dataclass
    class Config:
        text: str = "text"  # stream of the phones
        units: str = "units"  # stream of what the aligner hears, one a frame
        duration: str = "duration"  # stream of the phones' frames
        dim: int = 64
        depth: int = 3
        kernel: int = 5
        reach: int = 1
        shuffled: bool = False  # a control: predicts from the phones in an order that tells nothing

        def build(self, card: int, units: int, dim: int) -> "Latent":
            """card, units: ids of those streams. dim: the language model's width."""
            return Latent(self, card, units, dim)

    def __init__(self, config: "Latent.Config", card: int, units: int, dim: int) -> None:
        super().__init__()
        if config.kernel % 2 == 0 or config.reach < 0:
            raise SlmError(f"Latent: kernel = {config.kernel} must be odd, and reach = {config.reach} at least 0")
        self.config, width = config, config.dim
        self.embed = nn.Embedding(card, width)
        self.convs = nn.ModuleList(nn.Conv1d(width, width, config.kernel, padding=config.kernel // 2) for _ in range(config.depth))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(config.depth))
        self.out = nn.Linear(width, width)
        self.join = nn.Conv1d(dim + width, dim, 3, padding=1)
        self.aligner = Aligner(card, units, width, config.reach)

    def told(self, batch: dict) -> dict:
        """The batch with the sequence, rows [L,E]: predicted, unless it is there."""
        return batch if LVS in batch else batch | {LVS: self.predict(batch[self.config.text])}

    def predict(self, text: list[Tensor]) -> list[Tensor]:
        """Rows of phone ids [L] -> rows [L,E]; a row is computed without its batch mates' padding."""
        if self.config.shuffled:
            text = [shuffled(row) for row in text]
        lengths = [len(row) for row in text]
        ids = nn.utils.rnn.pad_sequence(text, batch_first=True)
        real = (torch.arange(ids.shape[1], device=ids.device) < torch.tensor(lengths, device=ids.device)[:, None])[..., None]
        x = self.embed(ids) * real
        for conv, norm in zip(self.convs, self.norms):
            x = (x + F.gelu(conv((norm(x) * real).transpose(1, 2)).transpose(1, 2))) * real
        return [row[:n] for row, n in zip(self.out(x), lengths)]

    def steps(self, rows: list[Tensor], merged: Merged, embed: Callable[[Tensor], Tensor]) -> Tensor:
        """Rows [L,E] -> [B,S,D]: at a phone a convolution of its embedding and the sequence side by side, elsewhere nothing.

        It is added to the embedding. The paper puts it in its place; both can say the same.
        """
        spans = [next((start, stop) for name, start, stop in row if name == self.config.text) for row in merged.spans]
        both = [torch.cat([embed(ids[a:b, 0]), row], -1) for ids, (a, b), row in zip(merged.ids, spans, rows)]
        x = self.join(nn.utils.rnn.pad_sequence(both, batch_first=True).transpose(1, 2)).transpose(1, 2)
        whole = merged.ids.shape[1]
        return torch.stack([F.pad(row[: b - a], (0, 0, a, whole - b)) for row, (a, b) in zip(x, spans)])

    def losses(self, batch: dict) -> dict[str, Tensor]:
        """Of a batch with the sequence, its units and durations: the L1 distance from the aligner's, and nats a phone of naming it."""
        c = self.config
        for name in (c.units, c.duration):
            if name not in batch:
                raise SlmError(f"a latent sequence is learned from {name!r}, which the batch lacks; it has {', '.join(batch)}")
        wanted, known = self.aligner(batch[c.text], batch[c.units], batch[c.duration])
        said, phones = (nn.utils.rnn.pad_sequence(batch[name], batch_first=True) for name in (LVS, c.text))
        named = self.aligner.name(wanted[known]).float()
        return {LVS: F.l1_loss(said[known].float(), wanted[known].detach()), "phone": F.cross_entropy(named, phones[known])}


def shuffled(row: Tensor) -> Tensor:
    """A row [L] in another order, always the same one for a length."""
    return row[torch.randperm(len(row), generator=torch.Generator().manual_seed(len(row))).to(row.device)]
