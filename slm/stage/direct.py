"""How it sounds, said at once: the first level, phones and a voice in, the sum of all levels' vectors out, in one pass.

    B rows   T frames   P prompt frames   Q levels   G of them given   C codes a level   E latent width   D width

What masked.py says level by level as a mean, learned as what it is: a regression (FastSpeech 2, Ren et al., 2021, on a codec's latents).
There is no draw in it; a decoder that has learned with it makes it sound (slm_tokenizers/sharpening.py, refined.py). For one voice, a
sentence and its durations there is one answer, so that everything that varies must be said by the stage before.
"""

from __future__ import annotations

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


class Direct(nn.Module):
    """Batch: codes [Q,T] of the target, `prompt_codes` [Q,P] of the same voice, text and durations.

    run: `given` levels [G,T], or of one level their `given_chances` [T,C], and the prompt's codes -> `latent` [T,E].
    """

    @dataclass
    class Config:
        codes: str = "acoustic"
        known: int = 1  # levels that an earlier stage says
        backbone: Transformer.Config = field(default_factory=lambda: Transformer.Config(causal=False, adaptive=64))
        guide: Guide.Config = field(default_factory=Guide.Config)
        voice: Voice.Config = field(default_factory=Voice.Config)
        confuse: float = 0.0  # share of the known levels' codes that are wrong while training, as an earlier stage's may be
        trust: float = 1.0  # power of the chances that are given: below 1 an earlier stage is taken for less certain than it says

        def build(self, streams: dict[str, Stream]) -> "Direct":
            """SlmError: a codec without vectors, or a backbone that cannot hear all frames and the voice."""
            return Direct(self, streams)

    def __init__(self, config: "Direct.Config", streams: dict[str, Stream]) -> None:
        super().__init__()
        stream = streams[config.codes]
        if stream.embed is None:
            raise SlmError(f"a sound can be said at once with a codec whose vectors can be seen; {config.codes!r} has none")
        if config.backbone.causal or not config.backbone.adaptive:
            raise SlmError("a sound is said at once by a Transformer with causal=False and adaptive > 0")
        self.config, self.n_q, self.card = config, stream.n_q, stream.card
        self.register_buffer("embed", stream.embed.detach().clone().float(), persistent=False)  # [Q,C,E]
        finer = self.embed[config.known :].pow(2).mean((1, 2)).sum().sqrt()  # about the deviation of what is to be said
        self.register_buffer("scale", finer.clamp(min=1e-6), persistent=False)
        dim, width = config.backbone.dim, self.embed.shape[-1]
        self.backbone = config.backbone.build()
        self.see = nn.Linear(width, dim)
        self.region = nn.Embedding(2, dim)  # prompt, target
        self.say = nn.Linear(dim, width)
        self.voice = config.voice.build()
        self.voiced = nn.Linear(config.voice.dim, config.backbone.adaptive)
        self.guide = config.guide.build(streams[config.guide.text].card, dim)

    @property
    def settings(self) -> dict[str, Any]:
        """How it decodes, for reports."""
        return {"passes": 1, "trust": self.config.trust}

    def forward(self, batch: dict, player: str = "main") -> dict[str, Tensor]:
        return self.loss(batch)

    def loss(self, batch: dict) -> dict[str, Tensor]:
        """Mean distance from the latents, in deviations of what the known levels leave over."""
        said, meant, lengths = self.tried(batch)
        real = torch.arange(said.shape[1], device=said.device) < lengths[:, None]
        return {"latent": F.l1_loss(said[real], meant[real]) / self.scale}

    def tried(self, batch: dict) -> tuple[Tensor, Tensor, Tensor]:
        """-> latents [B,T,E] as it says them of the batch's own first levels or `given_chances`, and as the codes have them; lengths [B]"""
        codes, lengths = pad(batch[self.config.codes])  # [B,Q,T]
        given = confused(codes[:, : self.config.known], self.card, self.config.confuse if self.training else 0.0)
        known = self.heard(given, batch)
        return self.said(known, lengths, batch, None), summed(self.embed, codes), lengths

    def heard(self, given: Tensor, batch: dict) -> Tensor:
        """given [B,G,T] -> what is known [B,T,E]: these codes' vectors, or the mean of the batch's `given_chances`, as far as trusted."""
        chances = batch.get("given_chances")
        if chances is not None and self.config.trust != 1:
            weights = [row.pow(self.config.trust) for row in chances]
            chances = [row / row.sum(-1, keepdim=True) for row in weights]
        return believed(self.embed, self.config.known, given, chances)

    def said(self, known: Tensor, lengths: Tensor, batch: dict, at: int | None) -> Tensor:
        """known [B,T,E] -> latents [B,T,E]; at: these are not all frames of their texts, but those from this one on."""
        prompt, prompt_lengths = pad(batch["prompt_codes"])  # [B,Q,P]
        heard = summed(self.embed, prompt)
        target = self.see(known) + self.region.weight[1] + self.guide.due(batch, lengths, at)
        x, total = join((self.see(heard) + self.region.weight[0], prompt_lengths), (target, lengths))
        y, _ = self.backbone(x, lengths=total, cond=self.voiced(self.voice(heard, prompt_lengths)))
        return known + self.say(take(y, prompt_lengths, known.shape[1])).float() * self.scale

    @torch.no_grad()
    def run(self, batch: dict, seeds: list[int], at: int | None = None) -> dict:
        """Batch with what is known -> the batch with `latent`, rows [T,E].

        at: the given frames are not all of their text's, but those from this one on, and hear of no others.
        """
        given, lengths = pad([row.view(-1, row.shape[-1]) for row in batch["given"]])  # [B,G,T]
        known = self.heard(given, batch)
        said = self.said(known, lengths, batch, at)
        return {**batch, "latent": [row[:n] for row, n in zip(said, lengths.tolist())]}
