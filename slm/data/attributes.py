"""How a recording sounds, measured: how fast, how high, how lively and how clean, and in which third of a corpus that lies.

    B rows   N samples   T frames of 20 ms   A attributes   K bins   n recordings

The labels of Lyth & King (2024), who have six: `rate` in phones a second, pauses left out; `pitch` in Hz, the mean in octaves of
the frames that have one; `melody`, its standard deviation in octaves; `noise`, how far the loud frames are above the quiet ones below
4 kHz, in dB and negative, so that more is more noise. The last is an estimate: a recording without any pause looks noisy. Its
reverberation (C50) and the speaker's accent are not measured at all.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from slm.data import audio
from slm.data.replacing import write_json
from slm.errors import SlmError
from slm.nn.pitch import pitch

NAMES = ("rate", "pitch", "melody", "noise")
RATE, HOP = 8000, 160
FLOOR = -70.0  # dB below full scale: less is silence
LOUD, QUIET = 0.95, 0.05  # quantiles of the frames' energy
SPEECH = 0.35  # of the way from quiet to loud …
PAUSE = 8  # … and a pause is at least so many frames below that; shorter ones are closures of stops


@torch.no_grad()
def measured(sound: Tensor, rate: int, phones: int) -> Tensor:
    """sound [1,N] at `rate` Hz that says so many phones besides pauses -> [A]; a rate, pitch and melody of 0 where there is none"""
    if not sound.shape[-1]:
        return torch.zeros(len(NAMES))
    x = audio.resample(sound.float(), rate, RATE)
    x = F.pad(x, (0, -x.shape[-1] % HOP))
    loudness = decibels(x)
    hertz = pitch(x[None], RATE, HOP)[0]
    octaves = hertz[hertz > 0].double().log2()
    seconds = float(speaking(loudness).sum()) * HOP / RATE
    high = 2.0 ** float(octaves.mean()) if len(octaves) else 0.0
    spread = float(octaves.std(unbiased=False)) if len(octaves) else 0.0
    above = float(loudness.quantile(LOUD) - loudness.quantile(QUIET))
    return torch.tensor([phones / seconds if seconds else 0.0, high, spread, -above])


def decibels(x: Tensor) -> Tensor:
    """x [1,N], N a multiple of the hop -> energy of each frame [T], dB of full scale"""
    return (10 * x.view(-1, HOP).square().mean(1).clamp(min=1e-12).log10()).clamp(min=FLOOR)


def speaking(loudness: Tensor) -> Tensor:
    """dB [T] -> whether each frame belongs to speech rather than to a pause [T]; all do where nothing is louder than the rest"""
    quiet, loud = loudness.quantile(QUIET), loudness.quantile(LOUD)
    said = loudness >= quiet + SPEECH * (loud - quiet)
    if loud <= FLOOR:
        return torch.zeros_like(said)
    edges = (F.pad(said.int(), (1, 1), value=1).diff() != 0).nonzero()[:, 0].tolist()  # runs of quiet frames: in, out, in, out, …
    for start, stop in zip(edges[::2], edges[1::2]):
        if stop - start < PAUSE:
            said[start:stop] = True
    return said


@dataclass
class Bins:
    """edges [K-1] of each attribute: a value lies in the bin of as many edges as it is not below."""

    edges: dict[str, list[float]]

    @property
    def count(self) -> int:
        return len(self.edges[NAMES[0]]) + 1

    def of(self, values: Tensor) -> Tensor:
        """values [n,A] -> bins [n,A] in 0..K-1"""
        edges = (torch.tensor(self.edges[name], dtype=torch.double) for name in NAMES)
        return torch.stack([torch.bucketize(values[:, a].double(), own, right=True) for a, own in enumerate(edges)], 1)


def fitted(values: Tensor, count: int = 3) -> Bins:
    """The bins that hold equal shares of values [n,A]. SlmError for fewer than two bins."""
    if count < 2:
        raise SlmError(f"bins = {count} must be at least 2")
    inner = np.arange(1, count) / count
    return Bins({name: np.quantile(values[:, a].double().numpy(), inner).tolist() for a, name in enumerate(NAMES)})


def kept(path: str | Path | None, values: Tensor, count: int = 3) -> Bins:
    """The bins at `path`; where there are none yet they are fitted to values [n,A] and stay, for all that is asked of a model later."""
    if path is None or not Path(path).exists():
        bins = fitted(values, count)
        if path is not None:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            write_json(path, bins.edges)
        return bins
    bins = read(path)
    if bins.count != count:
        raise SlmError(f"{path} has {bins.count} bins an attribute, not {count}; remove it, or keep the others elsewhere")
    return bins


def read(path: str | Path) -> Bins:
    """SlmError if there are no bins at `path`, or it is damaged."""
    try:
        edges = json.loads(Path(path).read_text())
        found = {name: [float(edge) for edge in edges[name]] for name in NAMES}
    except FileNotFoundError:
        raise SlmError(f"there are no bins {path}; training with descriptions makes them") from None
    except (ValueError, KeyError, TypeError):
        raise SlmError(f"{path} holds no bins of {', '.join(NAMES)}, or it is damaged") from None
    if len({len(edges) for edges in found.values()}) != 1 or any(e != sorted(e) for e in found.values()):
        raise SlmError(f"{path} holds no bins of {', '.join(NAMES)}, or it is damaged")
    return Bins(found)


def of_codes(codec: Any, codes: Tensor, phones: int) -> Tensor:
    """codes [Q,T], all levels or the first ones -> [A] of what they sound like, for codes are what a model can say"""
    if not codes.shape[1]:
        return torch.zeros(len(NAMES))
    with torch.inference_mode():
        return measured(codec.decode(codes[None])[0], codec.rate, phones)
