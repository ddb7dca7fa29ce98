"""Contracts of the backbones: run at once == in chunks == step by step, rows and packed documents keep to themselves.

B batch   S steps   D width
"""
import math

import pytest
import torch
from torch import Tensor, nn

from slm.backbone.mamba2 import Mamba2
from slm.backbone.ssd import runs, ssd_chunked, ssd_quadratic, ssd_step
from slm.backbone.transformer import Transformer
from slm.errors import SlmError
from slm.nn.norm import RMSNorm

DIM = 16
CONFIGS = {
    "transformer": Transformer.Config(DIM, depth=2, heads=4),
    "transformer-gqa": Transformer.Config(DIM, depth=2, heads=4, kv_heads=2),
    "mamba2": Mamba2.Config(DIM, depth=2, headdim=8, d_state=4, chunk=16),
    "mamba2-groups": Mamba2.Config(DIM, depth=2, headdim=8, d_state=4, groups=2, chunk=16),
}


def lively(module: nn.Module) -> nn.Module:
    """Weights large enough that every path matters; at 0.02 a broken mixer would hide below the tolerance."""
    for parameter in module.parameters():
        if parameter.dim() >= 2:
            nn.init.normal_(parameter, std=0.4)
    return module.eval()


@pytest.fixture(params=CONFIGS)
def backbone(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return lively(CONFIGS[request.param].build())


def close(a: Tensor, b: Tensor, atol: float = 1e-4) -> None:
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("chunk", [1, 7, 64])
@pytest.mark.parametrize("prefix", [0, 5, 70])
def test_a_backbone_run_in_chunks_is_the_backbone_run_at_once(backbone: nn.Module, chunk: int, prefix: int) -> None:
    x = torch.randn(2, 150, DIM)
    whole, none = backbone(x)
    assert none is None
    state, pieces = backbone.start(2), []
    for piece in [x[:, :prefix]] * (prefix > 0) + list(x[:, prefix:].split(chunk, 1)):
        y, state = backbone(piece, state)
        pieces.append(y)
    close(torch.cat(pieces, 1), whole)


@torch.no_grad()
def test_a_ragged_batch_is_each_row_alone(backbone: nn.Module) -> None:
    calls = [torch.tensor([3, 0, 40, 1]), torch.tensor([20, 2, 0, 9]), torch.tensor([1, 1, 1, 1]), torch.tensor([1, 1, 1, 1]),
             torch.tensor([6, 66, 6, 2])]
    rows = [torch.randn(int(sum(c[b] for c in calls)), DIM) for b in range(4)]
    alone = [backbone(row[None])[0][0] for row in rows]
    state, seen = backbone.start(4), torch.zeros(4, dtype=torch.long)
    for lengths in calls:
        x = 100 * torch.randn(4, int(lengths.max()), DIM)                 # loud padding: a leak cannot hide
        for b, n in enumerate(lengths.tolist()):
            x[b, :n] = rows[b][seen[b] : seen[b] + n]
        full = bool((lengths == x.shape[1]).all())
        y, state = backbone(x, state, lengths=None if full else lengths)
        assert y.isfinite().all()
        for b, n in enumerate(lengths.tolist()):
            close(y[b, :n], alone[b][seen[b] : seen[b] + n])
        seen += lengths


@torch.no_grad()
def test_padding_without_a_state_changes_no_real_step(backbone: nn.Module) -> None:
    x, lengths = torch.randn(2, 40, DIM), torch.tensor([40, 11])
    y, _ = backbone(x, lengths=lengths)
    close(y[1, :11], backbone(x[1:, :11])[0][0])


@torch.no_grad()
def test_a_state_can_be_forked_reordered_and_batched(backbone: nn.Module) -> None:
    x, tails = torch.randn(3, 20, DIM), torch.randn(4, 9, DIM)
    _, state = backbone(x, backbone.start(3), lengths=torch.tensor([20, 12, 20]))
    rows = torch.tensor([2, 0, 0, 1])
    fork = state.index(rows)
    want = [backbone(torch.cat([x[r, : (20, 12, 20)[r]], tail])[None])[0][0, -9:] for r, tail in zip(rows.tolist(), tails)]
    y, fork = backbone(tails, fork)
    close(y, torch.stack(want))
    y, _ = backbone(tails[1:2], state.index(torch.tensor([0])))          # the fork left its parent as it was
    close(y[0], want[1])
    single = [state.index(torch.tensor([r])) for r in (2, 0, 0)]
    fresh = backbone(torch.randn(1, 90, DIM), backbone.start(1))[1]       # a state of another length and capacity
    y, _ = backbone(torch.cat([tails[:3], tails[:1]]), type(state).cat([*single, fresh]))
    close(y[:3], torch.stack(want[:3]))


@torch.no_grad()
def test_the_future_does_not_change_the_past(backbone: nn.Module) -> None:
    x = torch.randn(2, 60, DIM)
    changed = x.clone()
    changed[:, 33:] = torch.randn(2, 27, DIM)
    a, b = backbone(x)[0], backbone(changed)[0]
    close(a[:, :33], b[:, :33], atol=1e-6)
    assert (a[:, 33] - b[:, 33]).abs().max() > 1e-2


@torch.no_grad()
def test_every_step_hears_the_first(backbone: nn.Module) -> None:
    x = torch.randn(1, 40, DIM)
    changed = x.clone()
    changed[:, 0] += 1
    assert ((backbone(x)[0] - backbone(changed)[0]).abs().amax(-1) > 1e-6).all()


BOUNDS = (0, 5, 6, 40, 75)


def packed() -> tuple[Tensor, Tensor]:
    """x [2,75,D] and documents [2,75]; ids fall and come back, a boundary inside chunks, a document of one step."""
    documents = torch.cat([torch.full((end - begin,), number) for begin, end, number in zip(BOUNDS, BOUNDS[1:], (7, 2, 3, 7))])
    return torch.randn(2, 75, DIM), documents.expand(2, -1)


@torch.no_grad()
def test_a_packed_document_is_the_document_alone(backbone: nn.Module) -> None:
    x, documents = packed()
    y, _ = backbone(x, documents=documents)
    for begin, end in zip(BOUNDS, BOUNDS[1:]):
        close(y[:, begin:end], backbone(x[:, begin:end])[0])


def test_a_packed_document_hears_nothing_of_the_others_bit_for_bit(backbone: nn.Module) -> None:
    x, documents = packed()
    for begin, end in zip(BOUNDS, BOUNDS[1:]):
        other = 10 * torch.randn_like(x)
        other[:, begin:end] = x[:, begin:end]
        x.requires_grad_()
        y = backbone(x, documents=documents)[0][:, begin:end]
        assert torch.equal(y, backbone(other, documents=documents)[0][:, begin:end])
        (grad,) = torch.autograd.grad(y.square().sum(), x)
        assert not grad[:, :begin].any() and not grad[:, end:].any() and grad[:, begin:end].any()
        x = x.detach()


def test_a_model_in_bf16_runs_with_and_without_a_state(backbone: nn.Module) -> None:
    x = torch.randn(2, 12, DIM)
    exact, _ = backbone(x)
    backbone.bfloat16()
    state, pieces = backbone.start(2), []
    with torch.no_grad():
        for piece in x.bfloat16().split([8, 1, 3], 1):
            y, state = backbone(piece, state)
            pieces.append(y)
        for y in (torch.cat(pieces, 1), backbone(x.bfloat16())[0]):
            assert y.dtype == torch.bfloat16
            assert (y - exact).square().mean().sqrt() < 0.1 * exact.square().mean().sqrt()


def test_documents_and_a_state_exclude_each_other(backbone: nn.Module) -> None:
    x, documents = packed()
    with pytest.raises(SlmError, match="documents"):
        backbone(x, backbone.start(2), documents=documents)


def test_bf16_autocast_stays_finite_and_near_float32(backbone: nn.Module) -> None:
    x = torch.randn(2, 70, DIM)
    exact, _ = backbone(x)
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = backbone(x)
        y.float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in backbone.parameters())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        state, pieces = backbone.start(2), []
        for piece in x.split([40, 1, 1, 28], 1):
            z, state = backbone(piece, state)
            pieces.append(z)
    for z in (y, torch.cat(pieces, 1)):
        assert (z - exact).square().mean().sqrt() < 0.1 * exact.square().mean().sqrt()


