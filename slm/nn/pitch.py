"""How high a voice is in each frame, by autocorrelation: a label for training, not a measurement.

B batch, N samples, T frames of `hop` samples, L lags.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

LOWEST, HIGHEST = 60.0, 400.0  # Hz
VOICED = 0.6  # of the energy repeats after one period
NEARLY = 0.9  # of the best lag's: the shortest such lag is the period, twice it is as good


@torch.no_grad()
def pitch(audio: Tensor, rate: int, hop: int) -> Tensor:
    """audio [B,1,N], N a multiple of hop -> Hz [B,T], 0 where nothing repeats between 60 and 400 times a second."""
    shortest, longest = int(rate / HIGHEST), int(rate / LOWEST) + 1
    window = 2 * longest
    missing = window + longest - hop
    x = F.pad(audio.float().squeeze(1), (missing // 2, missing - missing // 2)).unfold(-1, window + longest, hop)  # [B,T,·]
    ours = x[..., :window]
    spectrum = torch.fft.rfft(x, 2 * (window + longest)) * torch.fft.rfft(ours, 2 * (window + longest)).conj()
    alike = torch.fft.irfft(spectrum)[..., : longest + 1]  # [B,T,L]: sum of x[n] * x[n + lag] over the window
    energy = F.pad(x.square().cumsum(-1), (1, 0))
    moved = energy[..., window : window + longest + 1] - energy[..., : longest + 1]
    alike = alike / (moved * moved[..., :1] + 1e-12).sqrt().clamp(min=1e-4 * window)
    best = alike[..., shortest:].amax(-1, keepdim=True)
    middle = alike[..., 1:-1]
    peak = (middle >= alike[..., :-2]) & (middle >= alike[..., 2:]) & (middle >= NEARLY * best)
    peak[..., : shortest - 1] = False
    lag = peak.float().argmax(-1) + 1
    return torch.where(peak.any(-1) & (best[..., 0] > VOICED), rate / lag, 0.0)


def tune(hertz: Tensor) -> Tensor:
    """Hz [B,T] -> natural log, less its mean over the row's voiced frames, 0 elsewhere: the melody without the voice that sings it."""
    voiced = hertz > 0
    log = hertz.clamp(min=1.0).log() * voiced
    mean = log.sum(-1, keepdim=True) / voiced.sum(-1, keepdim=True).clamp(min=1)
    return (log - mean) * voiced
