"""A text finds its own codes; a row is judged alone."""

import pytest
import torch
import torch.nn.functional as F

from slm.backbone.transformer import Transformer
from slm.errors import SlmError
from slm.stage.lm import Stream
from slm.stage.rerank import Rerank

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