def test_every_parameter_is_trained(backbone: nn.Module) -> None:
    backbone(torch.randn(2, 20, DIM))[0][..., 0].sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in backbone.parameters())


@pytest.mark.parametrize("dtype, atol", [(torch.float32, 1e-6), (torch.bfloat16, 0.04)])
def test_a_norm_is_the_same_with_and_without_gradients(dtype: torch.dtype, atol: float) -> None:
    norm = RMSNorm(64, eps=0.1)
    nn.init.normal_(norm.weight)
    x = torch.randn(5, 64).to(dtype)
    trained = norm(x)
    want = x.float() / (x.float().square().mean(-1, keepdim=True) + 0.1).sqrt() * norm.weight
    with torch.no_grad():
        fused = norm(x)
    assert trained.dtype == fused.dtype == dtype
    close(trained.float(), want, atol)
    close(fused.float(), want, atol)


def test_output_projections_start_smaller_the_deeper_the_stack() -> None:
    for config, name in ((Transformer.Config(128, 8, 4), "attention.out"), (Mamba2.Config(128, 8), "mixer.out_proj")):
        weight = config.build().get_parameter(f"layers.3.{name}.weight")
        assert weight.std().item() == pytest.approx(0.02 / math.sqrt(16), rel=0.1)


@torch.no_grad()
def test_a_bidirectional_transformer_sees_both_ways_and_no_padding() -> None:
    model = lively(Transformer.Config(DIM, 2, 4, causal=False).build())
    x, lengths = torch.randn(2, 30, DIM), torch.tensor([30, 12])
    y, state = model(x, lengths=lengths)
    close(y[1, :12], model(x[1:, :12])[0][0])
    assert state is None and y.isfinite().all()
    changed = x.clone()
    changed[:, -1] += 1
    assert (model(changed)[0][:, 0] - model(x)[0][:, 0]).abs().max() > 1e-3
    with pytest.raises(SlmError, match="future"):
        model.start(1)


