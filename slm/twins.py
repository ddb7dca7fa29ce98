"""Each fused kernel beside its plain twin and, where there is one, the definition that both follow, on small inputs.

A case is data and two or three functions of the same tensors. `measure` runs one of them in a dtype and compares it, and every
gradient, with the definition in float64 on the same rounded inputs. Nothing here is about how results are shown.

B batch   S steps   H heads   P head width   G groups   N state width   M channels   V vocabulary
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from slm.backbone.convolve import convolve_silu
from slm.backbone.mamba2 import Mamba2
from slm.backbone.ssd import runs, scan, ssd_step
from slm.kernels import use
from slm.nn.norm import GatedRMSNorm, RMSNorm
from slm.nn.rope import Rope, rotate


@dataclass
class Case:
    """fused and plain: functions of `inputs` to a tensor or a tuple of them; exact: the definition, if it is not `plain`.

    wide: which inputs stay in float32 or wider when the others are rounded.   trained: have they gradients?
    """

    kernel: str
    mode: str
    fused: Callable
    plain: Callable
    inputs: list[Tensor]
    exact: Callable | None = None
    wide: tuple[int, ...] = ()
    trained: bool = True


def measure(case: Case, function: Callable, dtype: torch.dtype) -> tuple[float, float | None]:
    """The largest error of the outputs and of the gradients (None: it has none), each as a share of the largest value."""
    wider = torch.promote_types(dtype, torch.float32)
    inputs = [t.to(wider if i in case.wide else dtype) if t.is_floating_point() else t for i, t in enumerate(case.inputs)]
    with use(False):  # wired or not, the twin is the twin
        want = _run(case.exact or case.plain, [t.double() if t.is_floating_point() else t for t in inputs], case.trained)
        got = _run(function, inputs, case.trained)
    return _worst(got[0], want[0]), _worst(got[1], want[1]) if case.trained else None


def _run(function: Callable, inputs: list[Tensor], trained: bool) -> tuple[list[Tensor], list[Tensor]]:
    """What the function returns, and the gradients of a fixed mixture of it."""
    inputs = [t.clone().requires_grad_(trained and t.is_floating_point()) for t in inputs]
    with torch.set_grad_enabled(trained):
        out = function(*inputs)
    out = list(out) if isinstance(out, tuple) else [out]
    if not trained:
        return out, []
    dice = torch.Generator().manual_seed(1)
    total = sum((y.double() * torch.randn(y.shape, generator=dice, dtype=torch.float64).to(y.device)).sum() for y in out)
    return [y.detach() for y in out], list(torch.autograd.grad(total, [t for t in inputs if t.requires_grad]))


def _worst(got: list[Tensor], want: list[Tensor]) -> float:
    if any(a.shape != b.shape or not a.isfinite().all() for a, b in zip(got, want)):
        return float("inf")
    return max(((a.double() - b.double()).abs().max() / b.double().abs().max().clamp(min=1e-9)).item() for a, b in zip(got, want))


def cases(device: torch.device | str = "cpu", scale: int = 1, only: Collection[str] = ()) -> Iterator[Case]:
    """All cases, or those of the kernels in `only`, their inputs on `device` and their sizes `scale` times as large."""
    families = {"ssd": _ssd, "step": _step, "conv": _conv, "norm": _norm, "rope": _rope, "cross_entropy": _cross_entropy, "rvq": _rvq}
    for name, family in families.items():
        if only and name not in only:
            continue
        torch.manual_seed(0)
        for case in family(device, scale):
            case.inputs = [t.to(device) for t in case.inputs]
            yield case


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def recurrence(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor, run: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The definition of SSD: step after step, the state forgotten where `run` grows."""
    out = []
    for t in range(x.shape[1]):
        if run is not None and t:
            state = state * (run[:, t] == run[:, t - 1])[:, None, None, None]
        y, state = ssd_step(x[:, t], dt[:, t], A, B[:, t], C[:, t], state)
        out.append(y)
    return torch.stack(out, 1), state


