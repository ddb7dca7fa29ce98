"""K-means on stacked mel frames: the tokenizer that every learned one must beat at the same bits a second.

    audio [B,1,N] -> mel [B,M,T*S] -> S frames as one vector [B,M*S,T] -> the nearest centre [B,1,T]

Lloyd, 1982, "Least Squares Quantization in PCM".

B batch, N samples, M mel bands, S mel frames a code frame, T = ceil(N / (S*hop of the mel)).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from slm.errors import SlmError
from slm.nn.mel import LogMel
from slm_tokenizers import stored
from slm_tokenizers.melvq import MEL, Vocoder, spoken, whole_mel
from slm_tokenizers.quantize.residual import Codebooks
from slm_tokenizers.quantize.search import nearest


class KMeansMel(nn.Module):
    """Audio [B,1,N] at `rate` Hz <-> codes [B,1,T] long in 0..card-1. `fit` learns the centres; until then they are noise."""

    @dataclass
    class Config:
        mel: LogMel.Config = field(default_factory=lambda: LogMel.Config(**vars(MEL)))
        stack: int = 2  # S
        card: int = 1024

        def build(self) -> "KMeansMel":
            return KMeansMel(self)

    def __init__(self, config: "KMeansMel.Config") -> None:
        super().__init__()
        if config.stack < 1 or config.card < 1:
            raise SlmError(f"stack is {config.stack} and card {config.card} but both must be at least 1")
        self.config = config
        self.rate, self.hop, self.n_q, self.card = config.mel.rate, config.mel.hop * config.stack, 1, config.card
        self.hear = config.mel.build()
        self.codebooks = Codebooks(1, config.card, config.stack * config.mel.n_mels)

    def as_stored(self) -> "KMeansMel":
        return stored.rounded(self)

    def vectors(self, audio: Tensor) -> Tensor:
        """audio [B,1,N] -> [B,M*S,T]. SlmError on another shape, or no samples."""
        mel = whole_mel(self.hear, audio, self.hop)
        return mel.unflatten(-1, (-1, self.config.stack)).transpose(2, 3).flatten(1, 2)

    @torch.no_grad()
    def fit(self, audio: Tensor, steps: int = 30, seed: int = 0) -> list[float]:
        """Learns the centres from audio [B,1,N] -> the mean squared distance before each step. SlmError on fewer frames than codes."""
        vectors = self.vectors(audio).transpose(1, 2).flatten(0, 1)  # [B*T,M*S]
        centres, distances = kmeans(vectors, self.card, steps, seed)
        self.codebooks.embed[0] = centres
        return distances

    @torch.no_grad()
    def encode(self, audio: Tensor) -> Tensor:
        """audio [B,1,N] at `rate` Hz -> codes [B,1,T]"""
        return self.codebooks.encode(self.vectors(audio))

    @torch.no_grad()
    def mel(self, codes: Tensor) -> Tensor:
        """codes [B,1,T] -> log-mel [B,M,T*S]. SlmError on a code out of range."""
        vectors = self.codebooks.decode(codes)
        return vectors.unflatten(1, (-1, self.config.stack)).transpose(2, 3).flatten(2, 3)

    @torch.no_grad()
    def decode(self, codes: Tensor, samples: int | None = None, vocoder: Vocoder | None = None) -> Tensor:
        """codes [B,1,T] -> audio [B,1,T*hop], cut to `samples`: by a vocoder that hears this mel, or else Griffin-Lim."""
        return spoken(self.mel(codes), self.config.mel, vocoder)[..., :samples]


def kmeans(x: Tensor, card: int, steps: int, seed: int) -> tuple[Tensor, list[float]]:
    """Vectors [L,D] -> centres [card,D] and the mean squared distance before each step, which never rises.

    Starts from `card` vectors drawn without repetition; a centre that nothing is near to stays where it is.
    """
    if len(x) < card:
        raise SlmError(f"{card} centres need at least as many vectors to learn from, but there are {len(x)}")
    centres = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:card]].clone()
    distances = []
    for _ in range(steps):
        near = nearest(x[None], centres)[0]  # [L]
        distances.append(float((x - centres[near]).square().sum(1).mean()))
        counts = torch.zeros(card).index_add_(0, near, torch.ones(len(x)))
        sums = torch.zeros_like(centres).index_add_(0, near, x)
        used = counts > 0
        centres[used] = sums[used] / counts[used, None]
    return centres, distances