@torch.no_grad()
def test_a_bidirectional_transformer_keeps_packed_documents_apart() -> None:
    model = lively(Transformer.Config(DIM, 2, 4, causal=False).build())
    x, documents = packed()
    y, _ = model(x, documents=documents, lengths=torch.tensor([75, 60]))
    close(y[0, 40:75], model(x[:1, 40:75])[0][0])
    close(y[1, 40:60], model(x[1:, 40:60])[0][0])
    assert y.isfinite().all()


@torch.no_grad()
def test_a_condition_starts_silent_and_may_change_by_the_step() -> None:
    torch.manual_seed(0)
    plain = Transformer.Config(DIM, 2, 4).build()
    model = Transformer.Config(DIM, 2, 4, adaptive=6).build()
    model.load_state_dict(plain.state_dict(), strict=False)
    x, cond = torch.randn(2, 9, DIM), torch.randn(2, 6)
    close(model(x, cond=cond)[0], plain(x)[0], atol=1e-6)
    lively(model)
    y, _ = model(x, cond=cond)
    close(y, model(x, cond=cond[:, None].expand(-1, 9, -1))[0])
    assert (y - model(x, cond=cond.flip(0))[0]).abs().max() > 1e-2
    with pytest.raises(SlmError, match="conditioning"):
        model(x)


def ssd_inputs(steps: int) -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    x, dt = torch.randn(2, steps, 4, 3), torch.rand(2, steps, 4) + 0.01
    inputs = (x, dt, -torch.rand(4) - 0.2, torch.randn(2, steps, 2, 5), torch.randn(2, steps, 2, 5))
    return tuple(t.double().requires_grad_() for t in inputs)


