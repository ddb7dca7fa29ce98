"""Ways to tell a Transformer where its steps stand: the numbers of T5 and of the formulas, and where learned positions end.

B batch   S steps   D width   H heads
"""

import math

import pytest
import torch
from torch import Tensor, nn

from slm.backbone.positions import bucket, sinusoids, slopes
from slm.backbone.steps import steps
from slm.backbone.transformer import Transformer
from slm.errors import SlmError

DIM, HEADS = 32, 4


def lively(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.eval()


def close(a: Tensor, b: Tensor, atol: float = 1e-4) -> None:
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("causal", [True, False])
def test_a_layer_with_relative_positions_is_the_reference_t5(causal: bool) -> None:
    from transformers import T5Config
    from transformers.models.t5.modeling_t5 import T5Attention, T5LayerSelfAttention

    config = T5Config(d_model=DIM, d_kv=8, num_heads=HEADS, is_decoder=causal, layer_norm_epsilon=1e-5)
    layer = lively(T5LayerSelfAttention(config, has_relative_attention_bias=True, layer_idx=0))
    distance = torch.arange(-300, 301)
    assert torch.equal(bucket(distance, causal), T5Attention._relative_position_bucket(distance, not causal))
    ours = lively(Transformer.Config(DIM, 1, HEADS, causal=causal, positions="relative").build())
    own, block = layer.SelfAttention, ours.layers[0]
    q = own.q.weight * math.sqrt(8)  # T5 scales no scores
    block.attention.qkv.weight.copy_(torch.cat([q, own.k.weight, own.v.weight]))
    block.attention.out.weight.copy_(own.o.weight)
    block.norm1.weight.copy_(layer.layer_norm.weight)
    block.down.weight.zero_()  # the layer is its attention alone
    ours.positions.table.weight.copy_(own.relative_attention_bias.weight)
    x = torch.randn(2, 200, DIM)
    mask = torch.full((200, 200), -torch.inf).triu(1) if causal else torch.zeros(200, 200)
    want = ours.norm(layer(x, attention_mask=mask[None, None])[0])
    close(ours(x)[0], want)
    state, pieces = ours.start(2) if causal else None, []
    for piece in x.split([150, 1, 49], 1) if causal else []:
        y, state = ours(piece, state)
        pieces.append(y)
    close(torch.cat(pieces or [want], 1), want)


def test_sinusoids_are_the_paper_s() -> None:
    at = torch.tensor([[0, 1, 7], [500, 30_000, 3]])
    got = sinusoids(at, 10)
    for i in range(5):
        angle = at.double() / 10_000 ** (2 * i / 10)
        close(got[..., 2 * i].double(), angle.sin(), atol=1e-6)
        close(got[..., 2 * i + 1].double(), angle.cos(), atol=1e-6)


def test_slopes_are_the_paper_s() -> None:
    assert slopes(8).tolist() == [2.0**-i for i in range(1, 9)]
    assert slopes(1).tolist() == [2.0**-8]
    assert slopes(6).tolist() == pytest.approx([2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8, 2.0**-1, 2.0**-3])


def test_a_step_beyond_the_learned_positions_is_refused_by_name() -> None:
    model = lively(Transformer.Config(DIM, 1, HEADS, positions="learned", longest=16).build())
    x = torch.randn(2, 20, DIM)
    with pytest.raises(SlmError, match="step 17 is beyond the 16"):
        model(x[:, :17])
    _, state = model(x[:, :15], model.start(2))
    _, state = model(x[:, 15:16], state)
    with pytest.raises(SlmError, match="step 17 is beyond the 16"):
        model(x[:, 16:17], state)
    _, ragged = model(x[:, :16], model.start(2), lengths=torch.tensor([16, 9]))
    _, ragged = model(x[:, :7], ragged, lengths=torch.tensor([0, 7]))  # what lies beyond is padding
    with pytest.raises(SlmError, match="step 17"):
        model(x[:, :1], ragged, lengths=torch.tensor([0, 1]))
    model(x, documents=torch.tensor([0] * 12 + [1] * 8).expand(2, -1))  # each document starts afresh
    model(x, lengths=torch.tensor([16, 3]))


@torch.no_grad()
def test_without_positions_a_bidirectional_transformer_cannot_tell_the_order() -> None:
    x, order = torch.randn(2, 15, DIM), torch.randperm(15)
    for positions in ("none", "rope", "learned", "sinusoidal", "alibi", "relative"):
        model = lively(Transformer.Config(DIM, 2, HEADS, causal=False, positions=positions).build())
        apart = (model(x[:, order])[0] - model(x)[0][:, order]).abs().max()
        assert apart < 1e-4 if positions == "none" else apart > 1e-2


@torch.no_grad()
@pytest.mark.parametrize("positions", ["rope", "alibi", "relative"])
def test_only_the_distance_counts(positions: str) -> None:
    """A window of relative positions hears the same wherever it lies."""
    model = lively(Transformer.Config(DIM, 1, HEADS, positions=positions, window=6).build())
    x = torch.randn(2, 50, DIM)
    close(model(x)[0][:, 35:], model(x[:, 30:])[0][:, 5:])


@torch.no_grad()
@pytest.mark.parametrize("positions", ["rope", "sinusoidal"])
def test_steps_may_be_told_to_stand_anywhere(positions: str) -> None:
    model = lively(Transformer.Config(DIM, 2, HEADS, positions=positions).build())
    x = torch.randn(2, 9, DIM)
    in_a_row = torch.arange(9.0).expand(2, 9)
    close(model(x, at=in_a_row)[0], model(x)[0])
    elsewhere = torch.cat([torch.arange(5.0), torch.arange(4) * 0.25]) + torch.tensor([[0.0], [0.5]])
    want = model(x, at=elsewhere)[0]
    assert (want - model(x)[0]).abs().max() > 0.01
    if positions == "rope":  # only how far apart they stand matters
        close(model(x, at=elsewhere + 3.5)[0], want)
    state = model.start(2)
    first, state = model(x[:, :6], state, at=elsewhere[:, :6])
    quick, other = steps(model), model.start(2)
    _, other = model(x[:, :6], other, at=elsewhere[:, :6])
    said = [first]
    for i in range(6, 9):
        said.append(model.step(x[:, i], state, at=elsewhere[:, i])[:, None])
        close(quick(x[:, i], other, at=elsewhere[:, i])[:, None], said[-1])
    close(torch.cat(said, 1), want)
    state, pieces = model.start(2), []
    for piece, places in zip(x.split([4, 3, 2], 1), elsewhere.split([4, 3, 2], 1)):
        y, state = model(piece, state, at=places)
        pieces.append(y)
    close(torch.cat(pieces, 1), want)


@pytest.mark.parametrize("positions", ["learned", "alibi", "relative", "none"])
def test_where_places_are_counted_or_compared_no_step_stands_elsewhere(positions: str) -> None:
    model, x = Transformer.Config(DIM, 1, HEADS, positions=positions).build(), torch.randn(1, 3, DIM)
    with pytest.raises(SlmError, match=positions):
        model(x, at=torch.zeros(1, 3))
    with pytest.raises(SlmError, match=positions):
        model.step(x[:, 0], model.start(1), at=torch.zeros(1))
