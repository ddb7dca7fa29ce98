"""`slm bench mamba2 | transformer | long`: what is compared agrees, and what became fast for it gives the same values.

No test here asserts a time. B batch   S steps   D width   V vocabulary
"""

import copy
import json

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from slm.backbone import mamba2
from slm.backbone.convolve import tail
from slm.backbone.mamba2 import Mamba2
from slm.backbone.quantize import ROWS, Int8Linear, int8
from slm.backbone.ssd import ssd_advance, ssd_step
from slm.backbone.state import fork, leaves
from slm.backbone.transformer import Transformer
from slm.bench import backbones
from slm.bench.backbones import LM, Steps, near
from slm.bench.long import Curve, long, plot, size
from slm.bench.run import Limits, Phase, least
from slm.cli import app

DIM = 16
MAMBA = Mamba2.Config(DIM, depth=2, headdim=8, d_state=4, chunk=16)
GROUPS = Mamba2.Config(DIM, depth=2, headdim=8, d_state=4, groups=2, chunk=16)
LIMITS = Limits(fp32=100.0, bf16=200.0, cache=50.0, memory=10.0)


def lively(config: Mamba2.Config | Transformer.Config, std: float = 0.4) -> nn.Module:
    """Weights large enough that every path matters."""
    torch.manual_seed(0)
    built = config.build().eval()
    for parameter in built.parameters():
        if parameter.dim() >= 2:
            nn.init.normal_(parameter, std=std)
    return built


def close(a: Tensor, b: Tensor, atol: float = 1e-5) -> None:
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("config", [MAMBA, GROUPS])
@pytest.mark.parametrize("dtype, atol", [(torch.float64, 1e-12), (torch.float32, 2e-5), (torch.bfloat16, 0.3)])
def test_a_state_written_in_place_is_the_state_made_anew(config: Mamba2.Config, dtype: torch.dtype, atol: float) -> None:
    backbone, x = lively(config).to(dtype), torch.randn(3, 40, DIM).to(dtype)
    _, state = backbone(x[:, :20], backbone.start(3), lengths=torch.tensor([20, 3, 11]))
    own = fork(state)
    kept = [leaf.data_ptr() for _, leaf, _ in leaves(own)]
    for t in range(20, 40):
        y, state = backbone(x[:, t : t + 1], state)
        close(backbone.step(x[:, t], own), y[:, 0], atol)
    assert [leaf.data_ptr() for _, leaf, _ in leaves(own)] == kept
    for (_, a, _), (_, b, _) in zip(leaves(own), leaves(state)):
        close(a, b, atol)


@torch.no_grad()
def test_one_step_of_ssd_in_place_is_one_step() -> None:
    torch.manual_seed(1)
    x, dt, A, state = torch.randn(2, 4, 3).double(), torch.rand(2, 4).double(), -torch.rand(4).double(), torch.randn(2, 4, 3, 5).double()
    B, C = torch.randn(2, 2, 5).double(), torch.randn(2, 2, 5).double()
    y, after = ssd_step(x, dt, A, B, C, state)
    close(ssd_advance(x, dt, A, B, C, state), y, 1e-12)
    close(state, after, 1e-12)


@torch.no_grad()
@pytest.mark.parametrize("stateful", [False, True])
def test_a_long_call_in_segments_is_the_call_at_once(monkeypatch: pytest.MonkeyPatch, stateful: bool) -> None:
    backbone, x = lively(MAMBA), torch.randn(3, 75, DIM)
    lengths = torch.tensor([75, 40, 7]) if stateful else None
    want, state = backbone(x, backbone.start(3) if stateful else None, lengths)
    monkeypatch.setattr(mamba2, "SEGMENT", 20)
    calls = []
    backbone.norm_f.register_forward_hook(lambda module, x, y: calls.append(y.shape[1]))
    got, after = backbone(x, backbone.start(3) if stateful else None, lengths)
    assert calls == [20, 20, 20, 15]
    for row, n in enumerate((75, 40, 7) if stateful else (75, 75, 75)):
        close(got[row, :n], want[row, :n], 5e-5)
    assert (after is None) == (state is None)
    for (_, a, _), (_, b, _) in zip(leaves(after), leaves(state), strict=True):
        close(a, b, 5e-5)
    with torch.enable_grad():
        backbone(x)
    assert calls[4:] == [75]  # what is learned from is not cut


def test_the_tail_of_a_window_does_not_keep_the_window() -> None:
    assert tail(torch.zeros(1, 1000, 4), 3, None).untyped_storage().nbytes() == 3 * 4 * 4


@torch.no_grad()
def test_the_state_of_mamba2_stays_as_it_is_and_that_of_a_transformer_grows() -> None:
    grown = {}
    for config in (MAMBA, Transformer.Config(DIM, 2, 4)):
        steps = Steps(LM(config.build(), 11).eval(), isinstance(config, Mamba2.Config))
        before = size(steps.state)
        for _ in range(300):
            steps(torch.zeros(1, dtype=torch.long))
        grown[type(config)] = size(steps.state) / before
    assert grown == {Mamba2.Config: 1.0, Transformer.Config: pytest.approx(512 / 64, rel=0.01)}


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 5, ROWS, ROWS + 1])
@pytest.mark.parametrize("shape", [(7, 5), (64, 48), (128, 37), (100, 37)])
@pytest.mark.parametrize("bias", [False, True])
def test_8_bits_are_off_by_half_a_step_of_each_weight_and_by_what_bf16_rounds(rows: int, shape: tuple[int, int], bias: bool) -> None:
    torch.manual_seed(2)
    layer, x = nn.Linear(*shape, bias=bias), torch.randn(1, rows, shape[0])
    packed = int8(nn.Sequential(layer))[0]
    assert isinstance(packed, Int8Linear)
    half = 0.5 * layer.weight.abs().amax(1) / 127  # [O]
    rounded = x.abs() @ layer.weight.abs().t() * 2**-8 + layer(x).abs() * 2**-7  # the inputs; the scale and the output
    assert ((packed(x) - layer(x)).abs() <= 1.01 * (half * x.abs().sum(-1, keepdim=True) + rounded)).all()
    y = packed(x.bfloat16())
    assert y.dtype == torch.bfloat16 and packed(x).dtype == torch.float32
    exact = nn.functional.linear(x, packed.weight.float() * packed.scale[:, None], layer.bias)  # no error of the weights here
    assert (packed(x) - exact).norm() <= 0.01 * exact.norm()


