"""A codec while it learns: residual VQ with moving codebooks and, where there is one, a teacher for the first level.

    B batch   N samples   T frames   D latent width   E classes of the teacher   Q levels

Any codec learns here whose `latent(audio)` is [B,D,T], whose `decoder` makes audio of latents [B,T,D], and whose `codebooks`
hold what was learned. With a teacher, the first level alone must tell what a teacher hears in each frame: here phones, as
SpeechTokenizer (Zhang et al., 2023) does with the pseudo-labels of a self-supervised model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from slm_tokenizers import stored
from slm_tokenizers.codec import Codec
from slm_tokenizers.quantize.learn import LearnedCodebooks
from slm_tokenizers.quantize.taught import distill, head
from slm_tokenizers.soundstream import SoundStream
from slm_tokenizers.vqvae import VQVAE
from slm_vocoders.learning import Reconstruction


class TaughtCodec(nn.Module):
    """A codec, its learned codebooks and the teacher's head.

    Batch: audio [B,1,N], N a multiple of the hop; teacher [B,T] (optional).
    """

    @dataclass
    class Config:
        codec: Codec.Config | SoundStream.Config | VQVAE.Config = field(default_factory=Codec.Config)
        teacher: int = 40  # E; 0 trains without a teacher
        distill: float = 5.0
        commit: float = 1.0
        dropout: bool = True

        def build(self) -> "TaughtCodec":
            return TaughtCodec(self)

    def __init__(self, config: "TaughtCodec.Config") -> None:
        super().__init__()
        self.config = config
        self.codec = config.codec.build()
        self.learned = LearnedCodebooks(config.codec.dim, config.codec.n_q, config.codec.card, config.dropout)
        self.head = head(config.codec.dim, config.teacher) if config.teacher else None

    def reconstruct(self, batch: dict) -> Reconstruction:
        audio = batch["audio"]
        latent = self.codec.latent(audio)
        with torch.autocast(audio.device.type, enabled=False):
            q = self.learned(latent)
        losses = {"commit": self.config.commit * q.commitment}
        if self.head is not None and "teacher" in batch:
            losses["distill"] = self.config.distill * distill(self.head(q.first).transpose(1, 2), batch["teacher"])
        return Reconstruction(audio, self.codec.decoder(q.latent.transpose(1, 2)), losses)

    @torch.no_grad()
    def finished(self) -> Codec | SoundStream | VQVAE:
        """The codec alone, with the learned codebooks, as it will be stored."""
        self.codec.codebooks.embed.copy_(self.learned.embed)
        return self.codec.as_stored().eval()

    def write(self, out: Path) -> None:
        """OUT/codec, which `slm_tokenizers.load` reads."""
        stored.save(self.finished(), out / "codec")
