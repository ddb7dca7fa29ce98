"""A source with a pitch for a generator to shape, as the voice is shaped by the mouth (neural source filter, Wang et al., 2019).

B batch · T frames · N = T * hop samples · F = n_fft / 2 + 1 bins · R = T * fine spectra · W width of the generator's features

A network that only sees frames cannot tell where in a frame a period begins: from the same numbers in every frame it makes the same
samples, which repeat as often as frames do, and no pitch but that one can be held. So the periods are made here, and it filters them.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm_vocoders.istft import Synthesis


def pulses(hertz: Tensor, rate: int, hop: int) -> Tensor:
    """Hz [B, T], 0 where there is no voice -> [B, 1, N]: all harmonics below rate / 2, equally loud, mean square 1; 0 where no voice is.

    The sum of K cosines is the Dirichlet kernel. A sample depends on the frames up to its own.
    """
    each = hertz.double().repeat_interleave(hop, -1)  # [B,N]
    half = math.pi * (each / rate).cumsum(-1)  # half the angle of the first harmonic
    count = (rate / 2 / each.clamp(min=1)).floor().clamp(min=1)
    bottom = 2 * half.sin()
    near = bottom.abs() < 1e-6
    total = torch.where(near, count, ((2 * count + 1) * half).sin() / bottom.masked_fill(near, 1.0) - 0.5)
    return (total * (2 / count).sqrt() * (each > 0)).float()[:, None]


class Filter(nn.Module):
    """Features [B, R, W] and a source [B, 1, N] -> audio [B, 1, N]: each bin of the source is made louder and moved in phase."""

    def __init__(self, dim: int, n_fft: int, hop: int):
        """hop: of the spectra."""
        super().__init__()
        self.project = nn.Linear(dim, n_fft + 2)
        self.synthesis = Synthesis(n_fft, hop)
        nn.init.zeros_(self.project.weight)
        nn.init.constant_(self.project.bias[: n_fft // 2 + 1], math.log(0.03))  # about as loud as speech
        nn.init.zeros_(self.project.bias[n_fft // 2 + 1 :])

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            log_magnitude, phase = self.project(x.float()).chunk(2, dim=-1)
            magnitude = log_magnitude.clamp(max=math.log(1e2)).exp()
            shape = torch.complex(magnitude * phase.cos(), magnitude * phase.sin())
            return self.synthesis(shape * self.spectra(source))

    def spectra(self, source: Tensor) -> Tensor:
        """[B, 1, N] -> complex [B, R, F], each about its own hop, as `Synthesis` lays them"""
        n_fft, hop = self.synthesis.n_fft, self.synthesis.hop
        side = (n_fft - hop) // 2
        return torch.fft.rfft(F.pad(source.squeeze(1), (side, side)).unfold(-1, n_fft, hop) * self.synthesis.window)
