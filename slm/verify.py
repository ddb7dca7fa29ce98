"""`slm verify`: is this machine's arithmetic right? Kernels against their twins, backbones against themselves, imports against theirs.

On a GPU the kernels run there. On a CPU Triton's interpreter runs them, on tiny sizes; without Triton the twins are verified instead,
against the recurrence in float64. Errors are a share of the largest value. The variable that turns the interpreter on is read when
Triton is imported, hence `verify` is for a fresh process.

B batch   S steps   D width
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from slm import kernels
from slm.errors import SlmError

if TYPE_CHECKING:
    from rich.table import Table
    from torch import nn

TOLERANCES = {"float64": 1e-12, "float32": 5e-6, "bfloat16": 2e-2}
STEPWISE = 1e-5  # backbones at once, in chunks and by steps, in float32
IMPORTED = 1e-4  # what transformers saved, read by ours


@dataclass
class Check:
    """One figure. by: interpreter, gpu or torch, whatever computed it."""

    name: str
    mode: str
    way: str
    dtype: str
    error: float
    tolerance: float
    by: str

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance


def verify(only: list[str] | None = None) -> list[Check]:
    """All checks, or those whose name is in `only`. SlmError: another name, or Triton is already here without its interpreter."""
    device = prepare()
    import torch

    torch.set_num_threads(1)
    checks = list(_kernels(device, only or ())) + list(_backbones(device, only or ())) + list(_imports(only or ()))
    known = {check.name for check in checks}
    if only and set(only) - known:
        raise SlmError(f"there is nothing called {sorted(set(only) - known)[0]!r} to verify; run `slm verify` to see all names")
    return checks


def prepare() -> str:
    """The device to verify; where there is no GPU, Triton's interpreter is turned on."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if kernels.installed() and not kernels.interpreted():
        if "triton.language" in sys.modules:
            raise SlmError("Triton was imported before its interpreter was asked for; verify in a fresh process: slm verify")
        os.environ["TRITON_INTERPRET"] = "1"
    return "cpu"


def _kernels(device: str, only: list[str] | tuple) -> Iterator[Check]:
    import torch

    from slm.twins import cases, measure

    fused = _fused()
    by = "torch" if not fused else "gpu" if device == "cuda" else "interpreter"
    for case in cases(device, 1 if device == "cpu" else 8, only):
        for dtype in (torch.float64, torch.float32, torch.bfloat16)[device == "cuda" :]:
            if case.kernel == "rvq" and dtype == torch.bfloat16:
                continue  # codebooks are searched in float32, whatever the model is in
            named, told = str(dtype).removeprefix("torch."), (case.mode or "plain")
            forward, backward = measure(case, case.fused if fused else case.plain, dtype)
            tolerance = 0.0 if case.kernel == "rvq" else TOLERANCES[named]
            yield Check(case.kernel, told, "forward", named, forward, tolerance, by)
            if backward is not None:
                yield Check(case.kernel, told, "backward", named, backward, tolerance, by)


def _fused() -> bool:
    return kernels.installed() and os.environ.get("SLM_KERNELS") != "0"


def _backbones(device: str, only: list[str] | tuple) -> Iterator[Check]:
    """Run at once, in chunks and step by step; and on the kernels beside the plain way, with gradients."""
    import torch

    from slm.backbone.gated_conv import GatedConv
    from slm.backbone.hybrid import Hybrid
    from slm.backbone.mamba2 import Mamba2
    from slm.backbone.rwkv import RWKV
    from slm.backbone.transformer import Transformer

    mamba, attention = Mamba2.Config(16, depth=1, headdim=8, d_state=4, chunk=16), Transformer.Config(16, depth=1, heads=4)
    configs = {"transformer": attention, "mamba2": mamba, "rwkv": RWKV.Config(16, depth=1), "gated_conv": GatedConv.Config(16, depth=1),
               "hybrid": Hybrid.Config([mamba, attention])}  # fmt: skip
    for name, config in configs.items():
        if only and name not in only:
            continue
        torch.manual_seed(0)
        model = config.build().to(device).eval()
        for chunk, mode in ((7, "in chunks"), (1, "by steps")):
            by = "gpu" if device == "cuda" else "torch"
            yield Check(name, mode, "forward", "float32", _apart(model, chunk, device), STEPWISE, by)
        if name in ("transformer", "mamba2", "hybrid") and _fused() and (device == "cuda" or kernels.interpreted()):
            by = "gpu" if device == "cuda" else "interpreter"
            for way, error in zip(("forward", "backward"), _wired(model, device)):
                yield Check(name, "on kernels", way, "float32", error, STEPWISE, by)


def _imports(only: list[str] | tuple) -> Iterator[Check]:
    """Models as transformers saved them, in ours, on the CPU."""
    from slm.parity import compare, names

    if only and not set(only) & set(names()):
        return
    for each in compare(only):
        dtype = "ids" if each.exact else "float32"
        yield Check(each.name, f"transformers, {each.what}", "forward", dtype, each.error, 0.0 if each.exact else IMPORTED, "torch")


def _apart(model: nn.Module, chunk: int, device: str) -> float:
    """How far a backbone run in pieces of `chunk` steps is from itself run at once, as a share of the largest value."""
    import torch

    x = torch.randn(2, 40, 16, device=device)
    with torch.no_grad():
        whole, _ = model(x)
        state, pieces = model.start(2), []
        for piece in x.split(chunk, 1):
            y, state = model(piece, state)
            pieces.append(y)
    return ((torch.cat(pieces, 1) - whole).abs().max() / whole.abs().max()).item()


def _wired(model: nn.Module, device: str) -> tuple[float, float]:
    """How far what a backbone says on kernels, and its gradients, are from those of the plain way, each as a share of its largest value."""
    import torch

    x, results = torch.randn(2, 40, 16, device=device), []
    weight = torch.randn_like(x)
    for wanted in (True, False):
        leaf = x.clone().requires_grad_()
        with kernels.use(wanted):
            y, _ = model(leaf)
            results.append([y, *torch.autograd.grad((y * weight).sum(), [leaf, *model.parameters()])])
    apart = [((a - b).abs().max() / b.abs().max().clamp(min=1e-9)).item() for a, b in zip(*results)]
    return apart[0], max(apart[1:])


def table(checks: list[Check]) -> Table:
    """The checks for people."""
    from rich.table import Table

    shown = Table("what", "mode", "way", "dtype", "largest error", "allowed", "by", "", box=None, pad_edge=False)
    for c in checks:
        verdict = "ok" if c.passed else "WRONG"
        shown.add_row(c.name, c.mode, c.way, c.dtype, f"{c.error:.1e}", f"{c.tolerance:.0e}", c.by, verdict)
    return shown


def write(checks: list[Check], path: Path) -> None:
    from slm.data.replacing import write_json

    write_json(path, [asdict(c) | {"passed": c.passed} for c in checks])
