"""One id a row from logits, and whether a row still makes progress.

B rows, V vocabulary, H past ids. Order: legal ids -> repetition penalty (CTRL, Keskar et al., 2019) -> temperature -> top-k ->
top-p (Holtzman et al., 2020) -> one uniform number from the row's own generator, looked up in the row's cumulated probabilities.
So what a row says depends on its logits and its seed only, not on its batch mates, padding or device of the generator.
Repetition-aware (VALL-E 2, Chen et al., 2024): an id said too often of late is drawn again, with another such number, from all ids.

Why generation stops (every loop that says something reports one):
    end      the model said <eos>, or all frames that durations ask for are told
    length   the cap derived from the text was reached
    loop     `looping` found the last ids going round
    silence  only silence was told for longer than a pause may last
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from slm.errors import SlmError

StopReason = Literal["end", "length", "loop", "silence"]


@dataclass
class Sampling:
    """How to draw.

    temperature        divides the logits; 0 takes the likeliest id
    top_k              keeps the k likeliest ids; 0 keeps all
    top_p              keeps the fewest likeliest ids whose probabilities sum to at least this; 1 keeps all
    repetition         divides positive and multiplies negative logits of ids in the history; 1 is off
    repetition_window  how many of the last ids of the history count; 0 counts all
    again              draws once more, without top-k and top-p, if the id makes up more than this share of the last again_window; 1 is off
    again_window       how many of the last ids of the history that share is taken of; a shorter history counts as if filled with others
    mean               takes no draw but the mean of the ids, weighted with what the above leaves of their probabilities, rounded: for
                       streams whose ids are numbers, such as durations; a temperature of 1 and a top_p of 1 give the model's own mean
    """

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 0.95
    repetition: float = 1.0
    repetition_window: int = 0
    mean: bool = False
    again: float = 1.0
    again_window: int = 10

    @property
    def remembers(self) -> bool:
        """Whether what was said before has any effect."""
        return self.repetition != 1 or self.again < 1

    def __post_init__(self) -> None:
        _require(0 <= self.temperature < math.inf, "temperature", self.temperature, "a finite number of at least 0")
        _require(isinstance(self.top_k, int) and self.top_k >= 0, "top_k", self.top_k, "a whole number of at least 0")
        _require(0 < self.top_p <= 1, "top_p", self.top_p, "above 0 and at most 1")
        _require(0 < self.repetition < math.inf, "repetition", self.repetition, "a finite number above 0")
        window = self.repetition_window
        _require(isinstance(window, int) and window >= 0, "repetition_window", window, "a whole number of at least 0")
        _require(0 <= self.again <= 1, "again", self.again, "at least 0 and at most 1")
        window = self.again_window
        _require(isinstance(window, int) and window >= 1, "again_window", window, "a whole number of at least 1")
        _require(not (self.mean and self.temperature == 0), "temperature", self.temperature, "above 0 where mean is true")


def settings(drawn: Sampling | dict[str, Sampling]) -> dict[str, Any]:
    """How a model draws, all alike or by part, for reports."""
    return {name: asdict(each) for name, each in drawn.items()} if isinstance(drawn, dict) else asdict(drawn)


def sample(
    logits: Tensor,
    sampling: Sampling,
    generators: list[torch.Generator],
    legal: Tensor | None = None,
    history: Tensor | None = None,
) -> Tensor:
    """logits [B, V], one generator a row, legal bool [V] or [B, V], history [B, H] of ids (negative: padding) -> ids [B].

    Temperature 0 and a mean leave the generators as they are; otherwise each gives one number, or two if it draws again.
    Raises SlmError if a row has no legal id with a finite logit, a logit that is not a number, or no generator.
    """
    logits = logits.double()
    if legal is not None:
        logits = logits.masked_fill(~legal, -math.inf)
    if not logits.amax(-1).isfinite().all():
        row = int((~logits.amax(-1).isfinite()).nonzero()[0])
        raise SlmError(f"row {row} of the logits allows no draw: no legal id is finite, or one is infinite or not a number")
    if history is not None and sampling.repetition != 1:
        logits = _penalise(logits, history, sampling)
    logits, ids = logits.sort(dim=-1, descending=True, stable=True)  # ties go to the lower id
    if sampling.temperature == 0:
        return ids[:, 0]
    warm = (logits - logits[:, :1]) / sampling.temperature
    kept = _keep(warm, sampling)
    if sampling.mean:
        return ((kept * ids).sum(-1) / kept.sum(-1)).round().long()
    if len(generators) != len(logits):
        raise SlmError(f"{len(generators)} generators were given for {len(logits)} rows; each row needs its own")
    drawn = _draw(kept, ids, generators)
    if history is not None and sampling.again < 1:
        rows = (_share(drawn, history, sampling.again_window) > sampling.again).nonzero()[:, 0].tolist()
        if rows:
            drawn[rows] = _draw(warm[rows].softmax(-1), ids[rows], [generators[row] for row in rows])
    return drawn


def guided(logits: Tensor, without: Tensor, scale: float) -> Tensor:
    """Logits of what was heard with a condition and without it, one shape -> the first pushed away from the second; 1 leaves them.

    Classifier-free guidance (Ho & Salimans, 2022): the condition's effect on each logit, `scale` times as strong.
    """
    return without + scale * (logits - without)


def looping(ids: Tensor | list[int], ngram: int = 8, times: int = 6, hold: int = 50) -> bool:
    """Whether ids [S] (or steps [S, W]) end in one id held `hold` times, or in an n-gram, 2 <= n <= ngram, said `times` times in a row.

    An n-gram of equal ids does not count as one: a long vowel or a pause repeats an id without being a loop.
    """
    ids = torch.as_tensor(ids)
    if _periodic(ids, 1, hold):
        return True
    return any(_periodic(ids, n, times) and not _periodic(ids, 1, n * times) for n in range(2, ngram + 1))


def _draw(chances: Tensor, ids: Tensor, generators: list[torch.Generator]) -> Tensor:
    """chances [B, V] of ids [B, V] in any order, not normalised -> one id a row [B]"""
    cumulated = chances.cumsum(-1)
    uniform = torch.stack([torch.rand((), generator=g, device=g.device, dtype=torch.double).to(chances.device) for g in generators])
    total = cumulated[:, -1]
    threshold = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))  # rounding must not pass the last id
    chosen = torch.searchsorted(cumulated, threshold[:, None], right=True)
    return ids.gather(-1, chosen)[:, 0]


def _share(drawn: Tensor, history: Tensor, window: int) -> Tensor:
    """Share [B] of the last `window` real ids of the history [B, H] that are the drawn one [B]."""
    return ((history == drawn[:, None]) & _last(history, window)).sum(-1) / window


def _last(history: Tensor, window: int) -> Tensor:
    """Which ids [B, H] are among the row's last `window` real ones, whatever padding surrounds them."""
    real = history >= 0
    return real & (real.flip(-1).cumsum(-1).flip(-1) <= window)


