"""Units: each frame of a layer as the number of the cluster it falls into.

Lakhotia et al., 2021, "On Generative Spoken Language Modeling from Raw Audio"; Hsu et al., 2021, "HuBERT".

B batch, N samples, T frames, D width of the layer, K units, M frames of a corpus.

Clusters mean nothing on other numbers than those they were found on. Hence units hold their source, and remember its
fingerprint, layer, width and rate; with another source in its place they refuse to speak.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from slm.errors import SlmError
from slm_tokenizers import load
from slm_tokenizers.semantic.features import rectangle

NONE = -1  # behind the end of a row


@dataclass
class Origin:
    """What clusters were found on: a model by its fingerprint, one of its layers, `dim` numbers `rate` times a second."""

    model: str
    layer: int
    dim: int
    rate: float

    def __str__(self) -> str:
        return f"layer {self.layer} of model {self.model} ({self.dim} numbers, {self.rate:g} a second)"


class Units(nn.Module):
    """audio [B,1,N] at `rate` Hz -> codes [B,1,T] long in 0..K-1, one each `hop` samples. There is no way back to audio.

    As a stage it is trained by one pass over the data, not by steps: see `fit`.
    """

    n_q = 1
    centroids: Tensor  # [K,D]

    @dataclass
    class Config:
        source: Any = None  # the config of an encoder or of Mfcc, or the folder of an encoder, ours or of transformers
        layer: int = 0
        card: int = 100  # K
        origin: Origin | None = None  # None: no clusters yet

        def build(self, streams: dict | None = None) -> "Units":
            """`streams` is what other stages must know; this one hears audio and needs none."""
            return Units(self)

    def __init__(self, config: "Units.Config") -> None:
        super().__init__()
        self.source = source_of(config.source)
        if not 0 <= config.layer <= self.source.depth:
            raise SlmError(f"layer is {config.layer} but the source of these units has layers 0 to {self.source.depth}")
        if config.card < 1:
            raise SlmError(f"card is {config.card} but must be at least 1")
        self.config = replace(config, source=self.source.config)
        self.rate, self.hop, self.card = self.source.rate, self.source.hop, config.card
        self.register_buffer("centroids", torch.zeros(config.card, self.source.dim))
        self._known: tuple[nn.Module, Origin] | None = None  # so that a source is hashed once

    @torch.no_grad()
    def encode(self, audio: Tensor | list[Tensor]) -> Tensor:
        """audio [B,1,N], or rows [1,N] of any lengths -> codes [B,1,T]; -1 behind the end of a row.

        SlmError on less than a frame, if no clusters were found yet, or if they were found on another source.
        """
        self.check()
        frames = self.source.layer(*rectangle(audio), self.config.layer)
        codes = nearest(frames.x, self.centroids)
        return codes.masked_fill(~frames.real, NONE)[:, None]

    def fit(self, data: Any, train: Any) -> list[dict[str, float]]:
        """Find the clusters of the frames in batches 0 to train.steps - 1; one entry: mean squared distance to the centroids.

        SlmError if there are fewer frames than units.
        """
        self.eval()
        audio = (rectangle(data.at(step)["audio"]) for step in range(train.steps))
        frames = torch.cat([self.source.layer(*rows, self.config.layer).rows.cpu() for rows in audio])
        self.centroids = cluster(frames, self.card, train.seed).to(self.centroids.device)
        self._known = None
        self.config.origin = self.origin()
        return [{"distance": float((frames - self.centroids[nearest(frames, self.centroids)]).square().mean())}]

    def write(self, folder: Path) -> None:
        """Source and clusters, in `folder`, which `slm_tokenizers.load` reads."""
        from slm_tokenizers.stored import save

        save(self, folder, exact=True)

    def origin(self) -> Origin:
        if self._known is None or self._known[0] is not self.source:
            self._known = (self.source, origin(self.source, self.config.layer))
        return self._known[1]

    def check(self) -> None:
        if self.config.origin is None:
            raise SlmError("these units have no clusters yet; fit them first")
        if self.config.origin != self.origin():
            raise SlmError(f"the clusters of these units were found on {self.config.origin}, but they are asked about {self.origin()}")


def source_of(described: Any) -> nn.Module:
    """A config or a folder -> what units are made of, in evaluation mode and never trained. SlmError if it is something else."""
    if not isinstance(described, str) and not hasattr(described, "build"):
        raise SlmError(f"source is {described!r} but must be the config or the folder of an encoder")
    source = load(described) if isinstance(described, str) else described.build()
    if not hasattr(source, "layer"):
        raise SlmError(f"{described} holds a {type(source).__name__}, whose layers cannot be heard; units need an encoder")
    return source.eval().requires_grad_(False)


def origin(source: nn.Module, layer: int) -> Origin:
    from slm.codes import fingerprint
    from slm.config import digest

    return Origin(f"{fingerprint(source)}{digest(source.config)}", layer, source.dim, source.rate / source.hop)


def cluster(frames: Tensor, card: int, seed: int = 0, starts: int = 5) -> Tensor:
    """frames [M,D] -> centroids [K,D], by k-means on parts of them at a time, from the best of so many `starts`.

    SlmError if M < K or a frame is not finite.
    """
    from sklearn.cluster import MiniBatchKMeans

    if len(frames) < card:
        raise SlmError(f"{len(frames)} frames cannot have {card} clusters; use more audio or fewer units")
    if not frames.isfinite().all():
        raise SlmError("frames hold NaN or infinite numbers, which have no cluster")
    found = MiniBatchKMeans(card, batch_size=10_000, n_init=starts, max_no_improvement=100, reassignment_ratio=0.0, random_state=seed)
    return torch.from_numpy(found.fit(frames.double().numpy()).cluster_centers_).float()


def nearest(x: Tensor, centroids: Tensor) -> Tensor:
    """x [...,D], centroids [K,D] -> index [...] of the one at the smallest distance, the first of equals.

    In float64: some numbers of a layer are a hundred times larger than the others, and their squares would hide these.
    """
    wide, entries = x.double(), centroids.double()
    return (entries.square().sum(1) - 2 * wide @ entries.T).argmin(-1)
