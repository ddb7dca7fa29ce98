"""State space duality in all its forms, and Mamba-2 around it, which gives the numbers of the reference implementation.

B batch   S steps   H heads   P head width   N state width
"""

import pytest
import torch
from torch import Tensor, nn

from slm.backbone.mamba2 import Mamba2
from slm.backbone.ssd import runs, ssd_chunked, ssd_quadratic, ssd_step


def close(a: Tensor, b: Tensor, atol: float = 1e-4) -> None:
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


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
                "bp,bn->bpn", x[:, t, head], B[:, t, head // 2]
            )
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
    sizes = {"hidden_size": 32, "num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 2, "chunk_size": 16, "num_hidden_layers": 2}
    reference = Mamba2ForCausalLM(Mamba2Config(vocab_size=11, expand=2, conv_kernel=4, layer_norm_epsilon=1e-5, **sizes)).eval()
    for parameter in reference.parameters():
        if parameter.dim() >= 2:
            nn.init.normal_(parameter, std=0.4)
    for name, parameter in reference.named_parameters():
        if name.endswith(("dt_bias", "A_log", ".D", "conv1d.bias", "norm.weight")):
            parameter.add_(0.3 * torch.randn_like(parameter))
    ours = Mamba2.Config(32, 2, headdim=16, d_state=8, groups=2, chunk=8).build().eval()
    weights = reference.backbone.state_dict()
    ours.load_state_dict({name: weights[name] for name in ours.state_dict()})
    x = torch.randn(2, 45, 32)
    close(ours(x)[0], reference.backbone(inputs_embeds=x).last_hidden_state)
