"""When each phone is said: monotonic alignment of a known phone string to audio.

    T frames   K states (phones and the pauses that may stand between words)   C classes (phones without stress, pause first)

Hidden Markov training in the old way: rough times first (a phone recogniser's spikes, or equal shares), a small frame
classifier learns them, the best path through its posteriors gives better times, and once more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.errors import SlmError
from slm_tokenizers.text.phonemes import CONSONANTS, SIL, VOWELS

CLASSES = (SIL, *CONSONANTS, *VOWELS)
CLASS = {c: i for i, c in enumerate(CLASSES)}

IPA = dict(
    b="B",
    d="D",
    ð="DH",
    f="F",
    g="G",
    ɡ="G",
    h="HH",
    k="K",
    l="L",
    ɫ="L",
    m="M",
    n="N",
    ŋ="NG",
    p="P",
    ɹ="R",
    r="R",
    ɾ="D",
    s="S",
    ʃ="SH",
    t="T",
    θ="TH",
    v="V",
    w="W",
    j="Y",
    z="Z",
    ʒ="ZH",
    ɑ="AA",
    a="AA",
    æ="AE",
    ʌ="AH",
    ə="AH",
    ɔ="AO",
    ɛ="EH",
    ɝ="ER",
    ɪ="IH",
    i="IY",
    ʊ="UH",
    u="UW",
    e="EY",
    o="OW",
    ɨ="IH",
) | {"t͡ʃ": "CH", "d͡ʒ": "JH", "aʊ": "AW", "aɪ": "AY", "eɪ": "EY", "oʊ": "OW", "ɔɪ": "OY"}


@dataclass
class Phone:
    symbol: str  # with stress, as Phonemes writes it
    frames: int


def plain(symbol: str) -> str:
    """A phone without its stress."""
    return re.sub(r"\d", "", symbol)


def classes_of(symbols: Iterable[str]) -> list[int]:
    """The class of each symbol of Phonemes. SlmError for symbols that are no phones."""
    try:
        return [CLASS[plain(symbol)] for symbol in symbols]
    except KeyError as unknown:
        raise SlmError(f"{unknown} is no phone; only a text tokenizer of phones has classes of them") from None


def states(words: list[tuple[str, list[str]]]) -> tuple[list[str], np.ndarray]:
    """Phonemes.words -> symbols [K] and which of them may be skipped [K]: a pause between any two words."""
    symbols, optional = [SIL], [True]
    for _, phones in words:
        if phones == [SIL]:
            continue
        symbols += [*phones, SIL]
        optional += [False] * len(phones) + [True]
    return symbols, np.array(optional)


def best_path(scores: np.ndarray, optional: np.ndarray) -> np.ndarray:
    """scores [T,K] log-likelihood of a state at a frame -> frames a state [K], summing to T; 0 only where optional.

    Raises ValueError when there are fewer frames than states that must be visited.
    """
    frames, k = scores.shape
    if frames < (~optional).sum():
        raise ValueError(f"{frames} frames cannot hold {(~optional).sum()} phones")
    low = np.float32(-1e30)
    jump = np.concatenate([[False, False], optional[1:-1]])  # state k may follow k-2
    best, back = np.full(k, low, np.float32), np.zeros((frames, k), np.int8)
    best[0] = scores[0, 0]
    if optional[0]:
        best[1] = scores[0, 1]
    for t in range(1, frames):
        one = np.concatenate([[low], best[:-1]])
        two = np.where(jump, np.concatenate([[low, low], best[:-2]]), low)
        choice = np.stack([best, one, two])
        back[t] = choice.argmax(0)
        best = choice.max(0) + scores[t]
    state = k - 2 if optional[-1] and best[-2] > best[-1] else k - 1
    counts = np.zeros(k, np.int64)
    for t in range(frames - 1, -1, -1):
        counts[state] += 1
        state -= int(back[t, state])
    return counts


def rough(symbols: list[str], optional: np.ndarray, spikes: list[tuple[str, int]], frames: int, loud: np.ndarray) -> np.ndarray:
    """First guess from a recogniser's spikes: the strings are matched by edit distance, the rest shares the gaps. -> class [T]

    spikes: (IPA symbol, frame); loud [T] bool: frames that are not silent.
    """
    wanted = [(i, plain(s)) for i, s in enumerate(symbols) if not optional[i]]
    heard = [(IPA[p], f) for p, f in spikes if p in IPA]
    times = _matched([s for _, s in wanted], heard, frames)
    edges = np.concatenate([[0], (times[1:] + times[:-1]) / 2, [frames]])
    labels = np.zeros(frames, np.int64)
    for (_, symbol), a, b in zip(wanted, edges[:-1], edges[1:]):
        labels[int(round(a)) : int(round(b))] = CLASS[symbol]
    labels[~loud] = 0
    return labels


def _matched(wanted: list[str], heard: list[tuple[str, int]], frames: int) -> np.ndarray:
    """Time of every wanted phone: the spike it is matched with, or a place between its neighbours' spikes."""
    n, m = len(wanted), len(heard)
    vowels = set(VOWELS)
    cost = np.array([[0.0 if w == h else 0.6 if (w in vowels) == (h in vowels) else 1.5 for h, _ in heard] for w in wanted]).reshape(n, m)
    d = np.zeros((n + 1, m + 1))
    d[:, 0], d[0, :] = np.arange(n + 1), np.arange(m + 1)
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            d[i, j] = min(d[i - 1, j - 1] + cost[i - 1, j - 1], d[i - 1, j] + 1, d[i, j - 1] + 1)
    at = np.full(n, np.nan)
    i, j = n, m
    while i and j:
        if d[i, j] == d[i - 1, j - 1] + cost[i - 1, j - 1]:
            i, j = i - 1, j - 1
            at[i] = heard[j][1]
        elif d[i, j] == d[i - 1, j] + 1:
            i -= 1
        else:
            j -= 1
    known = np.flatnonzero(~np.isnan(at))
    if not len(known):
        return np.linspace(0, frames, n + 2)[1:-1]
    return np.interp(
        np.arange(n),
        np.concatenate([[-1], known, [n]]),
        np.concatenate([[max(0, at[known[0]] - 4)], at[known], [min(frames, at[known[-1]] + 6)]]),
    )


