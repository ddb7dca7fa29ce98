"""Crops of speech with the unit of each frame: the data of masked prediction (masked_units.py).

B rows, N samples, T frames.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from slm.data.sounds import Sounds
from slm.train.loop import Train
from slm_tokenizers.semantic.mfcc import Mfcc
from slm_tokenizers.semantic.units import Units


@dataclass
class Labelled:
    """Config: the crops of `sounds` with the codes of `units`, the folder of trained ones, or some whose clusters are still to be found.

    Then they are found on the first `batches` crops, the same each time.
    """

    sounds: Any = field(default_factory=Sounds)
    units: Units.Config | str = field(default_factory=lambda: Units.Config(Mfcc.Config()))
    batches: int = 200

    def build(self, tokenizers: dict[str, Any]) -> "LabelledCrops":
        from slm_tokenizers import load

        crops = self.sounds.build(tokenizers)
        if isinstance(self.units, str):
            return LabelledCrops(crops, load(self.units))
        units = self.units.build().eval()
        units.fit(crops, Train(steps=self.batches))
        return LabelledCrops(crops, units)


class LabelledCrops:
    """`at(step)` -> audio [B,1,N], units [B,T]; a function of (seed, step)."""

    def __init__(self, crops: Any, units: Units) -> None:
        self.crops, self.units = crops, units

    def at(self, step: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
        audio = self.crops.at(step, rank, world)["audio"]
        return {"audio": audio, "units": self.units.encode(audio)[:, 0]}