def _ssd(device, scale: int) -> Iterator[Case]:
    for mode, batch, steps, heads, groups in (
        ("", 1, 16, 4, 1), ("groups", 1, 20, 4, 2), ("state", 1, 37, 2, 1), ("ragged", 2, 20, 2, 1), ("documents", 2, 37, 2, 1)
    ):  # fmt: skip
        steps, width, n = steps * scale, 5 * scale, 3 * scale
        inputs = [_normal(batch, steps, heads, width), 0.01 + torch.rand(batch, steps, heads).double(), -0.2 - torch.rand(heads).double(),
                  _normal(batch, steps, groups, n), _normal(batch, steps, groups, n), _normal(heads)]  # fmt: skip
        if mode in ("state", "ragged"):
            inputs.append(_normal(batch, heads, width, n))
        real, run = 1.0, None
        if mode == "ragged":
            real = (torch.arange(steps) < torch.tensor([[steps], [steps // 2]]))[..., None].to(device)
        if mode == "documents":
            run = runs((torch.arange(steps) // torch.tensor([[7], [18]])).to(device))

        def fused(x, dt, A, B, C, D, state=None, run=run, real=real):
            from slm.kernels.ssd import ssd

            return ssd(x, dt * real, A, B, C, 16, state, run, D)

        def plain(x, dt, A, B, C, D, state=None, run=run, real=real):
            return scan(x, dt * real, A, B, C, D, 16, state, run)

        def exact(x, dt, A, B, C, D, state=None, run=run, real=real):
            state = x.new_zeros(len(x), x.shape[2], x.shape[3], B.shape[3]) if state is None else state
            y, after = recurrence(x, dt * real, A, B, C, state, run)
            return y + D[:, None] * x, after

        yield Case("ssd", mode, fused, plain, inputs, exact, wide=(1, 2, 5, 6))


def _step(device, scale: int) -> Iterator[Case]:
    mixer = Mamba2.Config(4 * scale, depth=1, headdim=4, d_state=3, groups=2).build().layers[0].mixer
    names = [name for name, _ in mixer.named_parameters()]
    inputs = [_normal(2, 4 * scale), _normal(2, 3, mixer.channels), _normal(2, mixer.heads, 4, 3)]
    inputs += [0.5 * torch.randn_like(weight).double() for weight in mixer.parameters()]
    for mode, real in (("state", None), ("ragged", torch.tensor([True, False], device=device))):

        def fused(x, window, state, *weights, real=real):
            from slm.kernels.norm import rms_norm
            from slm.kernels.step import step

            of = dict(zip(names, weights))
            y, window, state = step(F.linear(x, of["in_proj.weight"]), window, state, of["conv1d.weight"], of["conv1d.bias"],
                                    of["dt_bias"], of["A_log"], of["D"], 2, real)  # fmt: skip
            return F.linear(rms_norm(y, of["norm.weight"], groups=2), of["out_proj.weight"]), window, state

        def plain(x, window, state, *weights, real=real):
            lengths, real = (None, None) if real is None else (real.long(), real[:, None])
            y, after = torch.func.functional_call(mixer, dict(zip(names, weights)), (x[:, None], (window, state), lengths, real, None))
            return y[:, 0], *after

        yield Case("step", mode, fused, plain, inputs, wide=(2,), trained=False)


def _conv(device, scale: int) -> Iterator[Case]:
    steps, channels = 37 * scale, 5 * scale
    inputs = [_normal(2, steps, channels), _normal(channels, 1, 4), _normal(channels)]
    documents = runs((torch.arange(steps) // torch.tensor([[7], [18]])).to(device))
    for mode, more, run in (("", [], None), ("state", [_normal(2, 3, channels)], None), ("documents", [], documents)):

        def fused(x, weight, bias, past=None, run=run):
            from slm.kernels.conv import conv_silu

            return conv_silu(x, weight, bias, past, run)

        def plain(x, weight, bias, past=None, run=run):
            return convolve_silu(x, past, weight, bias, run)[0]

        def exact(x, weight, bias, past=None, run=run):
            """torch's own convolution, a document at a time."""
            past, run = x.new_zeros(2, 3, channels) if past is None else past, torch.zeros(x.shape[:2]) if run is None else run
            rows = []
            for row, before, ids in zip(x, past, run):
                pieces = [torch.cat([before, row[ids == one]]).t() for one in ids.unique()]
                rows.append(torch.cat([F.conv1d(piece[None], weight, bias, groups=channels)[0].t() for piece in pieces]))
            return F.silu(torch.stack(rows))

        yield Case("conv", mode, fused, plain, inputs + more, exact)


def _norm(device, scale: int) -> Iterator[Case]:
    def fused(x, weight, gate=None):
        from slm.kernels.norm import rms_norm

        return rms_norm(x, weight, gate, 1 if gate is None else 2)

    def plain(x, weight, gate=None):
        norm = RMSNorm(len(weight)) if gate is None else GatedRMSNorm(len(weight), 2)
        return torch.func.functional_call(norm, {"weight": weight}, (x,) if gate is None else (x, gate))

    x, weight = _normal(3, 5 * scale, 22), _normal(22)
    yield Case("norm", "", fused, plain, [x, weight])
    yield Case("norm", "gated", fused, plain, [x, weight, _normal(*x.shape)])


def _rope(device, scale: int) -> Iterator[Case]:
    x = _normal(2, 5 * scale, 3, 6)
    rope, places = Rope(6).to(device), torch.randint(0, 9, (2, 5 * scale), device=device)
    for mode, tables in (("", rope.at(3, 5 * scale, places)), ("ragged", rope.at_each(places, 9))):

        def fused(x, tables=tables):
            from slm.kernels.rope import rotate as turn

            return turn(x, *tables)

        yield Case("rope", mode, fused, lambda x, tables=tables: rotate(x, *tables), [x])


def _cross_entropy(device, scale: int) -> Iterator[Case]:
    rows, size = 5 * scale, 70 * scale * scale
    target = torch.randint(0, size, (rows,))
    target[2] = -100
    scores, weights, smooth = 3 * _normal(rows, size), torch.rand(rows).double(), 0.1

    def fused(scores, target, weights):
        from slm.kernels.cross_entropy import cross_entropy

        return cross_entropy(scores, target, weights, smooth)

    def plain(scores, target, weights):
        wide = torch.promote_types(scores.dtype, torch.float32)
        return weights * F.cross_entropy(scores.to(wide), target, reduction="none", label_smoothing=smooth)

    yield Case("cross_entropy", "", fused, plain, [scores, target, weights], wide=(2,))

    def headed(hidden, head, target):
        from slm.kernels.cross_entropy import linear_cross_entropy

        return linear_cross_entropy(hidden, head, target)

    def split(hidden, head, target):
        return F.cross_entropy((hidden @ head.t()).to(torch.promote_types(hidden.dtype, torch.float32)), target, reduction="sum")

    yield Case("cross_entropy", "with head", headed, split, [_normal(rows, 9), _normal(size, 9), target])


def _rvq(device, scale: int) -> Iterator[Case]:
    from slm_tokenizers.quantize.search import search, squares

    def fused(x, embed):
        from slm.kernels.rvq import search as find

        codes = torch.empty(len(embed), len(x), dtype=torch.long, device=x.device)
        find(x, embed, squares(embed), codes)
        return codes

    def plain(x, embed):
        codes = torch.empty(len(embed), len(x), dtype=torch.long, device=x.device)
        search(x, embed, squares(embed), codes)
        return codes

    yield Case("rvq", "", fused, plain, [_normal(40 * scale, 12), _normal(3, 100, 12)], trained=False)
