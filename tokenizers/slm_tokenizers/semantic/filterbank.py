"""Kaldi's log-mel filterbank, two frames to a vector: what w2v-BERT 2.0 hears.

The numbers of transformers' SeamlessM4TFeatureExtractor: 16-bit scale, windows of 25 ms each 10 ms, pre-emphasis, Povey
window, 80 triangles on the mel scale, each band of a recording brought to mean 0 and variance 1.

B batch, N samples, M mel bands, L frames of 10 ms, T = L // 2 vectors of width 2M.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.errors import SlmError
from slm_tokenizers.semantic.features import Frames, check, inside

WINDOW, HOP, N_FFT = 400, 160, 512  # samples at 16 kHz
LOWEST = 20.0  # Hz
FLOOR = 2.0**-23  # the smallest step of a float32 near 1, as Kaldi has it
STACK = 2


class Filterbank(nn.Module):
    """audio [B,1,N] at 16 kHz -> [B,T,2M]"""

    rate, hop, field = 16_000, HOP * STACK, WINDOW + HOP * (STACK - 1)

    def __init__(self, mels: int = 80):
        super().__init__()
        self.mels, self.dim = mels, STACK * mels
        # float64: the quietest bands are small differences of large numbers, and the logarithm shows it
        povey = torch.hann_window(WINDOW, periodic=False, dtype=torch.float64) ** 0.85
        self.register_buffer("window", povey, persistent=False)
        self.register_buffer("bank", triangles(mels, self.rate), persistent=False)

    @torch.no_grad()
    def forward(self, audio: Tensor, lengths: Tensor) -> Frames:
        """audio [B,1,N], lengths [B] in samples -> [B,T,2M]. SlmError if a row is too short for one vector."""
        check(audio, lengths, self.field)
        with torch.autocast(audio.device.type, enabled=False):
            count = (lengths - WINDOW) // HOP + 1
            mel = levelled_bands(self.log_mel(audio), count)
        whole = mel.shape[1] // STACK * STACK
        return Frames(mel[:, :whole].unflatten(1, (-1, STACK)).flatten(-2).float(), count // STACK)

    def log_mel(self, audio: Tensor) -> Tensor:
        """audio [B,1,N] -> [B,L,M] in float64"""
        x = audio.double().squeeze(1).unfold(-1, WINDOW, HOP) * 2**15  # [B,L,window]
        x = x - x.mean(-1, keepdim=True)
        x = x - 0.97 * torch.cat([x[..., :1], x[..., :-1]], -1)
        power = torch.fft.rfft(F.pad(x * self.window, (0, N_FFT - WINDOW))).abs().square()
        return (power @ self.bank).clamp(min=FLOOR).log()


def levelled_bands(mel: Tensor, count: Tensor) -> Tensor:
    """mel [B,L,M], each band brought to mean 0 and variance 1 over the first `count` [B] frames of its row."""
    real = inside(mel.shape[1], count)[..., None]
    frames = count[:, None, None]
    centred = (mel - (mel * real).sum(1, keepdim=True) / frames) * real
    return centred / (centred.square().sum(1, keepdim=True) / (frames - 1) + 1e-7).sqrt()


def triangles(mels: int, rate: int) -> Tensor:
    """[n_fft/2+1, M], equally wide and equally high on Kaldi's mel scale."""
    if mels < 1:
        raise SlmError(f"mels is {mels} but must be at least 1")

    def mel(hz: Tensor) -> Tensor:
        return 1127.0 * (1.0 + hz / 700.0).log()

    bins = mel(torch.arange(N_FFT // 2 + 1, dtype=torch.float64) * rate / N_FFT)[:, None]
    low, high = 1127.0 * math.log1p(LOWEST / 700.0), 1127.0 * math.log1p(rate / 2 / 700.0)
    edges = torch.linspace(low, high, mels + 2, dtype=torch.float64)
    rise = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return torch.minimum(rise, fall).clamp(min=0)
