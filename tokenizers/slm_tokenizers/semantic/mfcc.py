"""Mel-frequency cepstra with their first and second differences: what HuBERT's first units are clusters of.

Hsu et al., 2021, "HuBERT", section 4.2: 13 cepstra of Kaldi each 10 ms, and their differences, 39 numbers.

B batch, N samples, L cepstra of 10 ms, T frames: every second of them, so that frame t stands for the samples that frame t
of a 50 Hz encoder stands for, and there are as many.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slm.errors import SlmError
from slm_tokenizers.semantic.features import Frames, check

WINDOW, HOP = 400, 320  # samples at 16 kHz


class Mfcc(nn.Module):
    """audio [B,1,N] at 16 kHz -> [B,T,39], T = (N - 400) // 320 + 1. It has one layer, number 0, and nothing to learn."""

    rate, hop, field, dim, depth = 16_000, HOP, WINDOW, 39, 0

    @dataclass
    class Config:
        def build(self) -> "Mfcc":
            return Mfcc(self)

    def __init__(self, config: Config):
        super().__init__()
        self.config = config

    @torch.no_grad()
    def layer(self, audio: Tensor, lengths: Tensor, index: int = 0) -> Frames:
        """audio [B,1,N], lengths [B] -> [B,T,39]. SlmError for another layer or less than one frame."""
        if index != 0:
            raise SlmError(f"layer {index} is asked for but MFCC have layer 0 only")
        check(audio, lengths, WINDOW)
        rows = [cepstra(row[:, :n]) for row, n in zip(audio, lengths.tolist())]
        return Frames(nn.utils.rnn.pad_sequence(rows, batch_first=True), (lengths - WINDOW) // HOP + 1)


def cepstra(audio: Tensor) -> Tensor:
    """audio [1,N] -> [T,39]"""
    from torchaudio.compliance.kaldi import mfcc
    from torchaudio.functional import compute_deltas

    with torch.autocast(audio.device.type, enabled=False):
        first = mfcc(audio.float(), sample_frequency=16_000.0, use_energy=False).T  # [13,L]
        second = compute_deltas(first)
        return torch.cat([first, second, compute_deltas(second)]).T[::2]
