"""`slm bench long`: an hour of audio's ids, one after the other, and what each minute of it takes of memory and time.

Mamba-2, whose state never grows, beside a Transformer, whose keys and values do: the sizes of the recipe of the default voice, with
random weights, greedily. What is said means nothing; what is shown is what a step costs after so many others.
"""

from __future__ import annotations

import platform
import resource
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from slm.backbone.mamba2 import Mamba2
from slm.backbone.state import leaves
from slm.backbone.transformer import Transformer
from slm.bench.backbones import LM, RATE, Steps

CARD = 1024


@dataclass
class Minute:
    """What is there after so many minutes of audio, and what an id of the last of them took."""

    minute: int
    state: int  # bytes of the state's tensors, spare room included
    resident: int  # bytes of the whole process
    processor: float  # microseconds an id
    wall: float


@dataclass
class Curve:
    name: str
    minutes: list[Minute] = field(default_factory=list)
    ended: str = ""  # why before the last minute


def contestants(small: bool = False) -> dict[str, Mamba2.Config | Transformer.Config]:
    if small:
        return {"mamba2": Mamba2.Config(16, 2, headdim=8, d_state=4), "transformer": Transformer.Config(16, 2, 2)}
    return {"mamba2": Mamba2.Config(dim=192, depth=8), "transformer": Transformer.Config(dim=192, depth=6)}


def long(minutes: int, patience: float, heard: Callable[[list[Curve]], None], small: bool = False, ids: int | None = None) -> list[Curve]:
    """A curve for each contestant, of `ids` ids a minute (None: as many as there are); `heard` gets all curves after every minute.

    patience: minutes on the wall after which the Transformer is stopped, which gets slower and slower.
    """
    before, curves = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        for name, config in contestants(small).items():
            curves.append(Curve(name))
            torch.manual_seed(0)
            walk(LM(config.build(), CARD).eval(), curves, minutes, patience, heard, ids or 60 * RATE)
    finally:
        torch.set_num_threads(before)
    return curves


@torch.no_grad()
def walk(model: LM, curves: list[Curve], minutes: int, patience: float, heard: Callable[[list[Curve]], None], ids: int) -> None:
    """One contestant to its end; its curve is the last of `curves`."""
    grows = isinstance(model.backbone, Transformer)
    steps, last, begin = Steps(model, in_place=not grows), torch.zeros(1, dtype=torch.long), time.monotonic()
    for minute in range(1, minutes + 1):
        wall, processor = time.perf_counter(), time.process_time()
        for _ in range(ids):
            last = steps(last).argmax(-1)
        took = time.process_time() - processor, time.perf_counter() - wall
        curves[-1].minutes.append(Minute(minute, size(steps.state), resident(), *(1e6 * t / ids for t in took)))
        if grows and minute < minutes and time.monotonic() - begin > 60 * patience:
            curves[-1].ended = f"stopped after {minute} minutes of audio: {patience:g} minutes on the wall were over"
        heard(curves)
        if curves[-1].ended:
            return


def size(state: object) -> int:
    """Bytes of a state, with what its tensors hold on to."""
    return sum(leaf.untyped_storage().nbytes() for _, leaf, _ in leaves(state))


def resident() -> int:
    """Bytes of this process in memory; where /proc does not tell, the most there ever were."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)


def line(curve: Curve) -> str:
    """The last minute in words."""
    m = curve.minutes[-1]
    memory = f"state {m.state / 1e6:.2f} MB, process {m.resident / 1e6:.0f} MB"
    return f"{curve.name}, minute {m.minute}: {memory}, {m.processor:.0f} us an id ({m.wall:.0f} on the wall)" + (
        f"\n{curve.name}: {curve.ended}" if curve.ended else ""
    )


def save(path: Path, curves: list[Curve]) -> None:
    from slm.data.replacing import write_json

    facts = {"rate": RATE, "threads": 1, "torch": torch.__version__, "machine": platform.processor() or platform.machine()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, facts | {"curves": [asdict(curve) for curve in curves]})


def plot(path: Path, curves: list[Curve]) -> None:
    """Memory and time over minutes of audio, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from slm.data.replacing import replacing

    figure = Figure(figsize=(9, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    memory, pace = figure.subplots(1, 2)
    for curve in curves:
        at = [m.minute for m in curve.minutes]
        memory.plot(at, [m.state / 1e6 for m in curve.minutes], label=curve.name)
        pace.plot(at, [m.processor for m in curve.minutes], label=curve.name)
    for axes, what in ((memory, "state, MB"), (pace, "processor time an id, us")):
        axes.set(xlabel="minutes of audio", ylabel=what, yscale="log")
        axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
