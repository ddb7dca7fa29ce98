"""The finer levels at once: what a level's scores may depend on, and that padding is not part of it."""

import pytest
import torch

from slm.backbone.transformer import Transformer
from slm.errors import SlmError
from slm.stage.join import join, take
from slm.stage.lm import Stream
from slm.stage.nar import NAR

Q, CARD = 4, 12


@pytest.fixture
def stage() -> NAR:
    torch.manual_seed(0)
    backbone = Transformer.Config(16, 2, 2, causal=False, adaptive=8, positions="none")
    stage = NAR.Config(backbone=backbone).build({"text": Stream(9), "acoustic": Stream(CARD, Q)}).eval()
    with torch.no_grad():
        for weight in (w for w in stage.backbone.parameters() if w.ndim == 2):
            weight.normal_(0, 0.2)  # at the start no level and hardly a place is unlike another
    return stage


def batch(*sizes: tuple[int, int, int]) -> dict:
    """Rows of (phones, prompt frames, target frames)."""
    draw = torch.Generator().manual_seed(1)

    def codes(n: int):
        return torch.randint(0, CARD, (Q, n), generator=draw)

    rows = [(torch.randint(0, 9, (phones,), generator=draw), codes(prompt), codes(frames)) for phones, prompt, frames in sizes]
    text, prompt, target = map(list, zip(*rows))
    return {"text": text, "prompt_codes": prompt, "acoustic": target}


def scores(stage: NAR, given: dict, level: int) -> torch.Tensor:
    """Of a batch of one row: [T,C]."""
    codes = given["acoustic"][0][None]
    return stage.scores(codes, torch.tensor([codes.shape[2]]), torch.tensor([level]), stage.context(given))[0]


def test_pieces_are_joined_and_taken_out_again():
    x, y = torch.randn(2, 3, 4), torch.randn(2, 5, 4)
    whole, lengths = join((x, torch.tensor([3, 1])), (y, torch.tensor([2, 5])))
    assert whole.shape == (2, 6, 4) and lengths.tolist() == [5, 6]
    assert torch.equal(whole[0, :3], x[0]) and torch.equal(whole[1, 1:], y[1])
    assert torch.equal(take(whole, torch.tensor([3, 1]), 5)[1], y[1]) and torch.equal(take(whole, torch.tensor([3, 1]), 5)[0, :2], y[0, :2])


def test_a_padded_row_has_the_scores_it_has_alone(stage):
    sizes = (7, 3, 9), (2, 8, 4), (5, 1, 13)
    together = batch(*sizes)
    codes = torch.nn.utils.rnn.pad_sequence([c.T for c in together["acoustic"]], batch_first=True).transpose(1, 2)
    level = torch.tensor([1, 3, 2])
    every = stage.scores(codes, torch.tensor([n for _, _, n in sizes]), level, stage.context(together))
    for row, (_, _, frames) in enumerate(sizes):
        alone = {name: [rows[row]] for name, rows in together.items()}
        torch.testing.assert_close(every[row, :frames], scores(stage, alone, int(level[row])), atol=1e-5, rtol=1e-5)


def test_the_loss_of_a_batch_is_that_of_its_rows_frame_by_frame(stage, monkeypatch):
    together = batch((7, 3, 9), (2, 8, 4))
    monkeypatch.setattr(torch, "randint", lambda low, high, size, device=None: torch.full(size, 2))
    alone = [stage.loss({name: [rows[row]] for name, rows in together.items()})["codes"].item() for row in (0, 1)]
    assert stage.loss(together)["codes"].item() == pytest.approx((9 * alone[0] + 4 * alone[1]) / 13, abs=1e-5)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_level_sees_those_below_it_and_no_others(stage, level):
    given = batch((5, 4, 8))
    before = scores(stage, given, level)
    for changed in range(Q):
        other = {**given, "acoustic": [given["acoustic"][0].clone()]}
        other["acoustic"][0][changed, 3] += 1
        other["acoustic"][0] %= CARD
        after = scores(stage, other, level)
        assert torch.equal(before, after) is (changed >= level)
        if changed < level:
            assert (before - after).abs().amax(-1).min() > 0, "every frame hears every other"


def test_order_counts_and_so_do_all_levels_of_the_prompt(stage):
    given = batch((5, 4, 8))
    before = scores(stage, given, 2)
    for name in ("text", "prompt_codes"):
        assert not torch.allclose(scores(stage, {**given, name: [given[name][0].flip(-1)]}, 2), before, atol=1e-3), name
    turned = scores(stage, {**given, "acoustic": [given["acoustic"][0].flip(-1)]}, 2)
    assert not torch.allclose(turned.flip(0), before, atol=1e-3)
    for level in range(Q):
        other = given["prompt_codes"][0].clone()
        other[level, 1] = (other[level, 1] + 1) % CARD
        assert not torch.allclose(scores(stage, {**given, "prompt_codes": [other]}, 2), before, atol=1e-3), level


