"""The codec's finer levels, a level in one pass: VALL-E's non-autoregressive model (Wang et al., 2023).

    B rows   L phones   T frames   P prompt frames   Q levels   C codes a level   D width

It sees phones, prompt and target at once. A frame of the prompt is the sum of the vectors of all its codes, a frame of the
target of those below level j, and each layer is told j by its norms (AdaLN). The vectors of level j are its scores' weights
too. Phones and frames count their places each from 0, the target's on from the prompt's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.backbone.positions import sinusoids
from slm.backbone.transformer import Transformer
from slm.data.batch import pad
from slm.errors import SlmError
from slm.stage.join import join, take
from slm.stage.lm import Stream


class NAR(nn.Module):
    """Batch: text [L] of the prompt and the target, `prompt_codes` [Q,P], and codes [Q,T] of the target.

    run: the text, the prompt's codes and `given` levels [G,T] -> all levels [Q,T], the likeliest code of each.
    """

    @dataclass
    class Config:
        text: str = "text"
        codes: str = "acoustic"
        known: int = 1  # levels that an earlier stage says
        backbone: Transformer.Config = field(default_factory=lambda: Transformer.Config(causal=False, adaptive=64, positions="none"))

        def build(self, streams: dict[str, Stream]) -> "NAR":
            return NAR(self, streams)

    def __init__(self, config: "NAR.Config", streams: dict[str, Stream]) -> None:
        super().__init__()
        if config.backbone.causal or not config.backbone.adaptive or config.backbone.positions != "none":
            raise SlmError("NAR tells places itself: it needs a Transformer with causal=False, adaptive > 0 and positions='none'")
        stream = streams[config.codes]
        if not 0 < config.known < stream.n_q:
            raise SlmError(f"NAR: known = {config.known} must be at least 1 and below the {stream.n_q} levels of {config.codes!r}")
        self.config, self.n_q = config, stream.n_q
        self.backbone = config.backbone.build()
        dim = config.backbone.dim
        self.phones = nn.Embedding(streams[config.text].card, dim)
        self.vectors = nn.Parameter(torch.empty(stream.n_q, stream.card, dim))
        self.bias = nn.Parameter(torch.zeros(stream.n_q - config.known, stream.card))
        self.level = nn.Embedding(stream.n_q, config.backbone.adaptive)
        for weight in (self.phones.weight, self.vectors):
            nn.init.normal_(weight, std=dim**-0.5)  # scores near 1; `placed` scales what goes in

    def forward(self, batch: dict, player: str = "main") -> dict[str, Tensor]:
        return self.loss(batch)

    def loss(self, batch: dict) -> dict[str, Tensor]:
        """Cross-entropy in nats of the target's codes, of one random level a row."""
        codes, lengths = pad(batch[self.config.codes])  # [B,Q,T]
        rows, device = len(codes), codes.device
        level = torch.randint(self.config.known, self.n_q, (rows,), device=device)
        scores = self.scores(codes, lengths, level, self.context(batch))
        real = torch.arange(codes.shape[2], device=device) < lengths[:, None]
        target = codes[torch.arange(rows, device=device), level]
        return {"codes": F.cross_entropy(scores[real], target[real])}

    def context(self, batch: dict) -> tuple[Tensor, Tensor, Tensor]:
        """What stays the same at all levels: phones and prompt as vectors [B,L+P,D], their number, and that of the prompt alone."""
        text, phones = pad(batch[self.config.text])
        prompt, frames = pad(batch["prompt_codes"])  # [B,Q,P]
        levels = torch.full_like(frames, self.n_q)
        start = torch.zeros_like(frames)
        vectors, lengths = join((self.placed(self.phones(text), start), phones), (self.placed(self.seen(prompt, levels), start), frames))
        return vectors, lengths, frames

    def seen(self, codes: Tensor, level: Tensor) -> Tensor:
        """codes [B,Q,T] -> [B,T,D], the sum of the vectors of each row's levels below `level` [B]"""
        each = (F.embedding(codes[:, q], self.vectors[q]) * (q < level)[:, None, None] for q in range(int(level.max())))
        return sum(each)

    def placed(self, x: Tensor, start: Tensor) -> Tensor:
        """x [B,S,D] with each step's place, counted from each row's `start` [B]"""
        at = start[:, None] + torch.arange(x.shape[1], device=x.device)
        return x * math.sqrt(x.shape[-1]) + sinusoids(at, x.shape[-1]).to(x.dtype)

    def scores(self, codes: Tensor, lengths: Tensor, level: Tensor, context: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Logits [B,T,C] of `level` [B] at every frame, given the phones, the prompt and the target's lower levels."""
        before, steps, prompt = context
        x, total = join((before, steps), (self.placed(self.seen(codes, level), prompt), lengths))
        y, _ = self.backbone(x, lengths=total, cond=self.level(level))
        y = take(y, steps, codes.shape[2])
        said = [F.linear(row, self.vectors[q], self.bias[q - self.config.known]) for row, q in zip(y, level.tolist())]
        return torch.stack(said).float()

    @torch.no_grad()
    def run(self, batch: dict, seeds: list[int]) -> dict:
        """Batch with the known levels `given` [G,T] -> the batch with all levels under the codes' name; nothing is drawn."""
        given, lengths = pad([row.view(-1, row.shape[-1]) for row in batch["given"]])  # [B,G,T]
        if given.shape[1] != self.config.known:
            raise SlmError(f"{given.shape[1]} levels were given, but {self.config.known} are known to this stage")
        codes = F.pad(given, (0, 0, 0, self.n_q - given.shape[1]))
        context = self.context(batch)
        for level in range(self.config.known, self.n_q):
            codes[:, level] = self.scores(codes, lengths, torch.full_like(lengths, level), context).argmax(-1)
        return {**batch, self.config.codes: [codes[b, :, :n] for b, n in enumerate(lengths.tolist())]}
