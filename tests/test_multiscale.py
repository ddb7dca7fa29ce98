"""The ids of one step said one after another: probabilities that sum to one, and what independent ids cannot say."""

import itertools
import math

import pytest
import torch

from slm.backbone.mamba2 import Mamba2
from slm.backbone.transformer import Transformer
from slm.config import from_dict, to_dict
from slm.errors import SlmError
from slm.stage.lm import LM, Stream
from slm.stage.multiscale import Depth
from slm.stream.part import Part
from slm.stream.sample import Sampling

GLOBAL = {"transformer": Transformer.Config(16, 1, 2), "mamba2": Mamba2.Config(16, 1, headdim=8, d_state=8)}
TEXT = Part("text", learn=False)


def model(part: Part, own: bool = False, backbone: str = "transformer", deep: bool = True, card: int = 3) -> LM:
    torch.manual_seed(0)
    depth = Depth.Config(Transformer.Config(8, 1, 2), own) if deep else None
    lm = LM.Config([TEXT, part], GLOBAL[backbone], depth=depth, sampling={"acoustic": Sampling(1.0, 0, 1.0)})
    lm = lm.build({"text": Stream(4), "acoustic": Stream(card, 2)})
    torch.nn.init.normal_(lm.head.weight, std=0.5)
    return lm.eval()


@torch.no_grad()
def likelihood(lm: LM, codes: list[torch.Tensor]) -> torch.Tensor:
    """log p of each row of codes [Q,T], <eos> included where the part has one."""
    text = torch.tensor([1, 3])
    return torch.stack([-lm.loss({"text": [text], "acoustic": [row]})["acoustic"] * (row.numel() + lm.parts[1].end) for row in codes])


def grids(T: int, card: int = 3) -> list[torch.Tensor]:
    """Every codes [2,T] there is."""
    return [torch.tensor(ids).view(2, T) for ids in itertools.product(range(card), repeat=2 * T)]


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("backbone", GLOBAL)
@pytest.mark.parametrize("layout, T", [("parallel", 1), ("parallel", 2), ("delay", 2)])
def test_the_probabilities_of_all_frames_sum_to_one(layout, T, backbone, own):
    lm = model(Part("acoustic", layout=layout), own, backbone)
    chances = likelihood(lm, grids(T)).exp()
    assert len(chances) == 9**T and float(chances.sum()) == pytest.approx(1, abs=1e-5) and chances.max() > 2 * chances.min()


def test_a_frame_and_the_end_share_the_probability():
    """Sequences of no frame, of one, and all that begin with two: p(T=0) + p(T=1) + p(T>=2) = 1."""
    ends, goes_on = model(Part("acoustic", layout="parallel", end=True)), model(Part("acoustic", layout="parallel", end=True))
    none = float(likelihood(ends, [torch.zeros(2, 0, dtype=torch.long)]).exp())
    one = float(likelihood(ends, grids(1)).exp().sum())
    two = likelihood(ends, grids(2)).exp().sum()
    goes_on.parts[1].end = False  # the same weights, but <eos> behind the second frame is not asked for
    goes_on.legal = lambda part, level: torch.cat([LM.legal(goes_on, part, level), torch.arange(2, 3 if level == 0 else 2)])
    begun = float(likelihood(goes_on, grids(2)).exp().sum())
    assert 0.01 < none < 0.9 and none + one + begun == pytest.approx(1, abs=1e-5) and float(two) < begun


@pytest.mark.parametrize("own", [False, True])
def test_a_column_hears_those_before_it_and_no_other(own):
    lm = model(Part("acoustic", layout="parallel"), own, card=9)
    hidden = torch.randn(5, 16)
    ids = torch.randint(0, lm.vocabulary.size, (5, 4))
    ids[0, 1] = -1
    said = lm.depth(hidden, ids, lm.embed)
    for column in range(4):
        changed = ids.clone()
        changed[:, column] = (ids[:, column] + 1) % lm.vocabulary.size
        moved = (lm.depth(hidden, changed, lm.embed) - said).abs().amax((0, 2)) > 1e-6
        assert moved.tolist() == [False] * (column + 1) + [True] * (3 - column)
    state, before = lm.depth.start(5, 4), None
    for column in range(4):
        stepped, state = lm.depth.step(hidden, before, lm.embed, state)
        torch.testing.assert_close(stepped, said[:, column], atol=1e-5, rtol=1e-4)
        before = ids[:, column]


def test_it_learns_and_says_what_independent_ids_cannot():
    """Both ids of a frame are one draw: a nat budget of log 6 a frame with the columns in order, of 2 log 6 without."""
    draw, left = torch.Generator().manual_seed(0), {}
    for deep in (True, False):
        lm = model(Part("acoustic", layout="parallel", like="text"), deep=deep, card=6).train()
        optimiser = torch.optim.AdamW(lm.parameters(), lr=2e-2)
        for _ in range(40):
            codes = torch.randint(6, (8, 1, 4), generator=draw).expand(-1, 2, -1)
            loss = lm.loss({"text": [torch.tensor([0, 1, 2, 3])] * 8, "acoustic": list(codes)})["acoustic"]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        left[deep] = 2 * float(loss.detach())
        said = torch.stack(lm.eval().run({"text": [torch.tensor([0, 1, 2, 3])] * 8}, list(range(8)))["acoustic"])
        assert (said[:, 0] == said[:, 1]).float().mean() > 0.9 if deep else (said[:, 0] == said[:, 1]).float().mean() < 0.5
    assert left[True] < math.log(6) + 0.3 and left[False] > 2 * math.log(6) - 0.3


def test_its_config_survives_and_one_that_hears_the_future_is_refused():
    config = LM.Config([TEXT, Part("acoustic", layout="parallel")], GLOBAL["mamba2"], depth=Depth.Config(own=True))
    assert from_dict(to_dict(config)) == config
    with pytest.raises(SlmError, match="must be causal"):
        Depth.Config(Transformer.Config(8, 1, 2, causal=False)).build(16, 9)
