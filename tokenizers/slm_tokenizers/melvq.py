"""VQ-VAE on log-mel: a spectrogram as one code every few frames, for a vocoder to speak.

    audio [B,1,N] -> mel [B,M,T*S] -> encoder -> latent [B,D,T] -> codes [B,Q,T] -> decoder -> mel [B,M,T*S] -> vocoder -> audio

van den Oord et al., 2017, "Neural Discrete Representation Learning", on the mels of Tortoise (Betker, 2023) and its kin. A decoder that
learned nothing but distances makes blurred mels, which is most of what one hears of it; sharpening.py teaches it further.

B batch, N samples, M mel bands, S mel frames a code frame, D width of a latent, Q levels, T = ceil(N / (S*hop of the mel)).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.errors import SlmError
from slm.nn.mel import LogMel
from slm_tokenizers import stored
from slm_tokenizers.codec import KERNEL, Stack
from slm_tokenizers.griffinlim import griffin_lim
from slm_tokenizers.quantize.learn import LearnedCodebooks
from slm_tokenizers.quantize.residual import Codebooks
from slm_tokenizers.quantize.taught import distill, head
from slm_tokenizers.soundstream import whole_frames
from slm_tokenizers.vqvae import Decoder, encoder

MEL = LogMel.Config(center=False)  # 16 kHz, a frame each 160 samples
BLOCK = 500  # frames that sound together: what Griffin-Lim keeps in memory
CENTRE, SPREAD = -5.0, 2.5  # about the mean and deviation of ln-mels of speech, so that layers see numbers near one

Vocoder = Callable[[Tensor], Tensor]  # mel [B,M,T] -> audio [B,1,N]


class Sharp(nn.Module):
    """What a decoder's mel lacks, of the mel and the latent it was made of: ConvNeXt blocks at the mel's rate, beside a skip path."""

    @dataclass
    class Config:
        width: int = 192
        blocks: int = 4

        def build(self, bands: int, dim: int, fold: int) -> "Sharp":
            return Sharp(self, bands, dim, fold)

    def __init__(self, config: "Sharp.Config", bands: int, dim: int, fold: int) -> None:
        super().__init__()
        self.fold = fold
        self.hear_mel, self.hear_latent = nn.Linear(bands, config.width), nn.Linear(dim, fold * config.width)
        self.stack, self.norm, self.add = Stack(config.width, config.blocks), nn.LayerNorm(config.width), nn.Linear(config.width, bands)
        nn.init.zeros_(self.add.weight)
        nn.init.zeros_(self.add.bias)

    def forward(self, mel: Tensor, latent: Tensor) -> Tensor:
        """mel [B,M,T*S], latent [B,D,T] -> mel [B,M,T*S]"""
        x = self.hear_mel(mel.transpose(1, 2))  # [B,T*S,W]
        x = x + self.hear_latent(latent.transpose(1, 2)).reshape(x.shape)
        return mel + self.add(self.norm(self.stack(x))).transpose(1, 2)


class MelVQ(nn.Module):
    """Audio [B,1,N] at `rate` Hz -> codes [B,Q,T] long in 0..card-1 -> mel, and audio by whatever speaks mel, else by Griffin-Lim.

    Griffin-Lim hears everything, so that audio cannot be cut; but it can go on from what was heard (`sound` takes what is `known`).
    """

    goes_on = True

    @dataclass
    class Config:
        """sharp: what makes the decoder's mels less blurred, if it learned that."""

        mel: LogMel.Config = field(default_factory=lambda: LogMel.Config(**vars(MEL)))
        layers: int = 1  # each halves the rate: S = 2^layers
        n_q: int = 1
        card: int = 1024
        dim: int = 64
        width: int = 256
        residuals: int = 3
        sharp: Sharp.Config | None = None

        def build(self) -> "MelVQ":
            """A module with random weights. SlmError on a centred mel, or a field that is too small."""
            return MelVQ(self)

    def __init__(self, config: "MelVQ.Config") -> None:
        super().__init__()
        for name in ("n_q", "card", "dim", "width"):
            if getattr(config, name) < 1:
                raise SlmError(f"{name} is {getattr(config, name)} but must be at least 1")
        self.config = config
        self.fold = 2**config.layers
        self.rate, self.hop = config.mel.rate, config.mel.hop * self.fold
        self.n_q, self.card = config.n_q, config.card
        self.hear = config.mel.build()
        bands = config.mel.n_mels
        self.encoder = encoder(bands, config.width, config.dim, config.layers, config.residuals)
        self.codebooks = Codebooks(config.n_q, config.card, config.dim)
        self.decoder = Decoder(config.dim, config.width, bands, config.layers, config.residuals)
        if config.sharp is not None:
            self.sharpen(config.sharp)

    def sharpen(self, sharp: Sharp.Config) -> None:
        """A new last part of the decoder, which changes nothing before it has learned; codes stay what they are."""
        self.config = replace(self.config, sharp=sharp)
        self.decoder.sharp = sharp.build(self.config.mel.n_mels, self.config.dim, self.fold)  # below `decoder`, which makes no codes

    def cut(self, levels: int) -> None:
        """Only the first levels stay; their codes are what they were. SlmError if there are not so many."""
        if not 1 <= levels <= self.n_q:
            raise SlmError(f"levels is {levels} but this codec has levels 1 to {self.n_q}")
        embed = self.codebooks.embed[:levels].clone()
        self.config, self.n_q = replace(self.config, n_q=levels), levels
        self.codebooks = Codebooks(levels, self.card, self.config.dim)
        self.codebooks.embed.copy_(embed)

    @property
    def receptive_field(self) -> int:
        """Frames of context on each side that decide a frame of codes or of mels, whichever needs more."""
        return reach(self.config)

    def as_stored(self) -> "MelVQ":
        """Rounds the weights to what is saved, so that codes made now are those of the codec that is loaded later."""
        return stored.rounded(self)

    def frames(self, samples: int) -> int:
        return -(-samples // self.hop)

    def spectrum(self, audio: Tensor) -> Tensor:
        """audio [B,1,N] -> log-mel [B,M,T*S], silence completing the last frame. SlmError on another shape, or no samples."""
        return whole_mel(self.hear, audio, self.hop)

    def latent_of(self, mel: Tensor) -> Tensor:
        """log-mel [B,M,T*S] -> unquantised latent [B,D,T]"""
        return self.encoder((mel - CENTRE) / SPREAD).float()

    def mel_of(self, latent: Tensor) -> Tensor:
        """latent [B,D,T] -> log-mel [B,M,T*S]"""
        mel = self.decoder(latent.transpose(1, 2))
        mel = mel if self.config.sharp is None else self.decoder.sharp(mel, latent)
        return mel * SPREAD + CENTRE

    @torch.no_grad()
    def encode(self, audio: Tensor, n_q: int | None = None) -> Tensor:
        """audio [B,1,N] at `rate` Hz -> codes [B,Q,T]"""
        return self.codebooks.encode(self.latent_of(self.spectrum(audio)), n_q)

    @torch.no_grad()
    def mel(self, codes: Tensor) -> Tensor:
        """codes [B,Q,T] -> log-mel [B,M,T*S]. SlmError on a code or level out of range."""
        return self.mel_of(self.codebooks.decode(codes))

    @torch.no_grad()
    def decode(self, codes: Tensor, samples: int | None = None, vocoder: Vocoder | None = None) -> Tensor:
        """codes [B,Q,T] -> audio [B,1,T*hop], cut to `samples`: by a vocoder that hears this mel, or else as `sound` does."""
        latent = self.codebooks.decode(codes)
        audio = self.sound(latent) if vocoder is None else spoken(self.mel_of(latent), self.config.mel, vocoder)
        return audio[..., :samples]

    @torch.no_grad()
    def sound(self, latent: Tensor, known: Tensor | None = None) -> Tensor:
        """latent [B,D,T], codes' vectors summed or something near them -> audio [B,1,T*hop], BLOCK frames after BLOCK frames.

        known: audio [B,1,K] that it begins with, and that what follows goes on from, as of a stretch that was heard already.
        """
        audio = latent.new_zeros(len(latent), 1, 0)
        for start in range(0, latent.shape[-1], BLOCK):
            low, stop = max(0, start - self.receptive_field), min(latent.shape[-1], start + BLOCK)
            mel = self.mel_of(latent[..., low : stop + self.receptive_field])
            before = known if start == 0 else audio[..., low * self.hop :]
            made = griffin_lim(mel, self.config.mel, known=before)
            audio = torch.cat([audio, made[..., (start - low) * self.hop : (stop - low) * self.hop]], -1)
        return audio


def reach(config: MelVQ.Config) -> int:
    """Frames to each side that decide a frame of codes or of mels, whichever needs more, or a few more.

    Each residual block hears a frame beyond its own, and so does the layer next to the latent; those that change the rate and the one
    next to the mel together at most one in the encoder, and less than two in the decoder.
    """
    fold = 2**config.layers
    spill = -(-(config.mel.n_fft - config.mel.hop) // (2 * config.mel.hop * fold))  # frames that share samples with a frame's mels
    sharp = 0 if config.sharp is None else -(-config.sharp.blocks * (KERNEL // 2) // fold)
    return config.residuals + max(2 + spill, 3 + sharp)


def whole_mel(hear: LogMel, audio: Tensor, hop: int) -> Tensor:
    """audio [B,1,N] -> log-mel [B,M,L] of ceil(N/hop) whole frames of `hop` samples. SlmError on another shape, or no samples."""
    audio = whole_frames(audio, hop)
    length = audio.shape[-1] // hear.config.hop
    missing = max(0, hear.pad + 1 - audio.shape[-1])  # the mel mirrors that much at its borders
    return hear(F.pad(audio, (0, missing)))[..., :length]


def spoken(mel: Tensor, config: LogMel.Config, vocoder: Vocoder | None) -> Tensor:
    """log-mel [B,M,L] -> audio [B,1,L*hop]. SlmError if the vocoder was made for another mel."""
    for name in ("rate", "hop"):
        wanted = getattr(vocoder, name, getattr(config, name))
        if wanted != getattr(config, name):
            raise SlmError(f"the vocoder's mel has {name} {wanted} but this codec's has {getattr(config, name)}")
    return griffin_lim(mel, config) if vocoder is None else vocoder(mel)[..., : mel.shape[-1] * config.hop]


class LearningMelVQ(nn.Module):
    """A MelVQ, its moving codebooks, the distance between mels that it lowers and, if there is one, the teacher of its first level.

    Batch: audio [B,1,N]; teacher [B,T] (optional), a class a frame, -1 for none, as in taught.py.
    """

    @dataclass
    class Config:
        codec: MelVQ.Config = field(default_factory=MelVQ.Config)
        commit: float = 0.25
        dropout: bool = False  # of levels, where there are several
        teacher: int = 0  # classes that the first level alone must tell; 0: none
        distill: float = 0.3

        def build(self) -> "LearningMelVQ":
            return LearningMelVQ(self)

    def __init__(self, config: "LearningMelVQ.Config") -> None:
        super().__init__()
        self.config = config
        self.codec = config.codec.build()
        self.learned = LearnedCodebooks(config.codec.dim, config.codec.n_q, config.codec.card, config.dropout)
        self.head = head(config.codec.dim, config.teacher) if config.teacher else None

    def losses(self, batch: dict) -> dict[str, Tensor]:
        mel = self.codec.spectrum(batch["audio"])
        latent = self.codec.latent_of(mel)
        with torch.autocast(mel.device.type, enabled=False):
            q = self.learned(latent)
        losses = {"mel": F.l1_loss(self.codec.mel_of(q.latent), mel), "commit": self.config.commit * q.commitment}
        if self.head is not None and "teacher" in batch:
            losses["distill"] = self.config.distill * distill(self.head(q.first).transpose(1, 2), batch["teacher"])
        return losses

    @torch.no_grad()
    def finished(self) -> MelVQ:
        """The codec alone, with the learned codebook, as it will be stored."""
        self.codec.codebooks.embed.copy_(self.learned.embed)
        return self.codec.as_stored().eval()

    def write(self, out: Path) -> None:
        """OUT/codec, which `slm_tokenizers.load` reads."""
        stored.save(self.finished(), out / "codec")
