"""The factorised codec while it learns: each stream must tell its own thing, and must not tell the others'.

    prosody  must tell the melody           and hide the phones
    content  must tell the phones           and hide the melody
    detail   is dropped in half of the rows and hides both
    all      together                           hide the voice

Ju et al., 2024 (NaturalSpeech 3), section 3.2; hiding by gradient reversal. The paper classifies speakers by name; here a voice must
be nearer to that of the same crop's other half than to other rows' (as BASE TTS, Łajszczak et al., 2024, contrasts speakers),
so that speech without names will do.

B batch, N samples, D width of a latent, T frames, V width of a voice, E classes of phones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.nn.gradient_reversal import reverse
from slm.nn.pitch import pitch, tune
from slm_tokenizers import stored
from slm_tokenizers.factorized import STREAMS, FACodec
from slm_tokenizers.quantize.taught import distill
from slm_vocoders.learning import Reconstruction

SHARPNESS = 10.0  # cosines times this are the logits of the contrast
DECAY = 0.99  # of the average voice


class LearningFactors(nn.Module):
    """A FACodec and those who listen to its streams.

    Batch: audio [B,1,N], N a multiple of the hop; teacher [B,T'] phones at any rate (optional).
    """

    @dataclass
    class Config:
        """Weights as in Amphion's recipe, where it has them; `reversal` scales the gradient of those that are to fail."""

        codec: FACodec.Config = field(default_factory=FACodec.Config)
        phones: int = 40  # E
        commit: float = 0.25
        codebook: float = 1.0
        melody: float = 1.0
        content: float = 5.0
        speaker: float = 5.0
        reversal: float = 1.0
        rise: int = 10_000  # steps in which the reversal grows to that: streams that tell nothing yet would flee from it into few codes
        drop: float = 0.5  # share of rows that must do without detail

        def build(self) -> "LearningFactors":
            return LearningFactors(self)

    updates: Tensor

    def __init__(self, config: "LearningFactors.Config") -> None:
        super().__init__()
        self.config = config
        self.codec = config.codec.build()
        dim = config.codec.dim
        # a head that is to succeed and one that is to fail never share weights
        self.phones = nn.ModuleDict({name: head(dim, config.phones) for name in STREAMS})
        self.melody = nn.ModuleDict({name: head(dim, 2) for name in STREAMS})  # height and voicing
        self.voice = head(dim, config.codec.voice)
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    def reconstruct(self, batch: dict) -> Reconstruction:
        audio = batch["audio"]
        batch = {**batch, "hertz": pitch(audio, self.codec.rate, self.codec.hop)}
        latent = self.codec.latent(audio)
        with torch.autocast(audio.device.type, enabled=False):
            made = self.codec.streams(latent)
            voice = self.codec.listener(latent)
            losses = self.told(made, batch) | self.hidden(made, voice, batch) | self.kept(made, latent)
        if self.training:
            self.updates += 1
            self.codec.decoder.average.lerp_(voice.detach().mean(0), 1 - DECAY)
        return Reconstruction(audio, self.codec.decoder(self.heard(made), voice), losses)

    def heard(self, made: dict) -> Tensor:
        """What the decoder hears [B,T,D]: all streams, in some rows without detail."""
        detail = made["detail"].latent
        if self.training:
            detail = detail * (torch.rand(len(detail), 1, 1, device=detail.device) >= self.config.drop)
        return (made["prosody"].latent + made["content"].latent + detail).transpose(1, 2)

    def kept(self, made: dict, latent: Tensor) -> dict[str, Tensor]:
        """What quantising costs, and whether a voice is the same in both halves of a crop."""
        middle = latent.shape[-1] // 2
        same = contrast(self.codec.listener(latent[..., :middle]), self.codec.listener(latent[..., middle:]))
        return {
            "commit": self.config.commit * sum(m.commitment for m in made.values()),
            "codebook": self.config.codebook * sum(m.codebook for m in made.values()),
            "speaker": self.config.speaker * same,
        }

    def told(self, made: dict, batch: dict) -> dict[str, Tensor]:
        """What a stream must tell: prosody the melody, content the phones."""
        losses = {"melody": self.config.melody * self.melody_loss("prosody", made["prosody"].latent, batch)}
        if "teacher" in batch:
            losses["content"] = self.config.content * self.phone_loss("content", made["content"].latent, batch)
        return losses

    def hidden(self, made: dict, voice: Tensor, batch: dict) -> dict[str, Tensor]:
        """What a stream must hide: each head lowers its loss, and through the reversal the stream raises it."""
        strength = self.config.reversal * min(1.0, (int(self.updates) + 1) / max(1, self.config.rise))
        turned = {name: reverse(m.latent, strength) for name, m in made.items()}
        losses = {f"{name}_melody": self.melody_loss(name, turned[name], batch) for name in ("content", "detail")}
        if "teacher" in batch:
            losses |= {f"{name}_phones": self.phone_loss(name, turned[name], batch) for name in ("prosody", "detail")}
        guess = self.voice(sum(turned.values())).mean(-1)  # [B,V]
        return losses | {"hidden_voice": (1 - F.cosine_similarity(guess, voice.detach(), dim=-1)).mean()}

    def phone_loss(self, name: str, latent: Tensor, batch: dict) -> Tensor:
        return distill(self.phones[name](latent).transpose(1, 2), at_frames(batch["teacher"], latent.shape[-1]))

    def melody_loss(self, name: str, latent: Tensor, batch: dict) -> Tensor:
        """Absolute error of the height where there is a voice, in octaves / ln 2, and cross-entropy of whether there is one."""
        hertz = batch["hertz"]  # [B,T]
        voiced = (hertz > 0).float()
        height, voicing = self.melody[name](latent).unbind(1)
        off = ((height - tune(hertz)).abs() * voiced).sum() / voiced.sum().clamp(min=1)
        return off + F.binary_cross_entropy_with_logits(voicing, voiced)

    @torch.no_grad()
    def finished(self) -> FACodec:
        """The codec alone, as it will be stored."""
        return self.codec.as_stored().eval()

    def write(self, out: Path) -> None:
        """OUT/codec, which `slm_tokenizers.load` reads."""
        stored.save(self.finished(), out / "codec")


def head(dim: int, out: int) -> nn.Sequential:
    """x [B,D,T] -> [B,out,T], from a frame and its neighbours."""
    return nn.Sequential(nn.Conv1d(dim, dim, 3, padding=1), nn.ELU(), nn.Conv1d(dim, out, 1))


def at_frames(labels: Tensor, frames: int) -> Tensor:
    """labels [B,T'] at any rate -> [B,frames] over the same time."""
    return labels[:, torch.arange(frames, device=labels.device) * labels.shape[1] // frames]


def contrast(a: Tensor, b: Tensor) -> Tensor:
    """Voices [B,V] twice, row by row of the same speaker -> mean cross-entropy in nats of finding each row's other among all."""
    return F.cross_entropy(SHARPNESS * a @ b.t(), torch.arange(len(a), device=a.device))
