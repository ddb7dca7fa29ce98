"""A step at a time, written in place, looked up beforehand or not: the values of `forward`, whatever the form and the rows.

B batch   S steps   D width
"""

import copy

import pytest
import torch
from torch import Tensor, nn

from slm.backbone.mamba2 import Mamba2
from slm.backbone.quantize import Float16Linear, float16, int8
from slm.backbone.state import fork, leaves
from slm.backbone.steps import columns, steps
from slm.backbone.transformer import Transformer
from slm.errors import SlmError

DIM = 16
LLAMA = {
    "llama": Transformer.Config(DIM, 2, 4),
    "grouped": Transformer.Config(DIM, 2, 4, kv_heads=2),
    "qwen": Transformer.Config(DIM, 2, 4, qkv_bias=True, qk_norm=True, head_dim=6, eps=1e-6),
    "none": Transformer.Config(DIM, 2, 4, positions="none"),
}
MAMBA = {
    "mamba2": Mamba2.Config(DIM, 2, headdim=8, d_state=4, chunk=16),
    "mamba2-groups": Mamba2.Config(DIM, 2, headdim=8, d_state=4, groups=2, chunk=16),
}
OTHERS = {
    "gpt2": Transformer.Config(DIM, 2, 4, form="gpt2", positions="learned", longest=200),
    "bert": Transformer.Config(DIM, 2, 4, form="bert", positions="sinusoidal"),
    "alibi": Transformer.Config(DIM, 2, 4, kv_heads=2, positions="alibi"),
    "relative": Transformer.Config(DIM, 2, 4, positions="relative"),
    "window": Transformer.Config(DIM, 2, 4, window=9),
    "adaptive": Transformer.Config(DIM, 2, 4, adaptive=5),
    "memory": Transformer.Config(DIM, 2, 4, memory=7),
}
ALL = LLAMA | MAMBA | OTHERS


def lively(name: str) -> nn.Module:
    """Weights large enough that every path matters, and norms and biases that are neither 1 nor 0."""
    torch.manual_seed(0)
    built = ALL[name].build().eval()
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.4) if parameter.dim() >= 2 else nn.init.uniform_(parameter, 0.5, 1.5)
    return built