def test_the_target_counts_on_from_the_prompt(stage):
    """A frame that moves from the prompt's end to the target's beginning stays where it was."""
    from slm.backbone.positions import sinusoids

    nothing = torch.zeros(2, 3, 16)
    placed = stage.placed(nothing, torch.tensor([0, 4]))
    assert torch.equal(placed[1], sinusoids(torch.arange(4, 7), 16)) and torch.equal(placed[0], sinusoids(torch.arange(3), 16))
    one, two = batch((5, 4, 8)), batch((5, 4, 8))
    with torch.no_grad():
        stage.vectors[1:, 0] = 0
    one["prompt_codes"][0][1:] = 0  # what the prompt has beyond the first level is then nothing, as in the target
    two["prompt_codes"] = [one["prompt_codes"][0][:, :-1]]
    two["acoustic"] = [torch.cat([one["prompt_codes"][0][:, -1:], one["acoustic"][0]], 1)]
    torch.testing.assert_close(scores(stage, one, 1), scores(stage, two, 1)[1:], atol=1e-5, rtol=1e-5)


def test_levels_are_told_apart(stage):
    """Two levels with the same input and the same vectors for their scores still differ: the norms know the level."""
    given = batch((5, 4, 8))
    given["acoustic"][0][1:] = 0
    with torch.no_grad():
        stage.vectors[1, 0] = 0  # the frames of level 2 then look like those of level 1
        stage.vectors[2] = stage.vectors[1]
    assert not torch.allclose(scores(stage, given, 2), scores(stage, given, 1), atol=1e-3)
    with torch.no_grad():
        stage.level.weight[2] = stage.level.weight[1]
    assert torch.allclose(scores(stage, given, 2), scores(stage, given, 1), atol=1e-5)


def test_run_says_all_levels_each_given_those_before(stage):
    given = batch((5, 4, 8), (3, 2, 11))
    first = [codes[:1] for codes in given["acoustic"]]
    said = stage.run({"text": given["text"], "prompt_codes": given["prompt_codes"], "given": first}, [0, 1])["acoustic"]
    for row, codes in enumerate(said):
        assert codes.shape == given["acoustic"][row].shape and torch.equal(codes[:1], first[row])
        alone = {"text": [given["text"][row]], "prompt_codes": [given["prompt_codes"][row]], "acoustic": [codes]}
        for level in range(1, Q):
            assert torch.equal(scores(stage, alone, level).argmax(-1), codes[level])
    with pytest.raises(SlmError, match="2 levels were given, but 1"):
        stage.run({**given, "given": [codes[:2] for codes in given["acoustic"]]}, [0, 1])


def test_gradients_reach_the_phones_the_prompt_and_the_level(stage):
    given = batch((5, 4, 8), (3, 2, 11))
    given["text"] = [torch.arange(5), torch.arange(5, 8)]
    torch.manual_seed(0)
    stage.loss(given)["codes"].backward()
    assert (stage.phones.weight.grad.abs().sum(1) > 0).tolist() == [True] * 8 + [False]
    assert stage.level.weight.grad.abs().sum() > 0
    stage.zero_grad()
    prompt = stage.vectors.detach().clone().requires_grad_()
    seen = sum(torch.nn.functional.embedding(given["prompt_codes"][0][None, q], prompt[q]) for q in range(Q))
    _, lengths, frames = stage.context({name: rows[:1] for name, rows in given.items()})
    text = stage.placed(stage.phones(given["text"][0][None]), torch.tensor([0]))
    context = torch.cat([text, stage.placed(seen, torch.tensor([0]))], 1), lengths, frames
    stage.scores(given["acoustic"][0][None], torch.tensor([8]), torch.tensor([2]), context).logsumexp(-1).sum().backward()
    assert (prompt.grad.abs().sum((1, 2)) > 0).all(), "all levels of the prompt are heard"


def test_it_learns_a_level_that_the_one_below_decides(stage):
    """The second level is a function of the first: the loss must come far below that of a guess, ln 12."""
    draw = torch.Generator().manual_seed(0)
    rule = torch.randperm(CARD, generator=draw)
    for _ in range(80):
        given = batch((5, 4, 8), (3, 2, 11))
        first = [torch.randint(0, CARD, codes[0].shape, generator=draw) for codes in given["acoustic"]]
        given["acoustic"] = [torch.stack([c, rule[c], rule[rule[c]], c]) for c in first]
        stage.zero_grad()
        loss = stage.loss(given)["codes"]
        loss.backward()
        with torch.no_grad():
            for parameter in stage.parameters():
                parameter -= 1e-2 * parameter.grad.sign()
    assert loss.item() < 0.6


@pytest.mark.parametrize(
    "backbone, known",
    [
        (Transformer.Config(16, 1, 2, causal=False, adaptive=8), 1),
        (Transformer.Config(16, 1, 2), 1),
        (Transformer.Config(16, 1, 2, causal=False, adaptive=8, positions="none"), 4),
    ],
)
def test_what_it_cannot_work_with_is_refused(backbone, known):
    with pytest.raises(SlmError, match="NAR"):
        NAR.Config(backbone=backbone, known=known).build({"text": Stream(9), "acoustic": Stream(CARD, Q)})
