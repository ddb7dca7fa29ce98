"""Fixed-length pieces of audio for codecs and vocoders: the batch of step k is a pure function of (seed, k), as in batches.py.

    B rows   N samples a row

A row starts at a random place of a clip drawn in proportion to its duration, so that every second of the corpus is as likely as any other.
A clip shorter than the row is followed by others until the row is full. Decoded clips stay in memory as 16-bit samples at the target rate.
"""

import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from slm.data import audio
from slm.data import cuts as cut_files
from slm.data.draw import draw, fraction
from slm.errors import SlmError

if TYPE_CHECKING:
    from lhotse.cut import Cut

PATIENCE = 100  # unreadable clips in a row before giving up


class Crops:
    """Random crops of `seconds` at `rate` Hz, `batch` rows for each process. At most `keep` bytes of decoded audio stay in memory.

    A file that cannot be read is left out with one warning. SlmError if there are no cuts, or hardly any can be read.
    """

    def __init__(self, cuts: "Iterable[Cut]", rate: int, seconds: float, batch: int, seed: int, keep: int = 8 << 30):
        self.cuts = list(cuts)
        if not self.cuts:
            raise SlmError("There are no clips to crop.")
        if round(seconds * rate) < 1 or batch < 1:
            raise SlmError(f"A batch of {batch} crops of {seconds} s at {rate} Hz holds no samples.")
        self.rate, self.samples, self.batch, self.seed = rate, round(seconds * rate), batch, seed
        self.ends = np.cumsum([cut.duration for cut in self.cuts])  # seconds
        self._keep = keep
        self._kept: dict[int, np.ndarray] = {}  # index of a cut -> int16 [n]
        self._bad: set[int] = set()

    def at(self, step: int, rank: int = 0, world: int = 1) -> Tensor:
        """audio [B,1,N] float32 of one step and process; the rows of all ranks together are those of one large batch."""
        if not 0 <= rank < world:
            raise SlmError(f"There is no rank {rank} of {world}.")
        rows = [self._row(step, rank * self.batch + row) for row in range(self.batch)]
        return torch.from_numpy(np.stack(rows)[:, None]).float() / audio.FULL

    def _row(self, step: int, row: int) -> np.ndarray:
        pieces, missing, failures, turn = [], self.samples, 0, 0
        while missing:
            which, where = draw(2, self.seed, step, row, turn)
            turn += 1
            clip = self._clip(min(int(np.searchsorted(self.ends, fraction(which) * self.ends[-1], side="right")), len(self.cuts) - 1))
            if clip is None:
                failures += 1
                if failures == PATIENCE:
                    raise SlmError(f"{len(self._bad)} of {len(self.cuts)} clips cannot be read, the rest are too few to go on.")
                continue
            start = int(fraction(where) * (max(len(clip) - missing, 0) + 1))
            pieces.append(clip[start : start + missing])
            missing -= len(pieces[-1])
        return np.concatenate(pieces)

    def _clip(self, index: int) -> np.ndarray | None:
        if index in self._kept or index in self._bad:
            return self._kept.get(index)
        try:
            samples, rate = cut_files.audio_of(self.cuts[index])  # [1,n]
            samples = audio.resample(samples, rate, self.rate)
        except SlmError as error:
            self._bad.add(index)
            warnings.warn(f"Left out of training: {error}", stacklevel=2)
            return None
        clip = audio.narrow(samples[0])
        if clip.nbytes <= self._keep:
            self._keep -= clip.nbytes
            self._kept[index] = clip
        return clip
