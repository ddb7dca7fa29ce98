"""A text finds its own codes; a row is judged alone; of several readings the one is kept that fits best."""

import pytest
import torch
import torch.nn.functional as F

from slm.backbone.transformer import Transformer
from slm.errors import SlmError
from slm.stage.best import best, chosen, fits, readings
from slm.stage.lm import LM, Stream
from slm.stage.rerank import Rerank
from slm.stream.part import Part
from slm.stream.sample import Sampling
from slm.study.tortoise import word_errors

STREAMS = {"text": Stream(12), "semantic": Stream(20)}


@pytest.fixture
def ranker() -> Rerank:
    torch.manual_seed(0)
    return Rerank.Config(dim=16, backbone=Transformer.Config(16, 1, 2, causal=False)).build(STREAMS)


def batch(rows: int, seed: int = 0) -> dict:
    """Codes that say their text: each id three times, eight higher."""
    draw = torch.Generator().manual_seed(seed)
    texts = [torch.randint(12, (int(torch.randint(3, 9, (), generator=draw)),), generator=draw) for _ in range(rows)]
    return {"text": texts, "semantic": [(text + 8).repeat_interleave(3)[None] for text in texts]}


def test_the_loss_is_the_cross_entropy_both_ways(ranker):
    ranker.eval()
    rows = batch(5)
    texts, codes = ranker.vectors(rows)
    cosines = torch.stack([torch.stack([t @ c for c in codes]) for t in texts]) * ranker.scale.exp()
    wanted = sum(-cosines.log_softmax(dim)[i, i] for dim in (0, 1) for i in range(5)) / 10
    assert torch.allclose(ranker.loss(rows)["match"], wanted, atol=1e-5)


def test_a_row_is_judged_alone(ranker):
    ranker.eval()
    rows = batch(4)
    together = ranker.run(rows)["fit"]
    for i in range(4):
        alone = ranker.run({name: [column[i]] for name, column in rows.items()})["fit"]
        assert torch.allclose(alone[0], together[i], atol=1e-5)


def test_it_learns_to_find_the_codes_of_a_text_it_has_not_seen(ranker):
    optimiser = torch.optim.Adam(ranker.parameters(), 3e-3)
    for step in range(120):
        torch.manual_seed(step)
        optimiser.zero_grad()
        ranker.loss(batch(16, step))["match"].backward()
        optimiser.step()
    ranker.eval()
    unseen = batch(16, 10_000)
    texts, codes = ranker.vectors(unseen)
    found = (texts @ codes.T).argmax(1)
    assert (found == torch.arange(16)).float().mean() > 0.6, "by chance it is 1/16"
    spoiled = unseen | {"semantic": unseen["semantic"][1:] + unseen["semantic"][:1]}
    assert (ranker.run(unseen)["fit"] > ranker.run(spoiled)["fit"]).float().mean() > 0.9


def test_what_cannot_be_ranked_is_refused(ranker):
    with pytest.raises(SlmError, match="at least two"):
        ranker.loss(batch(1))
    with pytest.raises(SlmError, match="causal=False"):
        Rerank.Config(backbone=Transformer.Config(16, 1, 2)).build(STREAMS)
    assert F.cosine_similarity(*ranker.eval().vectors(batch(2)), dim=-1).abs().max() <= 1 + 1e-6


@pytest.fixture
def reader() -> LM:
    torch.manual_seed(1)
    parts = [Part("text", learn=False), Part("semantic", end=True)]
    stage = LM.Config(parts, Transformer.Config(16, 1, 2), sampling={"semantic": Sampling(1.0, top_p=1.0)}, cap=3.0).build(STREAMS)
    with torch.no_grad():
        stage.head.bias[stage.vocabulary.eos] = 1.0  # some readings end before the cap, and some do not
    return stage.eval()


