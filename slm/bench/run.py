"""`slm bench`: who is how fast at the same task, all in one run and in turns, beside what this machine could do at most.

A race is a task with its contestants. They run A, B, C, A, B, C … so that a busy neighbour hits all alike; each time is a median with
its quartiles. A thread that waits for its turn on a busy machine grows no older on the processor's clock, so with one thread the
figures are processor time; with several, the time on the wall. The JSON has both. Before they race, what the contestants return is
compared, and the table says how it agrees.

The limit of a task is what its phases, one after the other, would take at the speed of a large product of matrices, or of reading
their operands from the cache, or from memory where they are too many for it, whichever is longer; these speeds are measured here, at
the same precision. Weights of 8 bits are multiplied in bf16.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any

from slm.errors import SlmError

GIGA = 1e9
TURN = 0.03  # seconds: a shorter task is done several times a turn, as where it is used


@dataclass
class Contestant:
    """`run` does the task once; where it is absent, `why` says so in a word."""

    name: str
    run: Callable[[], Any] | None
    why: str = ""
    precision: str = "fp32"  # or bf16, int8; of the limit that it is held against


@dataclass
class Phase:
    """A part of a task that must end before the next begins."""

    flops: float
    bytes: float  # operands to read in fp32, as often as they are read
    far: bool = False  # from memory, not from the cache


@dataclass
class Race:
    """A task; the first contestant is ours. `agree` says how another's result compares with that of ours."""

    name: str
    seconds: float | None  # of audio, None where the task has none
    phases: list[Phase]
    contestants: list[Contestant]
    agree: Callable[[Any, Any], str]


@dataclass
class Limits:
    """What one run of this machine measured: billions a second."""

    fp32: float  # floating-point operations in a product of matrices
    bf16: float
    cache: float  # bytes, from 4 MB read again and again
    memory: float  # bytes, from 256 MB


@dataclass
class Result:
    race: str
    contestant: str
    why: str = ""
    agreement: str = ""
    wall: list[float] = field(default_factory=list)  # seconds: first quartile, median, third quartile
    processor: list[float] = field(default_factory=list)
    seconds: float | None = None  # of audio
    real_time: float | None = None  # times real time
    ratio: float | None = None  # of our speed to this one's
    of_limit: float | None = None  # the time at the limit, a part of the time it took


def bench(what: Sequence[str], repeats: int, threads: int, small: bool = False) -> tuple[Limits, list[Result]]:
    """Every race of `what`; of the codecs, which take least time, if it is empty. SlmError on an unknown name.

    small: tiny shapes, to see that it runs.
    """
    import torch

    from slm.bench.backbones import mamba2, transformer
    from slm.bench.codecs import encodec, rvq

    contents = {"encodec": encodec, "rvq": rvq, "mamba2": mamba2, "transformer": transformer}
    if unknown := [name for name in what if name not in contents]:
        raise SlmError(f"{unknown[0]!r} is not something to measure; there is {', '.join(contents)}")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            measured = limits(256 if small else 1024, threads)
            races = [race for name in what or ("encodec", "rvq") for race in contents[name](small)]
            return measured, [result for race in races for result in run(race, measured, repeats, threads)]
    finally:
        torch.set_num_threads(before)


def run(race: Race, measured: Limits, repeats: int, threads: int, turn: float = TURN) -> list[Result]:
    """One race: once to compare, once to see how often each fits into a turn, then `repeats` turns."""
    results = [Result(race.name, c.name, c.why, seconds=race.seconds) for c in race.contestants]
    running = [(c, r) for c, r in zip(race.contestants, results) if c.run is not None]
    answers = [c.run() for c, _ in running]
    for answer, (_, result) in zip(answers[1:], running[1:]):
        result.agreement = race.agree(answers[0], answer)
    often = [max(1, round(turn / max(clock(c.run)[1], 1e-9))) for c, _ in running]
    times: list[list[tuple[float, float]]] = [[] for _ in running]
    for _ in range(repeats):
        for (contestant, _), taken, count in zip(running, times, often):
            taken.append(clock(contestant.run, count))
    for (contestant, result), taken in zip(running, times):
        result.wall, result.processor = (quartiles(clocks) for clocks in zip(*taken))
        took = shown(result, threads)
        result.real_time = race.seconds / took if race.seconds else None
        result.ratio = took / shown(running[0][1], threads)
        result.of_limit = least(race.phases, measured, contestant.precision) / took
    return results


