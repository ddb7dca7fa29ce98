"""Units without their repetitions, and how often each was said: a slow sound and a quick one become the same word.

T units, S of them after repetitions are taken out.
"""

import torch
from torch import Tensor

from slm.errors import SlmError


def collapse(units: Tensor) -> tuple[Tensor, Tensor]:
    """units [T] -> units [S], none like the one before it, and the length of each run [S]; both empty for no units."""
    if units.dim() != 1:
        raise SlmError(f"units have the shape {list(units.shape)} but one row [T] is needed")
    return torch.unique_consecutive(units, return_counts=True)


def expand(units: Tensor, runs: Tensor) -> Tensor:
    """What `collapse` was given. SlmError if a run is missing or not positive."""
    if units.shape != runs.shape or units.dim() != 1:
        raise SlmError(f"units and runs have the shapes {list(units.shape)} and {list(runs.shape)} but both must be one row [S]")
    if len(runs) and int(runs.min()) < 1:
        raise SlmError(f"a run has the length {int(runs.min())} but every unit is said at least once")
    return units.repeat_interleave(runs)
