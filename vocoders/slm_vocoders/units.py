"""A vocoder of units: what is said as units, how high it is said, and in whose voice -> audio.

Polyak et al., 2021, "Speech Resynthesis from Discrete Disentangled Self-Supervised Representations"; durations by Lee et al., 2022,
"Direct speech-to-speech translation with discrete units". SpeechGPT, BASE TTS and Make-A-Voice speak through one.

B batch · Q levels · T frames · S units without repetitions · N samples · D width of the generator's input · V width of a voice

The vectors of units, pitch and voice are summed, where the paper lays them side by side; a convolution follows in either case.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from slm.condition.voice import Voice
from slm.errors import SlmError
from slm.nn.mel import LogMel
from slm_vocoders.codes import CodeHiFiGAN
from slm_vocoders.contour import Contour
from slm_vocoders.durations import Durations
from slm_vocoders.source import pulses
from slm_vocoders.vocos import Vocos

MIDDLE, SPREAD = -5.0, 2.0  # of log-mels of speech; as they are, what all voices share would drown what tells them apart


class UnitVocoder(nn.Module):
    """Units [B, T], or codes [B, Q, T] -> audio [B, 1, T * hop]; `sound` takes one row in any of the forms that it may have."""

    @dataclass
    class Config:
        """codes: the units and the generator behind them, whose n_in is D.
        pitch: None where pitch is not told.
        voice: an encoder of log-mels (its `latent` bands), so that a voice is a recording; a width V, so that it is a vector of the
        user's own; 0 for one voice alone.
        durations: None where units are always told with their repetitions."""

        codes: CodeHiFiGAN.Config = field(default_factory=lambda: CodeHiFiGAN.Config(1, 100))
        pitch: Contour.Config | None = None
        voice: Voice.Config | int = 0
        durations: Durations.Config | None = None

        def build(self) -> "UnitVocoder":
            return UnitVocoder(self)

    def __init__(self, config: "UnitVocoder.Config"):
        super().__init__()
        check(config)
        self.config = config
        self.codes = config.codes.build()
        self.rate, self.hop, self.sourced = self.codes.rate, self.codes.hop, sourced(config)
        dim, listens = config.codes.vocoder.n_in, isinstance(config.voice, Voice.Config)
        self.pitch = config.pitch.build(dim) if config.pitch else None
        self.ear = config.voice.build() if listens else None
        self.mel = LogMel.Config(self.rate, 1024, self.hop, 1024, config.voice.latent, 0.0, self.rate / 2).build() if listens else None
        self.voice_dim = config.voice.dim if listens else config.voice
        self.speaker = nn.Linear(self.voice_dim, dim) if self.voice_dim else None
        self.durations = config.durations.build() if config.durations else None

    @property
    def receptive_field(self) -> int:
        return self.codes.receptive_field

    def forward(self, units: Tensor, pitch: Tensor | None = None, voice: Tensor | None = None) -> Tensor:
        """units [B, T] or [B, Q, T], pitch [B, T] in Hz (0: no voice), voice [B, V] -> [B, 1, T * hop].

        Raises SlmError for no units or such as are not in the table, a pitch of other frames, and for what is asked for but not given
        or given but not asked for.
        """
        x = self.told(units, pitch, voice)
        return self.codes.vocoder(x, self.source(pitch)) if self.sourced else self.codes.vocoder(x)

    def pieces(self, units: Tensor, frames: int, pitch: Tensor | None = None, voice: Tensor | None = None) -> Iterator[Tensor]:
        """forward() in pieces of `frames` frames, which joined are forward()'s audio."""
        if frames < 1:
            raise SlmError(f"A piece has {frames} frames; it must have at least one.")
        x = self.told(units, pitch, voice)
        more = (self.source(pitch),) if self.sourced else ()
        yield from self.codes.vocoder.pieces(x, frames, *more)

    def told(self, units: Tensor, pitch: Tensor | None, voice: Tensor | None) -> Tensor:
        """What the generator hears [B, D, T]."""
        codes = units[:, None] if units.dim() == 2 else units
        if codes.shape[-1] == 0:
            raise SlmError("The vocoder was given no units; it needs at least one.")
        self.check_given(codes.shape[-1], pitch, voice)
        x = self.codes.embedded(codes)
        if self.pitch is not None:
            x = x + self.pitch(pitch)
        if self.speaker is not None:
            x = x + self.speaker(voice)[..., None]
        return x

    def source(self, pitch: Tensor) -> Tensor:
        return pulses(pitch, self.rate, self.hop)

    def check_given(self, frames: int, pitch: Tensor | None, voice: Tensor | None) -> None:
        if (pitch is None) != (self.pitch is None):
            raise SlmError("This vocoder was not taught pitch." if self.pitch is None else "This vocoder needs pitch, Hz in every frame.")
        if pitch is not None and pitch.shape[-1] != frames:
            raise SlmError(f"The pitch has {pitch.shape[-1]} frames, the units have {frames}.")
        if (voice is None) != (self.speaker is None):
            wanted = f"This vocoder needs a voice: a vector of {self.voice_dim} numbers" + (" or a recording." if self.ear else ".")
            raise SlmError("This vocoder has one voice and takes no other." if self.speaker is None else wanted)
        if voice is not None and voice.shape[-1] != self.voice_dim:
            raise SlmError(f"The voice is a vector of {voice.shape[-1]} numbers; this vocoder takes {self.voice_dim}.")

    def listen(self, audio: Tensor) -> Tensor:
        """Someone's speech [B, 1, N] at `rate` Hz -> that voice [B, V]. Raises SlmError without an ear, or for too few samples."""
        if self.ear is None:
            raise SlmError("This vocoder cannot hear a voice in a recording; it takes vectors.")
        mel = (self.mel(audio).transpose(1, 2) - MIDDLE) / SPREAD  # [B,T,bands]
        return self.ear(mel, torch.full((len(mel),), mel.shape[1], device=mel.device))

    def lasting(self, units: Tensor) -> Tensor:
        """units [S] without repetitions -> frames of each [S]. Raises SlmError if the vocoder has learned no durations."""
        if self.durations is None:
            raise SlmError("This vocoder has learned no durations, so units must come with their repetitions.")
        if not len(units):
            raise SlmError("The vocoder was given no units; it needs at least one.")
        if not 0 <= int(units.min()) <= int(units.max()) < self.durations.config.card:
            raise SlmError(f"Units go from 0 to {self.durations.config.card - 1}, these from {int(units.min())} to {int(units.max())}.")
        return self.durations.frames(units[None])[0]

    @torch.no_grad()
    def sound(self, units: Tensor, voice: Tensor | None = None, pitch: Tensor | None = None, collapsed: bool = False) -> Tensor:
        """One row: units [T] or [Q, T], or with `collapsed` [S] without repetitions -> audio [1, T * hop].

        voice: a vector [V], or a recording [1, N]. pitch: [T] in Hz; of collapsed units, as long as `lasting` of them adds up to.
        """
        if collapsed:
            if units.dim() != 1:
                raise SlmError(f"Units without repetitions are one row, not {list(units.shape)}.")
            units = units.repeat_interleave(self.lasting(units))
        if voice is not None:
            voice = self.listen(voice[None]) if voice.dim() == 2 else voice[None]
        return self(units[None], None if pitch is None else pitch[None], voice)[0]

    def remove_weight_norm(self) -> "UnitVocoder":
        self.codes.remove_weight_norm()
        return self


def sourced(config: UnitVocoder.Config) -> bool:
    return isinstance(config.codes.vocoder, Vocos.Config) and config.codes.vocoder.sourced


def check(config: UnitVocoder.Config) -> None:
    """Raise SlmError for what cannot be built."""
    if sourced(config) and not config.pitch:
        raise SlmError("A generator with a source needs pitch, but the vocoder is not told any.")
    if config.durations and config.codes.n_q != 1:
        raise SlmError(f"Durations are of units, one level; these codes have {config.codes.n_q}.")
    if config.durations and config.durations.card != config.codes.card:
        raise SlmError(f"The durations know {config.durations.card} units, the vocoder {config.codes.card}.")
    if isinstance(config.voice, int) and config.voice < 0:
        raise SlmError(f"A voice of {config.voice} numbers cannot be; give 0 for none.")
