"""K-means on stacked mel frames: the tokenizer that every learned one must beat at the same bits a second.

    audio [B,1,N] -> mel [B,M,T*S] -> S frames as one vector [B,M*S,T] -> the nearest centre of each level [B,Q,T]

Each level clusters what the levels before it left over, so that a prefix of the levels is the same tokenizer at fewer bits.
Lloyd, 1982, "Least Squares Quantization in PCM"; in stages as Juang and Gray, 1982, "Multiple Stage Vector Quantization for Speech Coding".

B batch, N samples, M mel bands, S mel frames a code frame, Q levels, T = ceil(N / (S*hop of the mel)), L vectors to learn from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slm.errors import SlmError
from slm.nn.mel import LogMel
from slm_tokenizers import stored
from slm_tokenizers.melvq import MEL, Vocoder, spoken, whole_mel
from slm_tokenizers.quantize.residual import Codebooks
from slm_tokenizers.semantic.units import cluster


class KMeansMel(nn.Module):
    """Audio [B,1,N] at `rate` Hz <-> codes [B,Q,T] long in 0..card-1. `fit` learns the centres; until then they are noise.

    As a stage it is trained by one pass over the data, not by steps: see `fit`.
    """

    @dataclass
    class Config:
        mel: LogMel.Config = field(default_factory=lambda: LogMel.Config(**vars(MEL)))
        stack: int = 2  # S
        n_q: int = 1
        card: int = 1024

        def build(self, streams: dict | None = None) -> "KMeansMel":
            """`streams` is what other stages must know; this one hears audio and needs none."""
            return KMeansMel(self)

    def __init__(self, config: "KMeansMel.Config") -> None:
        super().__init__()
        for name in ("stack", "n_q", "card"):
            if getattr(config, name) < 1:
                raise SlmError(f"{name} is {getattr(config, name)} but must be at least 1")
        self.config = config
        self.rate, self.hop = config.mel.rate, config.mel.hop * config.stack
        self.n_q, self.card = config.n_q, config.card
        self.hear = config.mel.build()
        self.codebooks = Codebooks(config.n_q, config.card, config.stack * config.mel.n_mels)
        self.left: list[dict[str, float]] = []  # over, by the levels that were fitted

    def as_stored(self) -> "KMeansMel":
        return stored.rounded(self)

    def vectors(self, audio: Tensor) -> Tensor:
        """audio [B,1,N] -> [B,M*S,T]. SlmError on another shape, or no samples."""
        mel = whole_mel(self.hear, audio, self.hop)
        return mel.unflatten(-1, (-1, self.config.stack)).transpose(2, 3).flatten(1, 2)

    @torch.no_grad()
    def fit(self, data: Any, train: Any) -> list[dict[str, float]]:
        """Find each level's centres in batches 0 to train.steps - 1; an entry a level: the mean squared distance it leaves.

        SlmError if there are fewer frames than centres.
        """
        from rich.console import Console
        from rich.progress import track

        vectors = [self.vectors(data.at(step)["audio"]).transpose(1, 2).flatten(0, 1) for step in range(train.steps)]
        rest = torch.cat(vectors)  # [L,M*S]
        self.left = []
        for level in track(range(self.n_q), "Fitting levels", console=Console(stderr=True), transient=True):
            rest = rest - self.fit_level(level, rest, train.seed)
            self.left.append({"distance": float(rest.square().mean())})
        return self.left

    def fit_level(self, level: int, rest: Tensor, seed: int) -> Tensor:
        """rest [L,M*S], what the levels before left over -> what this level says of it, of the same shape."""
        centres = cluster(rest, self.card, seed, starts=1)  # its other starts would take minutes a level
        self.codebooks.embed[level] = centres
        alone = Codebooks(1, self.card, self.codebooks.dim).to(rest.device)
        alone.embed.copy_(centres)
        rows = rest.T[None]  # [1,M*S,L]
        return alone.decode(alone.encode(rows))[0].T

    def write(self, folder: Path) -> None:
        """The codec, in `folder`, which `slm_tokenizers.load` reads, and for TensorBoard what each level left over, in folder/log."""
        from torch.utils.tensorboard import SummaryWriter

        stored.save(self, folder)
        with SummaryWriter(str(folder / "log")) as curves:
            for level, distances in enumerate(self.left, 1):
                for name, value in distances.items():
                    curves.add_scalar(name, value, level)

    @torch.no_grad()
    def encode(self, audio: Tensor, n_q: int | None = None) -> Tensor:
        """audio [B,1,N] at `rate` Hz -> codes [B,Q,T]"""
        return self.codebooks.encode(self.vectors(audio), n_q)

    @torch.no_grad()
    def mel(self, codes: Tensor) -> Tensor:
        """codes [B,Q,T], any prefix of the levels -> log-mel [B,M,T*S]. SlmError on a code or level out of range."""
        vectors = self.codebooks.decode(codes)
        return vectors.unflatten(1, (-1, self.config.stack)).transpose(2, 3).flatten(2, 3)

    @torch.no_grad()
    def decode(self, codes: Tensor, samples: int | None = None, vocoder: Vocoder | None = None) -> Tensor:
        """codes [B,Q,T] -> audio [B,1,T*hop], cut to `samples`: by a vocoder that hears this mel, or else Griffin-Lim."""
        return spoken(self.mel(codes), self.config.mel, vocoder)[..., :samples]
