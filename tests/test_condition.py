"""A voice and a due phone do not depend on padding, and a frame knows its own phone."""

import pytest
import torch

from slm.condition.guide import Guide
from slm.condition.voice import Voice
from slm.data.batch import pad


@pytest.fixture(autouse=True)
def fixed():
    torch.manual_seed(0)


def test_a_voice_does_not_depend_on_its_batch_mates():
    voice = Voice.Config(latent=6, width=8, dim=10).build().eval()
    rows = [torch.randn(n, 6) for n in (7, 30, 12)]
    together = voice(*pad(rows, dim=0))
    for row, vector in zip(rows, together):
        assert torch.allclose(voice(*pad([row], dim=0))[0], vector, atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_phones_do_not_depend_on_their_batch_mates():
    guide = Guide.Config().build(20, 16).eval()
    rows = [torch.randint(0, 20, (n,)) for n in (3, 12, 7)]
    for row, features in zip(rows, guide.phones(rows)):
        assert features.shape == (len(row), 16)
        assert torch.allclose(guide.phones([row])[0], features, atol=1e-5)


def test_a_phone_hears_its_neighbours_and_no_further():
    guide = Guide.Config(depth=2, kernel=3).build(20, 16).eval()
    row = torch.arange(12)
    changed = row.clone()
    changed[0] = 19
    moved = (guide.phones([row])[0] - guide.phones([changed])[0]).abs().sum(1) > 0
    assert moved.tolist() == [True] * 3 + [False] * 9


def test_every_frame_is_told_its_own_phone_and_its_place_in_it():
    guide = Guide.Config().build(20, 16).eval()
    with torch.no_grad():
        guide.place.weight.zero_(), guide.place.bias.zero_()
    features = torch.randn(3, 16)
    frames = guide.frames(features, torch.tensor([2, 1, 4]))
    assert torch.equal(frames, features[[0, 0, 1, 2, 2, 2, 2]])
    with torch.no_grad():
        guide.place.weight.normal_()
    told = guide.frames(features, torch.tensor([2, 1, 4]))
    assert len({tuple(row.tolist()) for row in told[3:]}) == 4, "the frames of one phone must differ"
