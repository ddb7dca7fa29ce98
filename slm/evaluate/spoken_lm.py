"""What a language model of speech units knows of words, of sentences and of what comes next: pairs of which one is right.

    words       a word, and one letter-like change away a word that does not exist            as sWUGGY
    sentences   a sentence, and the same with a slip of grammar                               as sBLIMP
    stories     how a recording goes on, and how another of the same speaker does             as StoryCloze

Nguyen et al., 2020, "The Zero Resource Speech Benchmark 2021"; Hassid et al., 2023, for the last. The model is right where it gives the
first of a pair the higher likelihood a unit; by chance it is in half. Words and sentences are said by flite, so that nothing but
what is said differs.

L phones   T units
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from torch import Tensor

from slm.errors import SlmError

SUBJECTS = ("dog", "teacher", "ship", "river", "doctor", "child", "king", "letter", "horse", "soldier", "window", "garden")
VERBS = ("sleep", "fall", "stand", "help", "wait", "turn", "break", "speak", "move", "answer")
PLACES = ("near the house", "in the morning", "after the war", "under the bridge", "on the table", "before the night")


@dataclass
class Pair:
    """What is right and what is wrong, each as phones or as text."""

    right: list[str] | str
    wrong: list[str] | str


def words(known: list[str], count: int, seed: int = 0) -> list[Pair]:
    """Words of at least four phones, each with one consonant exchanged: no word, but every two neighbours in it are found in words."""
    from slm_tokenizers.text.phonemes import CONSONANTS, dictionary, lookup

    draw = np.random.default_rng(seed)
    real = {tuple(lookup(word) or ()) for word in dictionary()}
    usual = {two for phones in real for two in pairwise(phones)}
    found: list[Pair] = []
    for at in draw.permutation(len(known)):
        phones = lookup(known[at])
        if phones is None or len(phones) < 4:
            continue
        places = [i for i, phone in enumerate(phones) if phone in CONSONANTS]
        changed = [[*phones[:i], other, *phones[i + 1 :]] for i in places for other in CONSONANTS if other != phones[i]]
        wrong = [c for c in changed if tuple(c) not in real and usual.issuperset(pairwise(c))]
        if wrong:
            found.append(Pair(phones, wrong[int(draw.integers(len(wrong)))]))
        if len(found) == count:
            return found
    raise SlmError(f"{count} pairs of words were asked for but only {len(found)} can be made of the {len(known)} words given")


def sentences(count: int, seed: int = 0) -> list[Pair]:
    """Agreement of subject and verb, and the order of article and noun; half each."""
    draw = np.random.default_rng(seed)
    every = []
    for subject in SUBJECTS:
        for verb in VERBS:
            place = PLACES[int(draw.integers(len(PLACES)))]
            one, many = f"the {subject} {verb}s {place}", f"the {plural(subject)} {verb} {place}"
            every.append(
                Pair(one, f"the {plural(subject)} {verb}s {place}") if draw.random() < 0.5 else Pair(many, f"the {subject} {verb} {place}")
            )
            every.append(Pair(many, many.replace(f"the {plural(subject)}", f"{plural(subject)} the")))
    if count > len(every):
        raise SlmError(f"{count} pairs of sentences were asked for but there are {len(every)}")
    return [every[i] for i in draw.permutation(len(every))[:count]]


def plural(noun: str) -> str:
    return {"child": "children"}.get(noun, f"{noun}s")


def stories(rows: list[Tensor], speakers: list[str], seed: int = 0, least: int = 100) -> list[tuple[Tensor, Tensor]]:
    """Units [T] of recordings -> pairs (as it went on, as another of the speaker did), both after the same first half."""
    draw = np.random.default_rng(seed)
    long = [i for i, row in enumerate(rows) if len(row) >= least]
    pairs = []
    for i in long:
        others = [j for j in long if j != i and speakers[j] == speakers[i]]
        if others:
            other = rows[others[int(draw.integers(len(others)))]]
            half = len(rows[i]) // 2
            end = min(len(rows[i]) - half, len(other) - len(other) // 2)
            begin = rows[i][:half]
            pairs.append(
                tuple(begin.new_tensor([*begin.tolist(), *tail[:end].tolist()]) for tail in (rows[i][half:], other[len(other) // 2 :]))
            )
    return pairs


def told_apart(pairs: list[tuple[Tensor, Tensor]], nats: Callable[[Tensor], float]) -> np.ndarray:
    """nats: units [T] -> mean nats a unit. Of each pair 1 where the right one has fewer, 0 where it has more, .5 where as many."""
    gaps = np.array([nats(wrong) - nats(right) for right, wrong in pairs])
    return np.where(gaps == 0, 0.5, gaps > 0).astype(float)
