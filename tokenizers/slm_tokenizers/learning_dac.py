"""DAC while it learns: factorised codebooks pulled by gradient, some rows with the first levels alone.

Kumar et al., 2023, "High-Fidelity Audio Compression with Improved RVQGAN". As published, every convolution learns its weight's
length and direction apart (weight norm) and starts without bias; what is written has plain weights. Not as published: outside its
residual units the encoder starts by keeping the strength of the audio. As torch initialises them the layers weaken it, latents come
to rest at a constant, all frames get one code and commitment holds them there (see also factorized.py).

B batch, N samples, D width of a latent, T frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from slm_tokenizers import stored
from slm_tokenizers.dac import DAC
from slm_tokenizers.quantize.learn import heard
from slm_tokenizers.quantize.learn_factorised import pull
from slm_vocoders.learning import Reconstruction


class LearningDAC(nn.Module):
    """Batch: audio [B,1,N]."""

    @dataclass
    class Config:
        """Weights as in the paper; with `dropout` every second row hears a random number of levels, at least one."""

        codec: DAC.Config = field(default_factory=DAC.Config)
        commit: float = 0.25
        codebook: float = 1.0
        dropout: bool = True

        def build(self) -> "LearningDAC":
            return LearningDAC(self)

    def __init__(self, config: "LearningDAC.Config") -> None:
        super().__init__()
        self.config = config
        self.codec = config.codec.build()
        for name, conv in convolutions(self.codec):
            nn.init.zeros_(conv.bias)
            if not name.startswith("decoder") and "res_unit" not in name:
                conv.weight.data.mul_(math.sqrt(3))  # torch draws weights whose variance is a third of 1 / fan-in
            weight_norm(conv)

    def reconstruct(self, batch: dict) -> Reconstruction:
        """Real audio ends where the decoder does: with odd ratios a few samples early."""
        audio = batch["audio"]
        latent = self.codec.latent(audio)
        with torch.autocast(audio.device.type, enabled=False):
            keep = heard(len(audio), self.codec.n_q, self.config.dropout and self.training, audio.device)
            q = pull(self.codec.quantizer, latent.float(), keep)
        fake = self.codec.decoder(q.latent).float()[..., : audio.shape[-1]]
        losses = {"commit": self.config.commit * q.commitment, "codebook": self.config.codebook * q.codebook}
        return Reconstruction(audio[..., : fake.shape[-1]], fake, losses)

    @torch.no_grad()
    def finished(self) -> DAC:
        """The codec alone, as it will be stored."""
        codec = self.config.codec.build()
        state = {name: value for name, value in self.codec.state_dict().items() if "parametrizations" not in name}
        codec.load_state_dict(state | {f"{name}.weight": conv.weight for name, conv in convolutions(self.codec)})
        return stored.rounded(codec).eval()

    def write(self, out: Path) -> None:
        """OUT/codec, which `slm_tokenizers.load` reads."""
        stored.save(self.finished(), out / "codec")


def convolutions(codec: DAC) -> list[tuple[str, nn.Module]]:
    """Each with its name."""
    return [(name, module) for name, module in codec.named_modules() if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d))]