def clock(task: Callable[[], Any], count: int = 1) -> tuple[float, float]:
    """Seconds on the wall and of the processor (all threads) that `task` takes, the mean of `count` times."""
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(count):
        task()
    return (time.perf_counter() - wall) / count, (time.process_time() - processor) / count


def quartiles(times: Sequence[float]) -> list[float]:
    return quantiles(times, n=4, method="inclusive") if len(times) > 1 else list(times) * 3


def shown(result: Result, threads: int) -> float:
    return (result.processor if threads == 1 else result.wall)[1]


def least(phases: Sequence[Phase], measured: Limits, precision: str) -> float:
    """Seconds that the phases would take at the limits of the machine."""
    peak, narrower = {"fp32": (measured.fp32, 1), "bf16": (measured.bf16, 2), "int8": (measured.bf16, 4)}[precision]
    speeds = {False: measured.cache, True: measured.memory}
    return sum(max(phase.flops / peak, phase.bytes / narrower / speeds[phase.far]) for phase in phases) / GIGA


def limits(size: int, threads: int) -> Limits:
    """The best of 7: interference only ever makes a figure worse."""
    import torch

    def best(task: Callable[[], Any]) -> float:
        task()
        return min(clock(task)[threads == 1] for _ in range(7))

    square = torch.randn(size, size)
    half, out = square.bfloat16(), torch.empty_like(square)
    near, far = torch.randn(2**20), torch.randn(2**26)  # 4 MB, 256 MB
    flops = 2 * size**3 / GIGA
    return Limits(
        fp32=flops / best(lambda: torch.mm(square, square, out=out)),
        bf16=flops / best(lambda: half @ half),
        cache=near.nbytes * 50 / GIGA / best(lambda: [near.sum() for _ in range(50)]),
        memory=far.nbytes / GIGA / best(far.sum),
    )


def save(path: Path, measured: Limits, results: Sequence[Result], threads: int, repeats: int) -> None:
    import torch

    from slm.data.replacing import write_json

    facts = {"threads": threads, "repeats": repeats, "torch": torch.__version__, "machine": platform.processor() or platform.machine()}
    facts |= {"clock": "processor" if threads == 1 else "wall", "limits": asdict(measured), "results": [asdict(r) for r in results]}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, facts)


def show(measured: Limits, results: Sequence[Result], threads: int) -> None:
    from rich.console import Console
    from rich.table import Table

    kind = "processor time" if threads == 1 else "time on the wall"
    peaks = f"{measured.fp32:.0f} GFLOP/s in fp32, {measured.bf16:.0f} in bf16, "
    peaks += f"{measured.cache:.0f} GB/s from the cache, {measured.memory:.0f} from memory"
    out = Table(caption=f"{threads} thread{'s' * (threads > 1)}, medians of {kind} (quartiles); this machine: {peaks}")
    for heading in ("task", "who", "ms", "x real time", "ours is faster by", "of the limit", "agrees with ours"):
        out.add_column(heading, justify="left" if heading in ("task", "who", "agrees with ours") else "right", overflow="fold")
    task = None
    for result in results:
        out.add_row(result.race if result.race != task else "", result.contestant, *cells(result, threads))
        task = result.race
    Console(width=160).print(out)


def cells(result: Result, threads: int) -> tuple[str, ...]:
    if not result.wall:
        return "-", "-", "-", "-", result.why
    low, middle, high = (1000 * t for t in (result.processor if threads == 1 else result.wall))
    digits = 3 if middle < 10 else 1
    speed = f"{result.real_time:.1f}" if result.real_time else "-"
    spread = f"{middle:.{digits}f} ({low:.{digits}f}, {high:.{digits}f})"
    return spread, speed, f"{result.ratio:.2f}", f"{result.of_limit:.0%}", result.agreement
