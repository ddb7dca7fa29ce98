"""Speech codes while they learn: codes and a voice together must tell the spectrum, and the codes must not tell the voice.

    codes' vectors + voice -> a few convolutions -> log-mel      what is in neither cannot be told
    voice of one half      ~  voice of the other half            and not of other rows: a contrast
    codes' vectors         -> gradient reversal -> voice         what a listener makes of them must be nobody's

Łajszczak et al., 2024 (BASE TTS), section 2.2.2. Not known from it: the weights, and what exactly listens behind the reversal;
here a classifier-like head that hears each frame's code and is judged by its cosine to the voice.

B batch, N samples, T frames, D width of the content, V of the voice, M mel bands, two mel frames to a code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.errors import SlmError
from slm.nn.gradient_reversal import reverse
from slm.nn.mel import LogMel
from slm_tokenizers.factorizing import contrast
from slm_tokenizers.melvq import CENTRE, SPREAD
from slm_tokenizers.quantize.learn import LearnedCodebooks
from slm_tokenizers.semantic.features import Frames
from slm_tokenizers.semantic.speechcodes import SpeechCodes


class LearningSpeechCodes(nn.Module):
    """Batch: audio [B,1,N], crops of one length and of several speakers."""

    @dataclass
    class Config:
        codes: SpeechCodes.Config = field(default_factory=SpeechCodes.Config)
        bands: int = 80  # M
        width: int = 256  # of the convolutions that tell the spectrum
        commit: float = 1.0
        speaker: float = 1.0
        reversal: float = 1.0  # what the gradient of the listener to codes is multiplied with, less than 0 apart; 0 hides nothing
        rise: int = 1000  # steps in which the reversal grows to that

        def build(self, streams: dict | None = None) -> "LearningSpeechCodes":
            """`streams` is what other stages must know; this one hears audio and needs none."""
            return LearningSpeechCodes(self)

    updates: Tensor

    def __init__(self, config: "LearningSpeechCodes.Config") -> None:
        super().__init__()
        self.config = c = config
        self.codes = c.codes.build()
        self.learned = LearnedCodebooks(c.codes.dim, 1, c.codes.card, dropout=False)
        self.hear = LogMel.Config(self.codes.rate, hop=self.codes.hop // 2, n_mels=c.bands, fmax=self.codes.rate / 2, center=False).build()
        self.mel = nn.Sequential(
            nn.Conv1d(c.codes.dim + c.codes.voice, c.width, 5, padding=2), nn.GELU(),
            nn.Conv1d(c.width, c.width, 5, padding=2), nn.GELU(),
            nn.Conv1d(c.width, 2 * c.bands, 1),
        )  # fmt: skip
        self.guess = nn.Sequential(nn.Linear(c.codes.dim, c.width), nn.GELU(), nn.Linear(c.width, c.codes.voice))
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    def forward(self, batch: dict, player: str = "main") -> dict[str, Tensor]:
        return self.loss(batch)

    def loss(self, batch: dict) -> dict[str, Tensor]:
        """SlmError if the rows are not two crops or more of one length, with two frames or more."""
        audio = batch["audio"]
        if not isinstance(audio, Tensor) or len(audio) < 2:
            raise SlmError("speech codes learn from a batch [B, 1, N] of at least 2 crops, as they tell one voice from another")
        frames = self.codes.heard(audio)
        if frames.x.shape[1] < 2:
            raise SlmError(f"crops have {audio.shape[-1]} samples but must have two frames or more, so that their halves can be compared")
        content = self.codes.content(frames).x.float().transpose(1, 2)  # [B,D,T]
        with torch.autocast(audio.device.type, enabled=False):
            q = self.learned(content)
        voice = self.codes.listener(frames)
        if self.training:
            self.updates += 1
        return {
            "mel": self.mel_loss(q.latent, voice, audio),
            "commit": self.config.commit * q.commitment,
            "speaker": self.config.speaker * self.speaker_loss(frames),
            "hidden": self.hidden_loss(q.latent, voice),
        }

    def mel_loss(self, content: Tensor, voice: Tensor, audio: Tensor) -> Tensor:
        """content [B,D,T], voice [B,V], audio [B,1,N] -> mean absolute error of ln-mel, over its spread"""
        frames = content.shape[-1]
        told = self.mel(torch.cat([content, voice[..., None].expand(-1, -1, frames)], 1))  # [B,2M,T]
        wanted = self.hear(audio)[..., : 2 * frames].unflatten(-1, (frames, 2))  # [B,M,T,2]
        return F.l1_loss(told.float(), ((wanted - CENTRE) / SPREAD).permute(0, 1, 3, 2).flatten(1, 2))

    def speaker_loss(self, frames: Frames) -> Tensor:
        """How hard it is to find a crop's second half by its voice, in nats."""
        middle = frames.x.shape[1] // 2
        return contrast(*(self.codes.listener(whole(part)) for part in (frames.x[:, :middle], frames.x[:, middle:])))

    def hidden_loss(self, content: Tensor, voice: Tensor) -> Tensor:
        """1 - cosine between the voice and what codes tell of it: the head lowers it, and through the reversal codes raise it."""
        strength = self.config.reversal * min(1.0, (int(self.updates) + 1) / max(1, self.config.rise))
        guess = self.guess(reverse(content, strength).transpose(1, 2)).mean(1)  # [B,V]
        return (1 - F.cosine_similarity(guess.float(), voice.detach(), dim=-1)).mean()

    @torch.no_grad()
    def finished(self) -> SpeechCodes:
        """The tokenizer alone, with the learned codebook."""
        self.codes.codebooks.embed.copy_(self.learned.embed)
        return self.codes.eval()

    def write(self, folder: Path) -> None:
        """The tokenizer, in `folder`, which `slm_tokenizers.load` reads."""
        self.finished().write(folder)


def whole(x: Tensor) -> Frames:
    """x [B,T,E], nothing padded -> Frames"""
    return Frames(x, torch.full((len(x),), x.shape[1], device=x.device))