class FrameClassifier(nn.Module):
    """log-mel [B,T,M] -> log posteriors [B,T,C]: three convolutions that see 13 frames."""

    def __init__(self, n_in: int, width: int = 256) -> None:
        super().__init__()
        self.stem = nn.Conv1d(n_in, width, 5, padding=2)
        self.convs = nn.ModuleList(nn.Conv1d(width, width, 5, padding=2) for _ in range(2))
        self.out = nn.Conv1d(width, len(CLASSES), 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.hidden(x).transpose(1, 2)).transpose(1, 2).float().log_softmax(-1)

    def hidden(self, x: Tensor) -> Tensor:
        """log-mel [B,T,M] -> [B,T,width]: what the classes are told from"""
        x = F.gelu(self.stem(x.transpose(1, 2)))
        for conv in self.convs:
            x = x + F.gelu(conv(F.dropout(x, 0.1, self.training)))
        return x.transpose(1, 2)


def learn(model: FrameClassifier, features: list[Tensor], labels: list[Tensor], epochs: int, lr: float, seed: int = 0) -> float:
    """One round of training on frame labels; windows of 200 frames, 32 a batch. -> last mean loss"""
    optim = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    windows = [(i, a) for i, f in enumerate(features) for a in range(0, max(1, len(f) - 50), 200)]
    order = np.random.default_rng(seed)
    mean = 0.0
    model.train()
    for _ in range(epochs):
        order.shuffle(windows)
        for start in range(0, len(windows), 32):
            some = windows[start : start + 32]
            x = nn.utils.rnn.pad_sequence([features[i][a : a + 200].float() for i, a in some], batch_first=True)
            y = nn.utils.rnn.pad_sequence([labels[i][a : a + 200] for i, a in some], batch_first=True, padding_value=-100)
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.nll_loss(model(x).flatten(0, 1), y.flatten(), ignore_index=-100)
            optim.zero_grad(set_to_none=True)
            loss.backward()
            optim.step()
            mean += 0.02 * (float(loss.detach()) - mean)
    model.eval()
    return mean


@torch.no_grad()
def align(model: FrameClassifier, features: Tensor, words: list[tuple[str, list[str]]], prior: np.ndarray) -> list[Phone]:
    """features [T,M] -> the phones of `words` with their frames, pauses of no length left out; frames sum to T."""
    with torch.autocast("cpu", torch.bfloat16):
        posterior = model(features.float()[None])[0].numpy()
    symbols, optional = states(words)
    scores = (posterior - 0.5 * prior)[:, classes_of(symbols)]
    counts = best_path(scores, optional)
    return settle([Phone(s, int(n)) for s, n in zip(symbols, counts) if n])


def settle(phones: list[Phone], shortest: int = 5) -> list[Phone]:
    """Pauses inside an utterance of less than `shortest` frames are closures, not pauses: the next phone begins with them."""
    out: list[Phone] = []
    owed = 0
    for i, phone in enumerate(phones):
        if phone.symbol == SIL and 0 < i < len(phones) - 1 and phone.frames < shortest:
            owed = phone.frames
        else:
            out.append(Phone(phone.symbol, phone.frames + owed))
            owed = 0
    return out