@torch.no_grad()
@pytest.mark.parametrize("config", [Mamba2.Config(64, depth=2, headdim=16, d_state=8), Transformer.Config(64, 2, 4)])
def test_a_backbone_in_8_bits_is_within_the_stated_error(config: Mamba2.Config | Transformer.Config) -> None:
    exact = lively(config, 64**-0.5)  # no softmax or exponential that makes much of little
    packed = int8(copy.deepcopy(exact))
    assert not any(isinstance(m, nn.Linear) for m in packed.modules()) and any(isinstance(m, nn.Linear) for m in exact.modules())
    x, want, got = torch.randn(1, 12, config.dim), [], []
    for module, found in ((exact, want), (packed, got)):
        state = module.start(1)
        for step in x.split(1, 1):
            y, state = module(step, state)
            found.append(y)
    apart = torch.cat(got, 1) - torch.cat(want, 1)
    assert 0 < apart.norm() / torch.cat(want, 1).norm() < 0.03
    assert packed(x.bfloat16().float())[0].shape == x.shape


@torch.no_grad()
@pytest.mark.parametrize("races", [backbones.mamba2, backbones.transformer])
def test_all_contestants_agree(races) -> None:
    for race in races(small=True):
        ours = race.contestants[0].run()
        told = {c.name: race.agree(ours, c.run()) for c in race.contestants[1:]}
        theirs = [name for name in told if name.startswith("transformers")]
        assert theirs and all("within" in told[name] and "no" not in told[name] for name in theirs), told
        assert all("4 of 4 ids" in told[name] for name in theirs) or "one layer" in race.name, told
        assert not told["slm, bf16"].startswith("no"), told
        assert {c.precision for c in race.contestants} >= {"fp32", "bf16"}


def test_ids_that_fork_are_compared_up_to_there() -> None:
    ours = torch.eye(4)
    theirs = ours.clone()
    theirs[2] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    theirs[3] = 99.0
    assert near(ours, ours) == "4 of 4 ids, within 0e+00"
    assert near(ours, theirs).startswith("2 of 4 ids, error 81.6%") and near(ours, ours[:3]).startswith("no")


def test_weights_from_memory_are_held_against_its_speed() -> None:
    for precision, seconds in (("fp32", 1.0), ("bf16", 0.5), ("int8", 0.25)):
        assert least([Phase(0.0, 1e10, far=True)], LIMITS, precision) == pytest.approx(seconds)
        assert least([Phase(0.0, 1e10)], LIMITS, precision) == pytest.approx(seconds / 5)


def test_an_hour_is_told_minute_by_minute(tmp_path) -> None:
    heard: list[int] = []
    curves = long(3, 60.0, lambda curves: heard.append(len(curves[-1].minutes)), small=True, ids=50)
    assert heard == [1, 2, 3, 1, 2, 3] and [curve.name for curve in curves] == ["mamba2", "transformer"]
    for curve in curves:
        assert [m.minute for m in curve.minutes] == [1, 2, 3] and not curve.ended
        assert all(m.resident > 10_000_000 and m.processor > 0 for m in curve.minutes)
    flat, growing = ([m.state for m in curve.minutes] for curve in curves)
    assert len(set(flat)) == 1 and growing[0] < growing[1] < growing[2]
    plot(tmp_path / "long.png", curves)
    assert (tmp_path / "long.png").read_bytes()[:4] == b"\x89PNG"


def test_a_transformer_is_stopped_when_patience_is_over() -> None:
    curves: list[Curve] = long(3, 0.0, lambda curves: None, small=True, ids=2)
    assert [len(curve.minutes) for curve in curves] == [3, 1]
    assert curves[1].ended.startswith("stopped after 1 minutes") and not curves[0].ended


def test_the_command_writes_what_it_saw(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slm.bench.long.RATE", 2)
    path = tmp_path / "long.json"
    result = CliRunner().invoke(app, ["bench", "long", "--small", "--minutes", "1", "--json", str(path)], prog_name="slm")
    assert result.exit_code == 0 and "mamba2, minute 1: state" in result.stdout and str(path) in result.stdout, result.output
    assert [len(curve["minutes"]) for curve in json.loads(path.read_text())["curves"]] == [1, 1]
    result = CliRunner().invoke(app, ["bench", "long", "rvq"], prog_name="slm")
    assert result.exit_code != 0


def test_the_backbones_are_there_by_name() -> None:
    from slm.bench.run import bench

    _, results = bench(["transformer"], repeats=1, threads=1, small=True)
    assert results[0].contestant == "slm" and all(r.wall or r.why for r in results) and results[0].real_time > 0
