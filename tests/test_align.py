"""When phones are said: the best path is the best of all paths, and examples are cut where phones end."""

import itertools

import numpy as np
import pytest
import torch

from slm.data.utterances import Utterance, Utterances, shorten
from slm_tokenizers.text.align import CLASS, Phone, best_path, plain, rough, settle, states


def brute_force(scores, optional):
    """The best score over every monotonic path that visits all states but optional ones."""
    frames, k = scores.shape
    best = -np.inf
    for counts in itertools.product(range(frames + 1), repeat=k):
        if sum(counts) == frames and all(n or o for n, o in zip(counts, optional)):
            path = np.repeat(np.arange(k), counts)
            best = max(best, scores[np.arange(frames), path].sum())
    return best


@pytest.mark.parametrize("seed", range(20))
def test_the_best_path_is_the_best_of_all(seed):
    draw = np.random.default_rng(seed)
    frames, phones = int(draw.integers(3, 7)), int(draw.integers(1, 4))
    optional = np.array([i % 2 == 0 for i in range(2 * phones + 1)])  # a pause may stand around every phone
    scores = draw.standard_normal((frames, len(optional))).astype(np.float32)
    counts = best_path(scores, optional)
    assert counts.sum() == frames and (counts[~optional] > 0).all()
    path = np.repeat(np.arange(len(counts)), counts)
    assert scores[np.arange(frames), path].sum() == pytest.approx(brute_force(scores, optional), abs=1e-5)


def test_too_few_frames_are_an_error():
    with pytest.raises(ValueError, match="cannot hold"):
        best_path(np.zeros((2, 7), np.float32), np.array([True, False] * 3 + [True]))


def test_a_pause_may_stand_between_any_two_words():
    symbols, optional = states([("", ["sil"]), ("the", ["DH", "AH0"]), ("", ["sil"]), ("cat", ["K", "AE1", "T"]), ("", ["sil"])])
    assert symbols == ["sil", "DH", "AH0", "sil", "K", "AE1", "T", "sil"]
    assert list(optional) == [s == "sil" for s in symbols]


def test_short_pauses_belong_to_the_phone_that_follows():
    phones = [Phone("sil", 3), Phone("AH0", 2), Phone("sil", 2), Phone("K", 4), Phone("sil", 9), Phone("T", 1), Phone("sil", 1)]
    settled = settle(phones)
    assert [(p.symbol, p.frames) for p in settled] == [("sil", 3), ("AH0", 2), ("K", 6), ("sil", 9), ("T", 1), ("sil", 1)]
    assert sum(p.frames for p in settled) == sum(p.frames for p in phones)


def test_spikes_give_first_times_and_missing_ones_are_shared():
    symbols, optional = states([("", ["sil"]), ("cat", ["K", "AE1", "T"]), ("", ["sil"])])
    labels = rough(symbols, optional, [("k", 4), ("t", 16)], 20, np.ones(20, bool))
    assert labels[4] == CLASS["K"] and labels[10] == CLASS["AE"] and labels[16] == CLASS["T"]
    silent = np.ones(20, bool)
    silent[:2] = False
    assert rough(symbols, optional, [], 20, silent)[0] == CLASS["sil"]
    assert plain("AE1") == "AE" and plain("K") == "K"


def utterance(id, speaker, durations, levels=3):
    duration = torch.tensor(durations)
    codes = torch.arange(int(duration.sum())).repeat(levels, 1) % 16
    return Utterance(id, speaker, torch.arange(len(durations)), duration, codes)


def test_a_long_pause_loses_its_middle():
    item = utterance("a", "s", [2, 10, 3])
    text, duration, codes = shorten(item.text, item.duration, item.codes, 4)
    assert duration.tolist() == [2, 4, 3] and codes[0].tolist() == [0, 1, 2, 3, 10, 11, 12, 13, 14]


@pytest.fixture
def data():
    items = [utterance(f"{s}{i}", s, [3, 4, 5, 6, 7]) for s in "ab" for i in range(4)] + [utterance("c", "c", [5] * 60)]
    return Utterances(items, torch.randn(3, 16, 4), frames=800, prompt=(5, 10), longest=60)


def test_examples_are_a_function_of_the_step(data):
    for step in range(len(data)):
        for name, rows in data.at(step).items():
            assert all(torch.equal(x, y) for x, y in zip(rows, data.at(step)[name]))


def test_an_example_is_whole_phones_and_as_long_as_its_durations(data):
    for step in range(3 * len(data)):
        batch = data.at(step)
        for text, duration, codes, semantic, prompt, latent in zip(
            *(batch[k] for k in ("text", "duration", "acoustic", "semantic", "prompt_codes", "prompt"))
        ):
            assert len(text) == len(duration) and duration.sum() == codes.shape[1] == semantic.shape[1] <= 60
            assert torch.equal(semantic, codes[:1]) and 5 <= prompt.shape[1] <= 10 and latent.shape == (prompt.shape[1], 4)


def test_a_prompt_never_comes_from_what_is_to_be_said(data):
    """The one long utterance of speaker c lends its beginning, and is said from there on."""
    draw = np.random.default_rng(0)
    item = next(i for i in data.batches.items if i.id == "c")
    item.codes = torch.arange(300).repeat(3, 1)  # every frame is known by its number
    data.latents = lambda codes: codes.T.float()
    for _ in range(50):
        row = data.row(item, draw)
        assert row["prompt_codes"].max() < row["acoustic"].min()
