"""Beam search: wide enough it finds the likeliest of all sequences, and what it claims of a sequence is what the model thinks of it."""

import itertools

import pytest
import torch

from slm.backbone.mamba2 import Mamba2
from slm.backbone.transformer import Transformer
from slm.condition.guide import Guide
from slm.errors import SlmError
from slm.stage.beam import search
from slm.stage.lm import LM, Stream
from slm.stream.part import Part
from slm.stream.sample import Sampling

TEXT = Part("text", learn=False)
BACKBONES = {"transformer": Transformer.Config(16, 1, 2), "mamba2": Mamba2.Config(16, 1, headdim=8, d_state=8)}


def built(parts: list[Part], backbone: str = "transformer", seed: int = 0, **more) -> LM:
    torch.manual_seed(seed)
    lm = LM.Config(parts, BACKBONES[backbone], cap=1.0, sampling={"acoustic": Sampling(temperature=0)}, **more)
    lm = lm.build({"text": Stream(5), "duration": Stream(4), "acoustic": Stream(3, 2)}).eval()
    torch.nn.init.normal_(lm.head.weight, std=0.5)
    return lm


@torch.no_grad()
def score(lm: LM, batch: dict) -> float:
    """log p of the row's codes, <eos> included where the part has one."""
    return -float(lm.loss(batch)["acoustic"]) * (batch["acoustic"][0].numel() + lm.parts[-1].end)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("layout", ["flat", "coarse_first"])
def test_wide_enough_it_finds_the_likeliest_of_all(layout, backbone):
    missed = 0
    for seed in range(9):
        if seed > 1 and missed:
            break
        lm = built([TEXT, Part("acoustic", layout=layout, like="text")], backbone, seed)
        batch = {"text": [torch.tensor([1, 4])]}
        every = [batch | {"acoustic": [torch.tensor(ids).view(2, 2)]} for ids in itertools.product(range(3), repeat=4)]
        best = max(every, key=lambda b: score(lm, b))
        found = search(lm, batch, width=81)
        assert torch.equal(found["acoustic"][0], best["acoustic"][0]) and found["score"][0] == pytest.approx(score(lm, best), abs=1e-4)
        missed += not torch.equal(lm.run(batch, [0])["acoustic"][0], best["acoustic"][0])
    assert missed, "where the greedy way is the best a beam proves nothing"


def test_it_finds_when_to_end():
    """All sequences of no, one and two frames; two is the cap, where no <eos> need be drawn."""
    for seed in range(3):
        lm = built([TEXT, Part("acoustic", end=True)], seed=seed)
        batch, chances = {"text": [torch.tensor([1, 4])]}, {}
        for T in (0, 1):
            for ids in itertools.product(range(3), repeat=2 * T):
                codes = torch.tensor(ids, dtype=torch.long).view(2, T)
                chances[codes] = score(lm, batch | {"acoustic": [codes]})
        found = search(lm, batch, width=100)
        shorter = max(chances, key=chances.get)
        if found["stop"] == ["end"]:
            assert torch.equal(found["acoustic"][0], shorter) and found["score"][0] == pytest.approx(chances[shorter], abs=1e-4)
        else:
            assert found["acoustic"][0].shape == (2, 2) and found["score"][0] > chances[shorter]


def test_a_beam_of_one_is_the_greedy_way_and_a_wider_one_is_no_worse():
    lm = built([TEXT, Part("duration", learn=False), Part("acoustic")], guide=Guide.Config())
    batch = {"text": [torch.tensor([1, 4, 2])], "duration": [torch.tensor([2, 1, 3])]}
    greedy = lm.run(batch, [0])
    one, wide = search(lm, batch, width=1), search(lm, batch, width=30)
    assert torch.equal(one["acoustic"][0], greedy["acoustic"][0]) and one["acoustic"][0].shape == (2, 6)
    assert one["score"][0] == pytest.approx(score(lm, one), abs=1e-4) and wide["score"][0] > one["score"][0] - 1e-5
    assert torch.equal(wide["acoustic"][0], search(lm, batch, width=30)["acoustic"][0])


def test_what_a_beam_cannot_say_is_an_error():
    lm = built([TEXT, Part("acoustic", layout="delay", like="text")])
    with pytest.raises(SlmError, match="tells 2"):
        search(lm, {"text": [torch.tensor([1])]})
    with pytest.raises(SlmError, match="one row"):
        search(lm, {"text": [torch.tensor([1]), torch.tensor([2])]})
    with pytest.raises(SlmError, match="at least one sequence .width is 0"):
        search(lm, {"text": [torch.tensor([1])]}, width=0)
