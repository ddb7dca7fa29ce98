"""Adversarial training of anything that makes audio, codecs and vocoders alike, or mels.

    B batch   N samples

The generator hands over real audio, its own, and losses of its own; this stage adds distances between spectra and, from
step `begin` on, a game with discriminators (least squares, as HiFi-GAN, Kong et al., 2020).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from slm_vocoders.balancer import Balancer
from slm_vocoders.discriminators import Judgement, MultiSTFT
from slm_vocoders.losses import MultiMel, Plain, feature_match, lsgan_d, lsgan_g, multi_stft


class Adversarial(nn.Module):
    """A generator with `reconstruct(batch) -> (real, fake, losses)` against discriminators.

    Players: "generator" and, when `begin` is not negative, "discriminators".
    """

    @dataclass
    class Config:
        generator: Any  # the config of a module with `reconstruct`
        spectra: MultiMel.Config | Plain.Config = field(default_factory=MultiMel.Config)  # how far audio, or a mel, is from its copy
        mel: float = 15.0
        stft: float = 1.0
        adversarial: float = 1.0
        feature: float = 2.0
        begin: int = 0  # first step with discriminators; -1: never
        discriminators: list = field(default_factory=lambda: [MultiSTFT.Config()])
        loudness: float = 0.0  # root mean square at which the critics hear each row of real audio, and its copy alike; 0: as it is
        balance: bool = False  # mel, stft, adversarial and feature become shares of the gradient at the audio (EnCodec's balancer)

        def build(self, streams: dict | None = None) -> "Adversarial":
            """`streams` is what other stages must know; this one makes a stream and needs none."""
            return Adversarial(self)

    def __init__(self, config: "Adversarial.Config") -> None:
        super().__init__()
        self.config = config
        self.generator = config.generator.build()
        self.discriminators = nn.ModuleList(d.build() for d in config.discriminators) if config.begin >= 0 else None
        self.spectra = config.spectra.build()
        self.balancer = Balancer(("mel", "stft", "adversarial", "feature")) if config.balance else None
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        self._made: tuple[Tensor, Tensor] | None = None  # the generator's step hands its audio to the discriminators'

    def players(self) -> dict[str, list[nn.Parameter]]:
        players = {"generator": list(self.generator.parameters())}
        if self.discriminators is not None:
            players["discriminators"] = list(self.discriminators.parameters())
        return players

    @property
    def playing(self) -> bool:
        return self.discriminators is not None and int(self.updates) >= self.config.begin

    def forward(self, batch: dict, player: str = "generator") -> dict[str, Tensor]:
        return self.generator_loss(batch) if player == "generator" else self.discriminator_loss(batch)

    def generator_loss(self, batch: dict) -> dict[str, Tensor]:
        c = self.config
        made = self.generator.reconstruct(batch)
        gain = self.gain(made.real)
        self._made = (made.real * gain, made.fake.detach() * gain)
        losses = {}
        losses["mel"] = c.mel * self.spectra(made.real, made.fake)
        if c.stft:
            losses["stft"] = c.stft * multi_stft(made.real, made.fake)
        if self.playing:
            with torch.no_grad():
                real = self.judge(made.real * gain)
            fake = self.judge(made.fake * gain)
            losses["adversarial"] = c.adversarial * lsgan_g(fake) / len(fake)
            losses["feature"] = c.feature * feature_match(real, fake, relative=True)
        if self.training:
            self.updates += 1
        if self.balancer is not None:
            losses = self.balancer(losses, {name: getattr(c, name) for name in losses}, made.fake)
        return made.losses | losses

    def discriminator_loss(self, batch: dict) -> dict[str, Tensor]:
        if not self.playing:
            return {}
        real, fake = (self.judge(audio) for audio in self._made)
        return {"discriminator": lsgan_d(real, fake) / len(real)}

    def gain(self, real: Tensor) -> Tensor | float:
        """real [B,1,N] -> what it is multiplied with for the critics [B,1,1]; silence stays silent."""
        if not self.config.loudness:
            return 1.0
        return self.config.loudness / real.square().mean(-1, keepdim=True).sqrt().clamp(min=0.01)

    def judge(self, audio: Tensor) -> Judgement:
        return [answer for d in self.discriminators for answer in d(audio)]

    @torch.no_grad()
    def show(self, batch: dict) -> dict[str, tuple[Tensor, int]]:
        if isinstance(self.config.spectra, Plain.Config):
            return {}  # mels are no sounds
        made = self.generator.reconstruct(batch)
        rate = self.config.spectra.rate
        return {"real": (made.real[0, 0], rate), "made": (made.fake[0, 0], rate)}
