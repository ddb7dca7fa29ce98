"""How high each phone is said, as a few steps of a scale: the pitch of RALL-E's chain of thought (Xin et al., 2024).

N samples   T frames of 20 ms   L phones
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from slm.data.utterances import Utterance
from slm.errors import SlmError
from slm.nn.pitch import HIGHEST, LOWEST, pitch

TRACKED = "autocorrelation at 8 kHz, 160 samples a frame, tenths of Hz"  # what the cached numbers are


class Tracker:
    """Pitch in the place of codes, so that a corpus is tracked and kept as it is encoded and kept."""

    rate, hop = 8000, 160

    def encode(self, audio: Tensor) -> Tensor:
        """audio [B,1,N] at 8 kHz -> tenths of Hz [B,1,T] long, 0 where nothing is sung"""
        whole = F.pad(audio, (0, -audio.shape[-1] % self.hop))
        return (10 * pitch(whole, self.rate, self.hop)).round().long()[:, None]


class PitchBins:
    """Hz to ids: 0 where there is no pitch, else one of card-1 steps of a scale that is even in octaves."""

    @dataclass
    class Config:
        card: int = 32

        def build(self) -> "PitchBins":
            return PitchBins(self)

    def __init__(self, config: "PitchBins.Config") -> None:
        if config.card < 2:
            raise SlmError(f"PitchBins: card = {config.card} must be at least 2: one id for no pitch, and others for pitches")
        self.config, self.card, self.n_q = config, config.card, 1

    def encode(self, hertz: Tensor) -> Tensor:
        """Hz [...] -> ids [...] long; what is beyond the scale gets its first or last step."""
        steps = self.card - 1
        place = (hertz.clamp(LOWEST, HIGHEST) / LOWEST).log() / math.log(HIGHEST / LOWEST) * steps
        return torch.where(hertz > 0, 1 + place.long().clamp(max=steps - 1), 0)

    def decode(self, ids: Tensor) -> Tensor:
        """ids [...] -> the middle of each step in Hz [...], 0 for no pitch"""
        middle = LOWEST * (HIGHEST / LOWEST) ** ((ids - 0.5) / (self.card - 1))
        return torch.where(ids > 0, middle, 0.0)


def by_phone(hertz: Tensor, duration: Tensor) -> Tensor:
    """Hz [T] (a frame more or less at the end), duration [L] frames -> the mean of each phone's pitched frames, in octaves, as Hz [L]

    0 for a phone of which less than half has a pitch.
    """
    frames = int(duration.sum())
    hertz = F.pad(hertz[:frames], (0, max(0, frames - len(hertz))))
    phone = torch.repeat_interleave(torch.arange(len(duration)), duration)
    sung = (hertz > 0).double()
    count = torch.zeros(len(duration), dtype=torch.double).index_add(0, phone, sung)
    total = torch.zeros(len(duration), dtype=torch.double).index_add(0, phone, hertz.clamp(min=1).double().log())
    return torch.where(2 * count >= duration.clamp(min=1), (total / count.clamp(min=1)).exp(), 0.0).float()


@dataclass
class Melody:
    """Config: the pitch of each phone of aligned folders, tracked once and kept on disk."""

    folders: tuple[str, ...] = ("data/train", "data/synthetic")
    cache: str = "data/codes"

    def of(self, items: list[Utterance], bins: PitchBins) -> dict[str, Tensor]:
        """-> ids [L] by the id of the utterance. SlmError if one is in none of the folders."""
        found: dict[str, Tensor] = {}
        wanted = {item.id for item in items}
        for folder in self.folders:
            found |= {id: bins.encode(hertz) for id, hertz in self.read(Path(folder), wanted).items()}
        for item in items:
            if len(found.get(item.id, ())) != len(item.text):
                raise SlmError(f"the pitch of utterance {item.id} was not found in {', '.join(self.folders)}, or it is of other phones")
        return found

    def read(self, folder: Path, wanted: set[str]) -> dict[str, Tensor]:
        """Hz [L] of each utterance, by its id."""
        from slm.data import cuts as cut_files
        from slm.data.aligned import read_phones
        from slm.data.cache import codes_of

        phones = read_phones(folder)
        cuts = [cut for cut in cut_files.load(folder) if cut.id in wanted]
        tracks = codes_of(cuts, Tracker(), self.cache, TRACKED, "hertz")
        return {id: by_phone(tens[0] / 10, torch.tensor([frames for _, frames in phones[id]])) for id, tens in tracks.items()}


@dataclass
class MadeUpMelody:
    """Config: of made-up speech. Every phone but the pause is as high as its speaker, give or take a tenth."""

    def of(self, items: list[Utterance], bins: PitchBins) -> dict[str, Tensor]:
        draw = np.random.default_rng(0)
        hertz = ((item, (90 + 20 * int(item.speaker.split()[-1])) * (0.9 + 0.2 * draw.random(len(item.text)))) for item in items)
        return {item.id: bins.encode(torch.from_numpy(h).float() * (item.text > 0)) for item, h in hertz}


def tokenizer(tokenizers: dict[str, Any], name: str = "pitch") -> PitchBins:
    """The recipe's pitch bins. SlmError if it has none."""
    if name not in tokenizers:
        raise SlmError(f"the melody needs a tokenizer {name!r}, such as PitchBins; the recipe has {', '.join(tokenizers)}")
    return tokenizers[name]
