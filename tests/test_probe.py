"""Probes on made-up frames whose facts are known.

n frames, D width, Q codebooks, G groups.
"""

import pytest
import torch

from slm.errors import SlmError
from slm.evaluate.probe import held, matrix, probe

FRAMES, GROUPS = 1200, 12


@pytest.fixture(scope="module")
def made():
    """Labels of three classes, of which the first is commonest; groups, each with an accent of its own that tells nothing of the label."""
    draw = torch.Generator().manual_seed(0)
    labels = (torch.rand(FRAMES, generator=draw) * 4).long().sub(1).clamp(min=0)
    groups = [f"speaker {i % GROUPS}" for i in range(FRAMES)]
    accent = torch.randn(GROUPS, 8, generator=draw)[torch.arange(FRAMES) % GROUPS]
    told = torch.randn(3, 8, generator=draw)[labels] * 3
    return labels, groups, accent, told, torch.randn(FRAMES, 8, generator=draw)


def test_what_is_told_is_found_and_what_is_hidden_is_at_chance(made):
    labels, groups, accent, told, noise = made
    found = probe(told + noise, labels, groups)
    assert found.accuracy > 0.95 and found.low <= found.accuracy <= found.high
    nothing = probe(noise, labels, groups)
    assert abs(nothing.accuracy - nothing.chance) < 0.05 and 0.45 < nothing.chance < 0.55
    assert found.n == nothing.n == int(held(groups, 0.4, 0).sum())


def test_a_probe_is_asked_about_groups_that_it_never_heard(made):
    """Features that tell the group and through it the label would be right on those groups, and know nothing of others."""
    _, groups, accent, _, _ = made
    whose = torch.arange(FRAMES) % GROUPS
    by_group = torch.randperm(GROUPS, generator=torch.Generator().manual_seed(1))[whose] % 2
    remembered = torch.nn.functional.one_hot(whose, GROUPS).float()
    assert probe(remembered, by_group, groups).accuracy < 0.8
    assert probe(remembered, by_group, [str(i // GROUPS) for i in range(FRAMES)]).accuracy == 1.0
    for seed in range(5):
        aside = held(groups, 0.4, seed)
        assert not set(whose[aside].tolist()) & set(whose[~aside].tolist()) and 0 < aside.float().mean() < 1
    assert not torch.equal(held(groups, 0.4, 0), held(groups, 0.4, 1))


def test_codes_are_a_row_each_and_unknown_ones_say_nothing(made):
    labels, groups, _, _, _ = made
    draw = torch.Generator().manual_seed(2)
    codes = torch.stack([labels * 5 + torch.randint(0, 5, (FRAMES,), generator=draw), torch.randint(0, 9, (FRAMES,), generator=draw)], 1)
    assert probe(codes, labels, groups).accuracy > 0.99
    shuffled = codes[torch.randperm(FRAMES, generator=draw)]
    assert probe(shuffled, labels, groups).accuracy < 0.6
    strange = torch.where(held(groups, 0.4, 0)[:, None], 99, codes)
    lost = probe(strange, labels, groups)
    assert lost.accuracy == pytest.approx(lost.chance)


def test_two_codebooks_add_up(made):
    """A class that neither codebook tells alone: the sum of two rows is linear, so parity stays at chance and a maximum does not."""
    _, groups, _, _, _ = made
    a, b = torch.randint(0, 2, (2, FRAMES), generator=torch.Generator().manual_seed(3))
    both = torch.stack([a, b], 1)
    assert probe(both, a | b, groups).accuracy == 1.0 > probe(both[:, :1], a | b, groups).accuracy
    assert probe(both, a ^ b, groups).accuracy < 0.65


def test_frames_without_a_label_and_classes_of_one_side_are_left_out(made):
    labels, groups, _, told, noise = made
    some = labels.clone()
    some[::3] = -1
    assert probe(told + noise, some, groups).n == int((held(groups, 0.4, 0) & (some >= 0)).sum())
    alone = torch.where(held(groups, 0.4, 0) & (labels == 2), 7, labels)
    assert probe(told + noise, alone, groups).n == int((held(groups, 0.4, 0) & (alone < 7)).sum())


def test_a_matrix_has_a_row_a_stream_and_a_column_a_fact(made):
    labels, groups, accent, told, noise = made
    whose = torch.arange(FRAMES) % GROUPS
    pieces = [str(i // GROUPS) for i in range(FRAMES)]
    table = matrix({"what": told + noise, "who": accent + 0.1 * noise}, {"phone": (labels, groups), "speaker": (whose, pieces)})
    assert list(table) == ["what", "who"] and list(table["who"]) == ["phone", "speaker"]
    assert table["what"]["phone"].accuracy > 0.95 > 0.3 > table["what"]["speaker"].accuracy
    assert table["who"]["speaker"].accuracy > 0.95 > 0.6 > table["who"]["phone"].accuracy


def test_a_mistake_is_one_sentence(made):
    labels, groups, _, told, _ = made
    for wrong, says in [
        (lambda: probe(told[:5], labels, groups), "same frames"),
        (lambda: probe(told, labels, ["one"] * FRAMES), "only 1"),
        (lambda: probe(told, torch.zeros_like(labels), groups), "1 classes"),
        (lambda: probe(told, torch.full_like(labels, -1), groups), "0 classes"),
    ]:
        with pytest.raises(SlmError, match=says):
            wrong()
