"""The inverse-STFT head of Vocos (Siuzdak, 2023): frames of features to audio without any upsampling layers.

B batch · T frames · D width · F = n_fft / 2 + 1 bins
Framing is "same", that of LogMel with center=False: frame t is centred on samples t * hop .. (t + 1) * hop, so T frames are
exactly T * hop samples and frames may be appended without moving the earlier ones.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slm.errors import SlmError


class ISTFTHead(nn.Module):
    """Features [B, T, D] -> audio [B, 1, T * hop]: one linear layer says log magnitude and phase of every bin."""

    def __init__(self, dim: int, n_fft: int, hop: int):
        super().__init__()
        self.project = nn.Linear(dim, n_fft + 2)
        self.synthesis = Synthesis(n_fft, hop)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            log_magnitude, phase = self.project(x.float()).chunk(2, dim=-1)
            # at most 100, clipped before exp: clipped after it, an overflow would make the gradient 0 * inf
            magnitude = log_magnitude.clamp(max=math.log(1e2)).exp()
            return self.synthesis(torch.complex(magnitude * phase.cos(), magnitude * phase.sin()))


class Synthesis(nn.Module):
    """Complex spectrum [B, T, F] -> audio [B, 1, T * hop]: windowed overlap-add, divided by what the windows add up to."""

    def __init__(self, n_fft: int, hop: int):
        super().__init__()
        if not 0 < hop <= n_fft // 2 or (n_fft - hop) % 2:
            raise SlmError(f"The inverse STFT's hop ({hop}) must be at most half of n_fft ({n_fft}), their difference even.")
        self.n_fft, self.hop = n_fft, hop
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)

    def forward(self, spectrum: Tensor) -> Tensor:
        frames = torch.fft.irfft(spectrum, self.n_fft, dim=-1) * self.window
        weight = self.overlap_add(self.window.square().expand(1, spectrum.shape[1], -1))
        pad, length = (self.n_fft - self.hop) // 2, spectrum.shape[1] * self.hop
        inner = slice(pad, pad + length)
        return (self.overlap_add(frames)[:, inner] / weight[:, inner])[:, None]

    def overlap_add(self, frames: Tensor) -> Tensor:
        """[B, T, n_fft] -> [B, at least (T - 1) * hop + n_fft]: slices of one hop, each slice of all frames added at once."""
        parts = F.pad(frames, (0, -self.n_fft % self.hop)).unflatten(-1, (-1, self.hop))  # [B, T, R, hop]
        batch, count, overlap, hop = parts.shape
        total = parts.new_zeros(batch, count + overlap - 1, hop)
        for r in range(overlap):
            total[:, r : r + count] += parts[:, :, r]
        return total.flatten(1)
