"""Masked parallel decoding of the codec's finer levels, the prompt in view: from what is said to how it sounds.

    B rows   T frames   P prompt frames   Q levels   C codes a level   E latent width   D width

SoundStorm (Borsos et al., 2023) after MaskGIT (Chang et al., 2022): levels come one after another; inside a level the
surest codes are fixed first. A frame is seen as the sum of the codec's own vectors for its known levels, so nothing about
codes must be learned twice, and scores are inner products with those vectors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.backbone.transformer import Transformer
from slm.condition.guide import Guide
from slm.condition.voice import Voice
from slm.data.batch import pad
from slm.errors import SlmError
from slm.stage.given import believed, confused, summed
from slm.stage.join import join, take
from slm.stage.lm import Stream


class Masked(nn.Module):
    """Batch: codes [Q,T] of the target, `prompt_codes` [Q,P] of the same voice, and with a guide its text and durations.

    run: `given` levels [G,T] and the prompt's codes -> all levels [Q,T]. With `mean` also `latent` [T,E]: of each level not the
    likeliest code's vector but the mean of all codes' vectors, weighted with their probabilities; of a given first level too, if
    the batch has its `given_chances` [T,C]. On little data that is plainer speech than any one draw, and a decoder that has
    learned with it (slm_tokenizers/refined.py) makes it sound.
    """

    @dataclass
    class Config:
        codes: str = "acoustic"
        known: int = 1  # levels that an earlier stage says
        backbone: Transformer.Config = field(default_factory=lambda: Transformer.Config(causal=False, adaptive=64))
        guide: Guide.Config | None = None
        voice: Voice.Config | None = None
        passes: tuple[int, ...] = (8, 4, 2, 1)  # a level, the last number for all further ones
        temperature: float = 0.8
        mean: bool = False
        smooth: float = 0.0
        confuse: float = 0.0  # share of the known levels' codes that are wrong while training, as an earlier stage's may be

        def build(self, streams: dict[str, Stream]) -> "Masked":
            return Masked(self, streams)

    def __init__(self, config: "Masked.Config", streams: dict[str, Stream]) -> None:
        super().__init__()
        stream = streams[config.codes]
        if stream.embed is None:
            raise SlmError(f"masked decoding needs a codec whose vectors it can see; {config.codes!r} has none")
        if config.backbone.causal or not config.backbone.adaptive:
            raise SlmError("masked decoding needs a Transformer with causal=False and adaptive > 0")
        self.config, self.n_q, self.card = config, stream.n_q, stream.card
        self.register_buffer("embed", stream.embed.detach().clone().float(), persistent=False)  # [Q,C,E]
        scale = self.embed.pow(2).mean((1, 2), keepdim=True).sqrt().clamp(min=1e-6)
        self.register_buffer("unit", self.embed / scale / math.sqrt(self.embed.shape[-1]), persistent=False)
        dim, width = config.backbone.dim, self.embed.shape[-1]
        self.backbone = config.backbone.build()
        self.see = nn.Linear(width, dim)
        self.see_level = nn.Linear(width, dim)
        self.region = nn.Embedding(3, dim)  # prompt, target with the level known, target to be said
        self.level = nn.Embedding(self.n_q, config.backbone.adaptive)
        self.say = nn.ModuleList(nn.Linear(dim, width) for _ in range(config.known, self.n_q))
        self.bias = nn.Parameter(torch.zeros(self.n_q - config.known, self.card))
        self.voice = config.voice.build() if config.voice else None
        self.voiced = nn.Linear(config.voice.dim, config.backbone.adaptive) if config.voice else None
        self.guide = config.guide.build(streams[config.guide.text].card, dim) if config.guide else None

    @property
    def settings(self) -> dict[str, Any]:
        """How it decodes, for reports."""
        return {"passes": list(self.config.passes), "temperature": self.config.temperature, "mean": self.config.mean}

    def forward(self, batch: dict, player: str = "main") -> dict[str, Tensor]:
        return self.loss(batch)

    def loss(self, batch: dict) -> dict[str, Tensor]:
        """Cross-entropy in nats of the hidden codes of one random level a row, lower levels more often."""
        codes, lengths = pad(batch[self.config.codes])  # [B,Q,T]
        rows, device = codes.shape[0], codes.device
        real = torch.arange(codes.shape[2], device=device) < lengths[:, None]
        chances = torch.tensor([1.0 / (q - self.config.known + 2) for q in range(self.config.known, self.n_q)], device=device)
        level = torch.multinomial(chances, rows, replacement=True) + self.config.known
        share = torch.cos(torch.rand(rows, 1, device=device) * math.pi / 2)
        hidden = (torch.rand(real.shape, device=device) < share) & real
        hidden |= (torch.rand(real.shape, device=device) < 0.02) & real
        given = confused(codes[:, : self.config.known], self.card, self.config.confuse if self.training else 0.0)
        heard = torch.cat([given, codes[:, self.config.known :]], 1)
        scores = self.scores(heard, lengths, level, hidden, self.context(batch, lengths))
        target = codes[torch.arange(rows, device=device), level]
        every = F.cross_entropy(scores[hidden], target[hidden], reduction="none", label_smoothing=self.config.smooth)
        return {"codes": every.mean() if len(every) else scores.sum() * 0}

    def context(self, batch: dict, lengths: Tensor, at: int | None = None) -> dict:
        """What stays the same over all passes: the prompt, the voice, the phones of the frames, all of them or those from `at` on."""
        prompt, prompt_lengths = pad(batch["prompt_codes"])  # [B,Q,P]
        latents = summed(self.embed, prompt)
        voice = self.voice(latents, prompt_lengths) if self.voice else None
        due = self.guide.due(batch, lengths, at) if self.guide else None
        return {"latents": latents, "prompt": prompt_lengths, "codes": prompt, "voice": voice, "due": due}

    def scores(self, codes: Tensor, lengths: Tensor, level: Tensor, hidden: Tensor, context: dict) -> Tensor:
        """Logits [B,T,C] of `level` [B] at every frame, given all lower levels and the codes of the level that are not hidden [B,T]."""
        rows, _, frames = codes.shape
        device = codes.device
        each = torch.stack([F.embedding(codes[:, q].clamp(min=0), self.embed[q]) for q in range(self.n_q)], 1)  # [B,Q,T,E]
        below = (torch.arange(self.n_q, device=device) < level[:, None])[:, :, None, None]
        pick = torch.arange(rows, device=device)
        target = self.see((each * below).sum(1)) + self.see_level(each[pick, level]) * ~hidden[..., None]
        target = target + self.region(1 + hidden.long())
        if context["due"] is not None:
            target = target + context["due"]
        prompt_level = F.embedding_bag(  # the prompt's codes of the level that is asked for
            (context["codes"][pick, level] + level[:, None] * self.card).reshape(-1, 1), self.embed.flatten(0, 1), mode="sum"
        ).view(rows, -1, self.embed.shape[-1])
        prompt = self.see(context["latents"]) + self.see_level(prompt_level) + self.region.weight[0]
        x, total = join((prompt, context["prompt"]), (target, lengths))
        cond = self.level(level)
        if context["voice"] is not None:
            cond = cond + self.voiced(context["voice"])
        y, _ = self.backbone(x, lengths=total, cond=cond)
        y = take(y, context["prompt"], frames)
        said = torch.stack([self.say[q - self.config.known](y[b]) for b, q in enumerate(level.tolist())])
        return (torch.einsum("bte,bce->btc", said, self.unit[level].to(said.dtype)) + self.bias[level - self.config.known][:, None]).float()

    @torch.no_grad()
    def run(self, batch: dict, seeds: list[int], at: int | None = None) -> dict:
        """Batch with the known levels `given` [G,T] -> the batch with all levels under the codes' name.

        at: the given frames are not all of their text's, but those from this one on, and hear of no others.
        """
        given, lengths = pad([row.view(-1, row.shape[-1]) for row in batch["given"]])  # [B,G,T]
        rows, _, frames = given.shape
        codes = F.pad(given, (0, 0, 0, self.n_q - given.shape[1]))
        context = self.context(batch, lengths, at)
        if self.config.mean:
            codes, latent = self._mean(codes, lengths, context, batch.get("given_chances"))
            said = {"latent": [row[:n] for row, n in zip(latent, lengths.tolist())]}
        else:
            codes, said = self._draw(codes, lengths, context, seeds), {}
        return {**batch, **said, self.config.codes: [codes[b, :, :n] for b, n in enumerate(lengths.tolist())]}

    def _mean(self, codes: Tensor, lengths: Tensor, context: dict, chances: list[Tensor] | None) -> tuple[Tensor, Tensor]:
        """Every level in one pass, given the likeliest codes of those before it -> codes [B,Q,T], mean latent [B,T,E]"""
        latent = believed(self.embed, self.config.known, codes, chances)
        hidden = torch.arange(codes.shape[2], device=codes.device) < lengths[:, None]
        for level in range(self.config.known, self.n_q):
            scores = self.scores(codes, lengths, torch.full_like(lengths, level), hidden, context)
            latent = latent + scores.softmax(-1) @ self.embed[level]
            codes[:, level] = scores.argmax(-1)
        return codes, latent

    def _draw(self, codes: Tensor, lengths: Tensor, context: dict, seeds: list[int]) -> Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        for level in range(self.config.known, self.n_q):
            passes = self.config.passes[min(level - self.config.known, len(self.config.passes) - 1)]
            codes = self._say_level(codes, lengths, level, passes, context, generators)
        return codes

    def _say_level(self, codes: Tensor, lengths: Tensor, level: int, passes: int, context: dict, generators: list) -> Tensor:
        rows, _, frames = codes.shape
        device = codes.device
        hidden = torch.arange(frames, device=device) < lengths[:, None]
        asked = torch.full((rows,), level, device=device)
        for i in range(passes):
            scores = self.scores(codes, lengths, asked, hidden, context)
            last = i == passes - 1
            warm = 0.0 if last else self.config.temperature * (1 - i / passes)
            for b, n in enumerate(lengths.tolist()):
                noise = -torch.empty(n, self.card).exponential_(generator=generators[b]).log().to(device) if warm else 0.0
                best = (scores[b, :n] + warm * noise).argmax(-1)
                sure = scores[b, :n].log_softmax(-1).gather(-1, best[:, None])[:, 0]
                codes[b, level, :n] = torch.where(hidden[b, :n], best, codes[b, level, :n])
                left = int(n * math.cos(math.pi / 2 * (i + 1) / passes)) if not last else 0
                sure = sure.masked_fill(~hidden[b, :n], math.inf)
                hidden[b, :n] = False
                if left:
                    hidden[b, sure.topk(left, largest=False).indices] = True
        return codes
