"""VQ-VAE on log-mel: a spectrogram as one code every few frames, for a vocoder to speak, one of its own perhaps.

    audio [B,1,N] -> mel [B,M,T*S] -> encoder -> latent [B,D,T] -> codes [B,Q,T] -> decoder -> mel [B,M,T*S] -> vocoder -> audio

van den Oord et al., 2017, "Neural Discrete Representation Learning", on the mels of Tortoise (Betker, 2023) and its kin.

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
from slm_tokenizers.griffinlim import griffin_lim
from slm_tokenizers.quantize.learn import LearnedCodebooks
from slm_tokenizers.quantize.residual import Codebooks
from slm_tokenizers.quantize.taught import distill, head
from slm_tokenizers.soundstream import whole_frames
from slm_tokenizers.vqvae import Decoder, encoder
from slm_vocoders.vocos import Vocos

MEL = LogMel.Config(center=False)  # 16 kHz, a frame each 160 samples
CENTRE, SPREAD = -5.0, 2.5  # about the mean and deviation of ln-mels of speech, so that layers see numbers near one

Vocoder = Callable[[Tensor], Tensor]  # mel [B,M,T] -> audio [B,1,N]


class MelVQ(nn.Module):
    """Audio [B,1,N] at `rate` Hz -> codes [B,Q,T] long in 0..card-1 -> mel, and audio by whatever speaks mel.

    With a vocoder of its own it has a `receptive_field`, the frames to each side that matter; Griffin-Lim hears everything.
    """

    @dataclass
    class Config:
        """vocoder: speaks in place of Griffin-Lim; it hears S mel frames at a time, as `folded` makes them."""

        mel: LogMel.Config = field(default_factory=lambda: LogMel.Config(**vars(MEL)))
        layers: int = 1  # each halves the rate: S = 2^layers
        n_q: int = 1
        card: int = 1024
        dim: int = 64
        width: int = 256
        residuals: int = 3
        vocoder: Vocos.Config | None = None

        def build(self) -> "MelVQ":
            """A module with random weights. SlmError on a centred mel, a field that is too small, or a vocoder of other frames."""
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
        if config.vocoder is not None:
            self.give(config.vocoder)

    def give(self, vocoder: Vocos.Config) -> None:
        """A new vocoder with random weights; codes and mels stay what they are. SlmError if it hears other frames than `folded` makes."""
        wanted = {"n_in": self.fold * self.config.mel.n_mels, "rate": self.rate, "hop": self.hop, "sourced": False}
        for name, value in wanted.items():
            if getattr(vocoder, name) != value:
                raise SlmError(f"the vocoder's {name} is {getattr(vocoder, name)} but this codec's mel needs {value}")
        self.config = replace(self.config, vocoder=vocoder)
        self.decoder.vocoder = vocoder.build()  # below `decoder`, which makes no codes, so that the fingerprint stays
        self.receptive_field = reach(self.config, self.vocoder)

    @property
    def vocoder(self) -> Vocos | None:
        return getattr(self.decoder, "vocoder", None)

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
        return self.decoder(latent.transpose(1, 2)) * SPREAD + CENTRE

    def folded(self, mel: Tensor) -> Tensor:
        """log-mel [B,M,T*S] -> what the codec's own vocoder hears [B,M*S,T]: numbers near one, the S mel frames of a code frame as one."""
        return ((mel - CENTRE) / SPREAD).unflatten(-1, (-1, self.fold)).transpose(2, 3).flatten(1, 2)

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
    def sound(self, latent: Tensor) -> Tensor:
        """latent [B,D,T], codes' vectors summed or something near them -> audio [B,1,T*hop] by its own vocoder, or else Griffin-Lim"""
        mel = self.mel_of(latent)
        return spoken(mel, self.config.mel, None) if self.vocoder is None else self.vocoder(self.folded(mel))


def reach(config: MelVQ.Config, vocoder: Vocos) -> int:
    """Frames to each side that decide a frame of codes or of audio, whichever needs more, or a few more.

    Each residual block hears a frame beyond its own, and so does the layer next to the latent; those that change the rate and the one
    next to the mel together at most one in the encoder, and less than two in the decoder.
    """
    hop = config.mel.hop * 2**config.layers
    spill = -(-(config.mel.n_fft - config.mel.hop) // (2 * hop))  # frames that share samples with a frame's mels
    return config.residuals + max(2 + spill, 3 + vocoder.receptive_field)


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