def _periodic(ids: Tensor, n: int, times: int) -> bool:
    if len(ids) < n * times:
        return False
    tail = ids[len(ids) - n * times :]
    return bool((tail[n:] == tail[:-n]).all())


def _penalise(logits: Tensor, history: Tensor, sampling: Sampling) -> Tensor:
    counted = _last(history, sampling.repetition_window or history.shape[-1])
    said = torch.zeros(logits.shape[0], logits.shape[1] + 1, dtype=torch.bool, device=logits.device)
    said.scatter_(-1, history.masked_fill(~counted, logits.shape[1]), True)  # a spare column swallows what does not count
    penalised = torch.where(logits > 0, logits / sampling.repetition, logits * sampling.repetition)
    return torch.where(said[:, :-1], penalised, logits)


def _keep(logits: Tensor, sampling: Sampling) -> Tensor:
    """Logits [B, V] from high to low -> probabilities, 0 outside top-k and top-p; the first is always kept."""
    if sampling.top_k:
        logits = logits.masked_fill(torch.arange(logits.shape[-1], device=logits.device) >= sampling.top_k, -math.inf)
    probabilities = logits.softmax(-1)
    if sampling.top_p == 1:
        return probabilities
    before = probabilities.cumsum(-1) - probabilities
    return probabilities.masked_fill(before >= sampling.top_p, 0)


def _require(holds: bool, name: str, value: float, legal: str) -> None:
    if not holds:
        raise SlmError(f"sampling.{name} is {value!r}; it must be {legal}")
