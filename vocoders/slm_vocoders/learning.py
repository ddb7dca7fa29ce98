"""A vocoder while it learns: what it is given of the audio that it must make again.

    B rows   N samples   T frames

On mel it computes the mel itself; on codes the batch brings them, made by a codec that does not learn with it. One on units is given their
pitch and a recording of the voice too, as far as it is told either, and learns beside the sound how long units last.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from slm.errors import SlmError
from slm_vocoders.codes import CodeHiFiGAN
from slm_vocoders.hifigan import HiFiGAN
from slm_vocoders.units import UnitVocoder


@dataclass
class Reconstruction:
    """What any learning maker of sound, vocoder or codec, hands to the adversarial stage."""

    real: Tensor  # [B,1,N]
    fake: Tensor  # [B,1,N]
    losses: dict[str, Tensor]  # everything that does not need the waveform


class LearningVocoder(nn.Module):
    """Batch: audio [B,1,N]; for a vocoder on codes also codes [B,Q,T], N = T * hop; on units also pitch [B,T], voice [B,1,M] or [B,V]."""

    @dataclass
    class Config:
        vocoder: HiFiGAN.Config | CodeHiFiGAN.Config | UnitVocoder.Config = field(default_factory=HiFiGAN.Config.v3)

        def build(self) -> "LearningVocoder":
            return LearningVocoder(self)

    def __init__(self, config: "LearningVocoder.Config") -> None:
        super().__init__()
        self.vocoder = config.vocoder.build()
        self.on_codes = isinstance(config.vocoder, CodeHiFiGAN.Config)
        self.on_units = isinstance(config.vocoder, UnitVocoder.Config)
        known = self.on_codes or self.on_units
        if not known and config.vocoder.mel is None:
            raise SlmError("a vocoder on mel needs the mel's config, such as PRESETS['hifigan22k']")
        self.mel = None if known else config.vocoder.mel.build()

    def reconstruct(self, batch: dict) -> Reconstruction:
        audio = batch["audio"]
        if self.on_units:
            return Reconstruction(audio, self.said(batch).float(), self.lasted(batch["codes"]))
        fake = self.vocoder(batch["codes"] if self.on_codes else self.mel(audio)).float()
        samples = min(audio.shape[-1], fake.shape[-1])  # a rest shorter than a hop has no frame
        return Reconstruction(audio[..., :samples], fake[..., :samples], {})

    def said(self, batch: dict) -> Tensor:
        """The sound of units [B,1,N]."""
        voice = batch["voice"] if self.vocoder.speaker is not None else None
        if voice is not None and voice.dim() == 3:
            voice = self.vocoder.listen(voice)
        return self.vocoder(batch["codes"], batch["pitch"] if self.vocoder.pitch is not None else None, voice)

    def lasted(self, codes: Tensor) -> dict[str, Tensor]:
        return {} if self.vocoder.durations is None else {"duration": self.vocoder.durations.loss(list(codes[:, 0]))}

    @torch.no_grad()
    def write(self, out: Path) -> None:
        """OUT/vocoder, which `slm_vocoders.load` reads."""
        from slm_vocoders.checkpoint import save

        save(self.vocoder.remove_weight_norm(), out / "vocoder")
