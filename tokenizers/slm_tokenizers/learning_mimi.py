"""Mimi while it learns: moving codebooks, a teacher for the semantic levels, and rows that hear less or more than their codes.

Défossez et al., 2024, "Moshi: a speech-text foundation model for real-time dialogue", section 3.3. The paper's teacher is the
features of WavLM; here it is classes: phones, or the units of any encoder. As torch initialises convolutions, nearly all of an
untrained latent would be the same in every frame; here they start without bias and keep the strength of the audio.

B batch, N samples, D width of the latent, T frames, T' labels, E classes of the teacher.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from slm_tokenizers import stored
from slm_tokenizers.mimi import Mimi
from slm_tokenizers.quantize.learn import LearnedCodebooks
from slm_tokenizers.quantize.split import Projected
from slm_tokenizers.quantize.taught import distill
from slm_vocoders.learning import Reconstruction


class LearningMimi(nn.Module):
    """A Mimi, its learned codebooks and the teacher's head.

    Batch: audio [B,1,N]; teacher [B,T'] classes at any rate, over the same time, -1 for none (optional).
    """

    @dataclass
    class Config:
        codec: Mimi.Config = field(default_factory=Mimi.Config)
        teacher: int = 40  # E; 0 trains without a teacher
        distill: float = 5.0
        commit: float = 1.0
        dropout: bool = True  # every second row hears a random number of acoustic levels, at least one
        raw: float = 0.5  # share of rows whose latent is heard unquantised

        def build(self) -> "LearningMimi":
            return LearningMimi(self)

    def __init__(self, config: "LearningMimi.Config") -> None:
        super().__init__()
        self.config = config
        self.codec = config.codec.build()
        for part in (self.codec.encoder, self.codec.downsample, self.codec.quantizer):
            start(part)
        c = config.codec
        self.semantic = LearnedCodebooks(c.code_dim, c.semantic, c.card, dropout=False)
        self.acoustic = LearnedCodebooks(c.code_dim, c.n_q - c.semantic, c.card, config.dropout)
        # one frame alone: 80 ms hold a phone and more
        self.head = nn.Conv1d(c.dim, config.teacher, 1) if config.teacher else None

    def reconstruct(self, batch: dict) -> Reconstruction:
        audio = batch["audio"]
        latent = self.codec.latent(audio).float()
        with torch.autocast(audio.device.type, enabled=False):
            said, said_commit = through(self.codec.quantizer.semantic, self.semantic, latent)
            rest, rest_commit = through(self.codec.quantizer.acoustic, self.acoustic, latent)
            losses = {"commit": self.config.commit * (said_commit + rest_commit)}
            if self.head is not None and "teacher" in batch:
                teacher = middle(batch["teacher"], latent.shape[-1])
                losses["distill"] = self.config.distill * distill(self.head(said).transpose(1, 2), teacher)
        fake = self.codec.sound(self.heard(latent, said + rest)).float()
        return Reconstruction(audio, fake[..., : audio.shape[-1]], losses)

    def heard(self, latent: Tensor, quantised: Tensor) -> Tensor:
        """What the decoder hears [B,D,T]: the codes, in some rows the latent as it is."""
        if not self.training:
            return quantised
        return torch.where(torch.rand(len(latent), 1, 1, device=latent.device) < self.config.raw, latent, quantised)

    @torch.no_grad()
    def finished(self) -> Mimi:
        """The codec alone, with the learned codebooks, as it will be stored."""
        self.codec.quantizer.semantic.books.embed.copy_(self.semantic.embed)
        self.codec.quantizer.acoustic.books.embed.copy_(self.acoustic.embed)
        return stored.rounded(self.codec).eval()

    def write(self, out: Path) -> None:
        """OUT/codec, which `slm_tokenizers.load` reads."""
        stored.save(self.finished(), out / "codec")


@torch.no_grad()
def start(part: nn.Module) -> None:
    """No biases, and weights whose variance is 1 / fan-in, three times what torch draws."""
    for conv in part.modules():
        if isinstance(conv, nn.Conv1d):
            conv.weight.mul_(math.sqrt(3))
            if conv.bias is not None:
                conv.bias.zero_()


def through(part: Projected, learned: LearnedCodebooks, latent: Tensor) -> tuple[Tensor, Tensor]:
    """latent [B,D,T] -> what one part's codes make of it [B,D,T], straight-through, and its commitment."""
    q = learned(part.inward(latent))
    return part.outward(q.latent), q.commitment


def middle(labels: Tensor, frames: int) -> Tensor:
    """labels [B,T'] -> [B,frames] over the same time: of each frame the label in its middle, the later of two.

    Example: 12.5 frames a second of labels at 50: [3, 3, 7, 7, 2, 2, 2, 5], 2 -> [7, 2]
    """
    at = (2 * torch.arange(frames, device=labels.device) + 1) * labels.shape[1] // (2 * frames)
    return labels[:, at]
