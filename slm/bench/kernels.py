"""Fused kernels on a GPU beside their twins and their peers in mamba_ssm, flash-linear-attention and causal_conv1d.

    from slm.bench.kernels import kernels, measure

    for race in kernels(): print(race.name, measure(race))

Every contestant waits for the GPU before it returns, so that a clock on the wall is right about it; `measure` uses the GPU's own
clock. Without a GPU, or without a peer's package, a contestant is absent and says why in a word.

B batch   S steps   H heads   P head width   N state width   M channels   V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from slm import kernels as fused
from slm.bench.run import Contestant, Race


def kernels(small: bool = False) -> list[Race]:
    """SSD, its convolution, its norm and a large cross-entropy, in bfloat16; forward alone, and with all gradients."""
    batch, steps, heads, width, n, size = (2, 100, 2, 16, 16, 500) if small else (16, 1024, 16, 64, 64, 65536)
    return [*ssd(batch, steps, heads, width, n), *conv(batch, steps, heads * width + 2 * n),
            *norm(batch * steps, heads * width), *cross_entropy(batch * steps // 4, size)]  # fmt: skip


def measure(race: Race, repeats: int = 20) -> dict[str, float | str]:
    """contestant -> median milliseconds by the GPU's events, after three runs to warm up; or why it is absent."""
    taken: dict[str, float | str] = {c.name: c.why for c in race.contestants}
    for contestant in race.contestants:
        if contestant.run is None:
            continue
        for _ in range(3):
            contestant.run()
        times = []
        for _ in range(repeats):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            contestant.run()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end))
        taken[contestant.name] = median(times)
    return taken


def ssd(batch: int, steps: int, heads: int, width: int, n: int) -> list[Race]:
    x, B, C = drawn(batch, steps, heads, width), drawn(batch, steps, 1, n), drawn(batch, steps, 1, n)
    dt, A, D = drawn(batch, steps, heads).float().sigmoid(), -drawn(heads).float().exp(), drawn(heads).float()
    inputs = [x, dt, A, B, C, D]

    def ours() -> Callable:
        from slm.kernels.ssd import ssd

        return lambda x, dt, A, B, C, D: ssd(x, dt, A, B, C, 64, D=D)[0]

    def plain() -> Callable:
        from slm.backbone.ssd import ssd_chunked

        return lambda x, dt, A, B, C, D: torch.addcmul(ssd_chunked(x, dt, A, B, C, 64)[0], x, D.to(x.dtype)[:, None])

    def mamba() -> Callable:
        from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined

        return lambda x, dt, A, B, C, D: mamba_chunk_scan_combined(x, dt, A, B, C, 256, D=D)

    def fla() -> Callable:
        from fla.ops.simple_gla import chunk_simple_gla

        def run(x, dt, A, B, C, D):
            key, query = (t.expand(-1, -1, x.shape[2], -1) for t in (B, C))
            y, _ = chunk_simple_gla(query.contiguous(), (key * dt[..., None]).to(x.dtype), x, dt * A, scale=1.0)
            return torch.addcmul(y, x, D.to(x.dtype)[:, None])

        return run

    makers = {"slm, fused": ours, "slm, plain": plain, "mamba_ssm": mamba, "fla": fla}
    return races(f"SSD, {batch} x {steps} steps, {heads} heads of {width}, N = {n}", makers, inputs)


def conv(batch: int, steps: int, channels: int) -> list[Race]:
    def ours() -> Callable:
        from slm.kernels.conv import conv_silu

        return conv_silu

    def plain() -> Callable:
        from slm.backbone.convolve import convolve, widen

        return lambda x, weight, bias: F.silu(convolve(widen(x, None, 3), weight, bias, x.shape[1]))

    def theirs() -> Callable:
        from causal_conv1d import causal_conv1d_fn

        return lambda x, weight, bias: causal_conv1d_fn(x.transpose(1, 2), weight[:, 0], bias, activation="silu").transpose(1, 2)

    inputs = [drawn(batch, steps, channels), drawn(channels, 1, 4), drawn(channels)]
    makers = {"slm, fused": ours, "slm, plain": plain, "causal_conv1d": theirs}
    return races(f"convolution and SiLU, {batch} x {steps} steps, {channels} channels", makers, inputs)


def norm(rows: int, width: int) -> list[Race]:
    def ours() -> Callable:
        from slm.kernels.norm import rms_norm

        return rms_norm

    def plain() -> Callable:
        from slm.nn.norm import GatedRMSNorm

        return lambda x, weight, gate: torch.func.functional_call(GatedRMSNorm(width), {"weight": weight}, (x, gate))

    def mamba() -> Callable:
        from mamba_ssm.ops.triton.layernorm_gated import rmsnorm_fn

        return lambda x, weight, gate: rmsnorm_fn(x, weight, None, z=gate, eps=1e-5, norm_before_gate=False)

    makers = {"slm, fused": ours, "slm, plain": plain, "mamba_ssm": mamba}
    return races(f"gated norm, {rows} rows of {width}", makers, [drawn(rows, width), drawn(width), drawn(rows, width)])


def cross_entropy(rows: int, size: int) -> list[Race]:
    target = torch.randint(0, size, (rows,), device=device())

    def ours() -> Callable:
        from slm.kernels.cross_entropy import cross_entropy

        return lambda scores: cross_entropy(scores, target)

    makers = {"slm, fused": ours, "torch": lambda: lambda scores: F.cross_entropy(scores.float(), target, reduction="none")}
    return races(f"cross-entropy, {rows} rows of {size} scores", makers, [drawn(rows, size)])


def races(name: str, makers: dict[str, Callable[[], Callable]], inputs: list[Tensor]) -> list[Race]:
    """A race forward, and one with all gradients."""
    return [Race(name + way, None, [], [contestant(who, make, inputs, back) for who, make in makers.items()], near)
            for way, back in (("", False), (", and back", True))]  # fmt: skip


def contestant(name: str, make: Callable[[], Callable], inputs: list[Tensor], back: bool) -> Contestant:
    if not torch.cuda.is_available():
        return Contestant(name, None, "no GPU")
    if name == "slm, fused" and not fused.usable(inputs[0]):
        return Contestant(name, None, "no Triton")
    try:
        function = make()
    except ImportError:
        return Contestant(name, None, "not installed")
    leaves = [t.clone().requires_grad_(back) for t in inputs]

    def run() -> Any:
        with fused.use(name == "slm, fused"), torch.set_grad_enabled(back):
            out = function(*leaves)
            if back:
                out = torch.autograd.grad(out.float().square().sum(), leaves)
        torch.cuda.synchronize()
        return out

    return Contestant(name, run, precision="bf16")


def near(ours: Any, theirs: Any) -> str:
    """The largest difference, as a share of the largest value."""
    pairs = zip(ours, theirs) if isinstance(ours, tuple) else [(ours, theirs)]
    away = max(((a.float() - b.float()).abs().max() / b.float().abs().max()).item() for a, b in pairs)
    return f"within {away:.0e}" if away <= 3e-2 else f"no: {away:.0e}"


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def drawn(*shape: int) -> Tensor:
    """Normal numbers in bfloat16 where the race will be; on a CPU nobody runs, so nothing is drawn."""
    if device() == "cpu":
        return torch.empty(shape, dtype=torch.bfloat16, device="meta")
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)