def test_the_best_of_several_is_the_one_with_the_highest_fit_that_has_an_end(reader, ranker):
    ranker.eval()
    texts, seeds = {"text": batch(5)["text"]}, [3, 4, 5, 6, 7]
    said = readings(reader, texts, seeds, 8)
    taken = best(reader, ranker, texts, seeds, 8)
    ends = [[one["stop"][b] == "end" and len(one["semantic"][b]) > 0 for one in said] for b in range(5)]
    assert 0 < sum(map(sum, ends)) < 40, "otherwise nothing is discarded here, or all"
    for b in range(5):
        alone = [ranker.run({"text": [texts["text"][b]], "semantic": [one["semantic"][b]]})["fit"] if ends[b][k] else None
                 for k, one in enumerate(said)]  # fmt: skip
        wanted = max((k for k in range(8) if ends[b][k]), key=lambda k: float(alone[k]))
        assert torch.equal(taken["semantic"][b], said[wanted]["semantic"][b]) and taken["stop"][b] == "end"
        assert taken["discarded"][b] == 8 - sum(ends[b])
        assert [bool(fit.isinf()) for fit in taken["fits"][b]] == [not end for end in ends[b]]


def test_the_best_of_a_row_does_not_depend_on_other_rows_and_more_readings_keep_the_first(reader, ranker):
    ranker.eval()
    texts, seeds = {"text": batch(4)["text"]}, [9, 2, 5, 1]
    together = best(reader, ranker, texts, seeds, 4)
    for b in range(4):
        alone = best(reader, ranker, {"text": [texts["text"][b]]}, [seeds[b]], 4)
        assert torch.equal(alone["semantic"][0], together["semantic"][b]) and alone["discarded"][0] == together["discarded"][b]
        assert torch.allclose(alone["fits"][0], together["fits"][b], atol=1e-5)
    fewer = best(reader, ranker, texts, seeds, 2)
    assert all(torch.allclose(a, b[:2], atol=1e-5) for a, b in zip(fewer["fits"], together["fits"]))
    assert len({tuple(row.tolist()) for one in readings(reader, texts, seeds, 4) for row in one["semantic"]}) > 4, "readings differ"


def test_where_no_reading_has_an_end_the_first_is_kept_and_says_so(reader, ranker):
    with torch.no_grad():
        reader.head.bias[reader.vocabulary.eos] = -1e4
    texts = {"text": batch(2)["text"]}
    taken = best(reader, ranker.eval(), texts, [0, 1], 3)
    first = readings(reader, texts, [0, 1], 1)[0]
    assert taken["discarded"] == [3, 3] and set(taken["stop"]) <= {"length", "loop"}
    assert all(torch.equal(a, b) for a, b in zip(taken["semantic"], first["semantic"]))
    with pytest.raises(SlmError, match="0 readings"):
        readings(reader, texts, [0, 1], 0)


def test_readings_that_hold_nothing_are_discarded(ranker):
    one = {"text": batch(2)["text"], "semantic": [torch.arange(4), torch.tensor([], dtype=torch.long)], "stop": ["end", "end"]}
    found = fits(ranker.eval(), [one, one])
    assert found.isinf().tolist() == [[False, False], [True, True]]
    assert chosen([one, one | {"stop": ["end", "length"]}], [0, 1])["stop"] == ["end", "length"]


def test_word_errors_by_who_chose_are_counted_by_hand():
    heard = [["a cat sat", "the cat sat", "the dog ran"], ["go", "go on home", "go on on"]]
    fit, kept = torch.tensor([[0.1, 0.9, 0.2], [-torch.inf, 0.1, 0.8]]), torch.tensor([[True, True, True], [False, True, True]])
    found = {name: figure.value for name, figure in word_errors(["the cat sat", "go on home"], heard, fit, kept).items()}
    assert found["word errors, first"] == pytest.approx((1 + 2) / 6)
    assert found["word errors, best by fit"] == pytest.approx((0 + 1) / 6)
    assert found["word errors, best of all"] == 0
    assert found["word errors, a random one"] == pytest.approx(((1 + 0 + 2) / 3 + (0 + 1) / 2) / 6)
    assert found["word errors, another's text"] == 1 and found["discarded"] == pytest.approx(1 / 6)