def naive(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The definition, one step and one head at a time; two heads share a group."""
    rows = []
    for head in range(4):
        h, y = torch.zeros(2, 3, 5, dtype=x.dtype), []
        for t in range(x.shape[1]):
            h = h * (dt[:, t, head] * A[head]).exp()[:, None, None] + dt[:, t, head, None, None] * torch.einsum(
                "bp,bn->bpn", x[:, t, head], B[:, t, head // 2])
            y.append(torch.einsum("bpn,bn->bp", h, C[:, t, head // 2]))
        rows.append(torch.stack(y, 1))
    return torch.stack(rows, 2)


@pytest.mark.parametrize("chunk", [1, 7, 16, 64])
def test_chunked_quadratic_and_naive_ssd_agree_in_values_and_gradients(chunk: int) -> None:
    inputs = ssd_inputs(37)
    weight = torch.randn(2, 37, 4, 3, dtype=torch.float64)
    want = naive(*inputs)
    want_grads = torch.autograd.grad((want * weight).sum(), inputs)
    for got in (ssd_chunked(*inputs, chunk=chunk)[0], ssd_quadratic(*inputs)):
        close(got, want, atol=1e-10)
        for a, b in zip(torch.autograd.grad((got * weight).sum(), inputs), want_grads):
            close(a, b, atol=1e-9)


def test_chunked_ssd_passes_gradcheck_with_a_state_and_with_runs() -> None:
    inputs, state = ssd_inputs(5), torch.randn(2, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    run = runs(torch.tensor([[1, 1, 1, 0, 0], [3, 2, 2, 2, 2]]))
    assert torch.autograd.gradcheck(lambda *t: ssd_chunked(*t[:5], chunk=2, state=t[5]), (*inputs, state), fast_mode=True)
    assert torch.autograd.gradcheck(lambda *t: ssd_chunked(*t, chunk=2, run=run), inputs, fast_mode=True)


@torch.no_grad()
def test_stepped_ssd_is_chunked_ssd_from_any_state() -> None:
    x, dt, A, B, C = ssd_inputs(11)
    start = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    want, after = ssd_chunked(x, dt, A, B, C, chunk=4, state=start)
    h, state = [], start
    for t in range(11):
        y, state = ssd_step(x[:, t], dt[:, t], A, B[:, t], C[:, t], state)
        h.append(y)
    close(torch.stack(h, 1), want, atol=1e-10)
    close(state, after, atol=1e-10)


@torch.no_grad()
def test_a_step_of_no_duration_leaves_the_state_bit_for_bit() -> None:
    x, dt, A, B, C = (t.float() for t in ssd_inputs(9))
    start = torch.randn(2, 4, 3, 5)
    _, after = ssd_chunked(x, torch.zeros_like(dt), A, B, C, chunk=4, state=start)
    assert torch.equal(after, start)


@pytest.mark.parametrize("packed", [False, True])
def test_ssd_survives_decays_that_underflow(packed: bool) -> None:
    x, dt, A, B, C = (t.detach().float().requires_grad_() for t in ssd_inputs(40))
    run = torch.arange(40).div(7, rounding_mode="floor").expand(2, -1) if packed else None
    y, _ = ssd_chunked(x, dt * 1000, A * 16, B, C, chunk=16, run=run)
    assert all(g.isfinite().all() for g in (y, *torch.autograd.grad(y.sum(), (x, dt, A, B, C))))


def test_mamba2_starts_in_the_published_ranges() -> None:
    mixer = Mamba2.Config(512, 1, headdim=4).build().layers[0].mixer
    dt, A = nn.functional.softplus(mixer.dt_bias), mixer.A_log.exp()
    assert 0.99e-3 <= dt.min() < 2e-3 and 0.05 < dt.max() <= 0.101
    assert 1 <= A.min() < 2 and 15 < A.max() <= 16.001


@torch.no_grad()
def test_mamba2_is_the_reference_mamba2() -> None:
    from transformers import Mamba2Config, Mamba2ForCausalLM

    torch.manual_seed(0)
    reference = lively(Mamba2ForCausalLM(Mamba2Config(
        vocab_size=11, hidden_size=32, num_heads=4, head_dim=16, state_size=8, n_groups=2, expand=2, conv_kernel=4, chunk_size=16,
        num_hidden_layers=2, layer_norm_epsilon=1e-5)))
    for name, parameter in reference.named_parameters():
        if name.endswith(("dt_bias", "A_log", ".D", "conv1d.bias", "norm.weight")):
            parameter.add_(0.3 * torch.randn_like(parameter))
    ours = Mamba2.Config(32, 2, headdim=16, d_state=8, groups=2, chunk=8).build().eval()
    weights = reference.backbone.state_dict()
    ours.load_state_dict({name: weights[name] for name in ours.state_dict()})
    x = torch.randn(2, 45, 32)
    close(ours(x)[0], reference.backbone(inputs_embeds=x).last_hidden_state)


@torch.no_grad()
def test_transformer_is_the_reference_llama() -> None:
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(0)
    reference = lively(LlamaModel(LlamaConfig(
        vocab_size=11, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        rms_norm_eps=1e-5)))
    ours = Transformer.Config(32, 2, heads=4, kv_heads=2, mlp=64).build().eval()
    for a, b in zip(ours.layers, reference.layers):
        b.input_layernorm.weight.add_(0.3 * torch.randn(32))
        b.post_attention_layernorm.weight.add_(0.3 * torch.randn(32))
        a.norm1.weight.copy_(b.input_layernorm.weight)
        a.norm2.weight.copy_(b.post_attention_layernorm.weight)
        attention, mlp = b.self_attn, b.mlp
        a.attention.qkv.weight.copy_(torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]))
        a.attention.out.weight.copy_(attention.o_proj.weight)
        a.gate_up.weight.copy_(torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]))
        a.down.weight.copy_(mlp.down_proj.weight)
    x = torch.randn(2, 45, 32)
    close(ours(x)[0], reference(inputs_embeds=x).last_hidden_state)