def close(a: Tensor, b: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


def told(backbone: nn.Module) -> tuple[dict, dict]:
    """What `start` is given, and what `forward` is besides."""
    dtype, config = next(backbone.parameters()).dtype, backbone.config
    begin = {"capacity": 24} if isinstance(backbone, Transformer) else {}
    if getattr(config, "memory", 0):
        begin |= {"memory": torch.randn(3, 5, 7, dtype=dtype), "memory_lengths": torch.tensor([5, 0, 2])}
    return begin, {"cond": torch.randn(3, 5, dtype=dtype)} if getattr(config, "adaptive", 0) else {}


@torch.no_grad()
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("dtype, atol", [(torch.float64, 1e-12), (torch.float32, 3e-5)])
@pytest.mark.parametrize("name, ahead", [(name, False) for name in ALL] + [(name, True) for name in LLAMA | MAMBA])
def test_a_step_in_place_is_a_step_of_forward(name: str, dtype: torch.dtype, atol: float, ahead: bool, ragged: bool) -> None:
    backbone = lively(name).to(dtype)
    x, (begin, cond) = torch.randn(3, 50, DIM).to(dtype), told(backbone)
    _, state = backbone(x[:, :20], backbone.start(3, **begin), torch.tensor([20, 3, 11]) if ragged else None, **cond)
    own, step = fork(state), steps(backbone) if ahead else backbone.step
    for t in range(20, 45):  # beyond the steps that there is room for at first
        y, state = backbone(x[:, t : t + 1], state, **cond)
        close(step(x[:, t], own, **cond), y[:, 0], atol)
    for (_, a, _), (_, b, _) in zip(leaves(own), leaves(state), strict=True):
        close(a, b, atol)
    close(backbone(x[:, 45:], own, **cond)[0], backbone(x[:, 45:], state, **cond)[0], atol)


@torch.no_grad()
@pytest.mark.parametrize("name", [*LLAMA, *MAMBA])
def test_steps_in_bf16_and_under_autocast_are_near_those_in_float32(name: str) -> None:
    backbone, x = lively(name), torch.randn(2, 12, DIM)
    exact, half = backbone(x)[0], copy.deepcopy(backbone).bfloat16()

    def stepped(backbone: nn.Module, x: Tensor) -> Tensor:
        step, state = steps(backbone), backbone.start(2)
        return torch.stack([step(row, state) for row in x.unbind(1)], 1)

    got = [stepped(half, x.bfloat16())]
    assert got[0].dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        got.append(stepped(backbone, x))
    for y in got:
        assert 0 < (y - exact).norm() < 0.1 * exact.norm()


@torch.no_grad()
@pytest.mark.parametrize("packed, most", [(float16, 2e-3), (int8, 0.05)])
@pytest.mark.parametrize(
    "config", [Mamba2.Config(64, 2, headdim=16, d_state=8), Transformer.Config(64, 2, 4)], ids=["mamba2", "transformer"]
)
def test_steps_read_packed_weights(config: Mamba2.Config | Transformer.Config, packed, most: float) -> None:
    torch.manual_seed(0)
    exact = config.build().eval()
    for parameter in exact.parameters():
        if parameter.dim() == 2:
            nn.init.normal_(parameter, std=64**-0.5)
    small = packed(copy.deepcopy(exact))
    assert not any(isinstance(m, nn.Linear) for m in small.modules())
    x, state, other = torch.randn(1, 12, 64), exact.start(1), small.start(1)
    want, got, again = exact(x)[0], steps(small), small(x)[0]
    y = torch.stack([got(row, other) for row in x.unbind(1)], 1)
    assert 0 < (y - want).norm() / want.norm() < most
    assert (y - again).norm() / want.norm() < most
    close(torch.stack([steps(exact)(row, state) for row in x.unbind(1)], 1), want)


@torch.no_grad()
@pytest.mark.parametrize("bias", [False, True])
def test_a_weight_in_float16_is_off_by_its_rounding_alone(bias: bool) -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(100, 37, bias=bias), torch.randn(2, 9, 100)
    packed = float16(nn.Sequential(layer))[0]
    assert isinstance(packed, Float16Linear)
    close(packed(x), nn.functional.linear(x, layer.weight.half().float(), layer.bias))
    assert packed(x.bfloat16()).dtype == torch.bfloat16
    layer.weight[3, 5] = 1e5
    with pytest.raises(SlmError, match="beyond float16"):
        float16(nn.Sequential(layer))


@torch.no_grad()
def test_columns_move_weights_and_change_nothing_else() -> None:
    backbone, x = lively("llama"), torch.randn(2, 30, DIM)
    want, before = backbone(x)[0], {name: weight.clone() for name, weight in backbone.state_dict().items()}
    assert columns(backbone) is backbone
    moved = [name for name, weight in backbone.state_dict().items() if not weight.is_contiguous()]
    assert sorted(moved) == [f"layers.{i}.{name}.weight" for i in range(2) for name in ("attention.out", "attention.qkv", "gate_up")]
    for name, weight in backbone.state_dict().items():
        assert torch.equal(weight, before[name])
    close(backbone(x)[0], want)
    half = columns(lively("llama").bfloat16())
    assert all(weight.is_contiguous() for weight in half.state_dict().values())


def test_what_has_no_faster_way_steps_by_itself() -> None:
    for name in OTHERS:
        backbone = lively(name)
        assert steps(backbone) == backbone.step
    for name in LLAMA | MAMBA:
        backbone = lively(name)
        assert steps(backbone) != backbone.step


def test_a_transformer_that_sees_the_future_cannot_step() -> None:
    state = Transformer.Config(DIM, 1, 4).build().start(1)
    with pytest.raises(SlmError, match="future"):
        Transformer.Config(DIM, 1, 4, causal=False).build().step(torch.zeros(1, DIM), state)
    with pytest.raises(SlmError, match="no conditioning vector"):
        Transformer.Config(DIM, 1, 4, adaptive=3).build().step(torch.zeros(1, DIM), state)
