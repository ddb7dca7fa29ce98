"""Every fused kernel gives its twin's numbers and gradients. Triton reads TRITON_INTERPRET when it is imported, so the kernels run in
another process, once for all tests, as `slm verify` does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from slm import kernels
from slm.cli import app
from slm.errors import SlmError
from slm.twins import cases, measure
from slm.verify import TOLERANCES, Check, verify

ROOT = Path(__file__).resolve().parent.parent
KERNELS = ("ssd", "step", "conv", "norm", "rope", "cross_entropy", "rvq")
WIRED = ("transformer", "hybrid")
needs_triton = pytest.mark.skipif(not kernels.installed(), reason="needs Triton")


def run(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """`code` in a fresh Python that sees no GPU, with the repository's packages."""
    paths = os.pathsep.join(str(ROOT / folder) for folder in ("", "tokenizers", "vocoders"))
    told = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "160"} | environment
    return subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, env=told, capture_output=True, text=True, check=False)


COMMAND = "import sys; sys.argv[0] = 'slm'; from slm.cli import main; main()"
APART = """
import torch
from slm.verify import prepare
prepare()
from slm.kernels.conv import conv_silu
from slm.kernels.ssd import ssd
torch.manual_seed(0)
run = (torch.arange(37) // 10)[None]
def answers(loud):
    torch.manual_seed(1)
    made = [torch.randn(1, 37, 2, 4), torch.rand(1, 37, 2), torch.randn(1, 37, 1, 4), torch.randn(1, 37, 1, 4), torch.randn(1, 37, 3)]
    x, dt, B, C, u = [torch.where((run == 2).view(1, 37, *[1] * (t.dim() - 2)), t, t * loud).requires_grad_() for t in made]
    y, _ = ssd(x, dt, torch.tensor([-0.3, -1.0]), B, C, 16, None, run)
    z = conv_silu(u, torch.linspace(-1, 1, 12).view(3, 1, 4), torch.ones(3), None, run)
    heard = [y[:, 20:30], z[:, 20:30]]
    return [t[:, 20:30] for t in torch.autograd.grad(sum(t.sum() for t in heard), (x, dt, B, C, u))] + heard
print(all(torch.equal(a, b) and a.abs().max() > 0 for a, b in zip(answers(1.0), answers(7.0))))
"""


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What `slm verify` finds of the kernels on a CPU."""
    path = tmp_path_factory.mktemp("verify") / "verify.json"
    done = run(COMMAND, "verify", *KERNELS, *WIRED, "--json", str(path))
    assert path.exists(), done.stderr
    found = json.loads(path.read_text("utf-8"))
    assert done.returncode == (0 if all(f["passed"] for f in found) else 1), done.stderr
    return found


@needs_triton
@pytest.mark.parametrize("way", ["forward", "backward"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_kernel_gives_its_twins_numbers(figures: list[dict], kernel: str, way: str) -> None:
    mine = [f for f in figures if f["name"] == kernel and f["way"] == way]
    assert bool(mine) == (way == "forward" or kernel not in ("step", "rvq"))
    assert {f["by"] for f in mine} <= {"interpreter"}
    assert [f for f in mine if not f["error"] <= f["tolerance"]] == []


@needs_triton
def test_kernels_are_tried_with_states_ragged_rows_documents_and_in_every_dtype(figures: list[dict]) -> None:
    tried = {(f["name"], f["mode"]) for f in figures}
    assert tried >= {("ssd", mode) for mode in ("plain", "groups", "state", "ragged", "documents")}
    assert tried >= {("conv", "state"), ("conv", "documents"), ("step", "ragged"), ("norm", "gated"), ("cross_entropy", "with head")}
    for kernel in KERNELS:
        assert {f["dtype"] for f in figures if f["name"] == kernel} >= {"float64", "float32"}


@needs_triton
def test_backbones_on_kernels_are_verified_both_ways(figures: list[dict]) -> None:
    for name in WIRED:
        mine = [f for f in figures if f["name"] == name and f["mode"] == "on kernels"]
        assert [f["way"] for f in mine] == ["forward", "backward"] and all(f["by"] == "interpreter" and f["passed"] for f in mine)


@needs_triton
def test_a_packed_document_hears_nothing_of_the_others_bit_for_bit() -> None:
    done = run(APART)
    assert done.stdout.strip() == "True", done.stderr


def test_on_a_cpu_nothing_is_fused_unless_asked_for() -> None:
    x = torch.zeros(1)
    assert not kernels.usable(x)
    with kernels.use(True):
        assert kernels.usable(x) == kernels.interpreted()
    with kernels.use(False):
        assert not kernels.usable(x)


def test_the_switch_needs_neither_torch_nor_triton() -> None:
    done = run("import sys, slm.kernels; slm.kernels.installed(); print([n for n in ('torch', 'triton', 'numpy') if n in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr


def test_without_triton_the_twins_are_verified_and_it_is_said() -> None:
    hide = "import importlib.util as u; find = u.find_spec; u.find_spec = lambda n, *a: None if n == 'triton' else find(n, *a); "
    done = run(hide + COMMAND, "verify", "ssd", "conv", "mamba2")
    assert done.returncode == 0, done.stderr
    assert "computed by torch" in done.stdout and "interpreter" not in done.stdout


@pytest.mark.parametrize("case", [c for c in cases(only=("ssd", "conv"))], ids=lambda c: f"{c.kernel}-{c.mode or 'plain'}")
def test_the_twin_itself_gives_the_definitions_numbers(case) -> None:
    forward, backward = measure(case, case.plain, torch.float64)
    assert max(forward, backward) <= TOLERANCES["float64"]


def test_a_wrong_figure_ends_the_command_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slm.verify.prepare", lambda: "cpu")
    monkeypatch.setattr("slm.verify.STEPWISE", -1.0)
    done = CliRunner().invoke(app, ["verify", "gated_conv"])
    assert done.exit_code == 1 and "2 checks, 2 wrong" in done.stdout


def test_not_a_number_is_wrong() -> None:
    assert not Check("ssd", "plain", "forward", "float32", float("nan"), 1.0, "torch").passed


def test_an_unknown_name_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slm.verify.prepare", lambda: "cpu")
    with pytest.raises(SlmError, match="nothing called 'sdd'"):
        verify(["sdd"])
