"""Word errors: how far what a recogniser heard is from what should have been said, after normalisation.

WER = (substitutions + deletions + insertions) / words of the reference, pooled over utterances, so that long ones count for more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from slm.evaluate.normalise import normalise
from slm.evaluate.report import Score, ratio_score


@dataclass(frozen=True)
class Errors:
    """Of one utterance: counts against `words`, the length of its reference."""

    substitutions: int
    deletions: int
    insertions: int
    words: int

    @property
    def total(self) -> int:
        return self.substitutions + self.deletions + self.insertions


def count_errors(reference: str, heard: str) -> Errors:
    """The cheapest alignment of two texts, word by word, both normalised first. An empty `heard` deletes every word."""
    from jiwer import process_words

    said = normalise(reference)
    found = process_words(said, normalise(heard))
    return Errors(found.substitutions, found.deletions, found.insertions, len(said.split()))


def wer_scores(errors: Sequence[Errors], seed: int = 0) -> list[Score]:
    """WER and its three kinds, in percent of all reference words, each with a 95 % bootstrap interval over utterances."""
    words = [e.words for e in errors]
    kinds = {"WER %": "total", "substitutions %": "substitutions", "deletions %": "deletions", "insertions %": "insertions"}
    return [ratio_score(name, [100 * getattr(e, kind) for e in errors], words, seed) for name, kind in kinds.items()]
