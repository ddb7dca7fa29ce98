"""The commands that measure: `slm evaluate | pairs | study | bench | verify | systems`. cli.py offers them beside the others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from slm.errors import SlmError


def evaluate(
    model: Annotated[str, typer.Argument(help="A bundled model, a folder that training wrote, or a hub id.")],
    data: Annotated[Optional[Path], typer.Option(help="JSON lines with text, prompt_path and gt_path.")] = None,
    out: Annotated[Path, typer.Option(help="The folder for the report and what was spoken.")] = Path("runs/evaluate"),
    seed: Annotated[int, typer.Option(min=0, help="Stored in the report, beside the scores.")] = 0,
    limit: Annotated[Optional[int], typer.Option(min=1, help="Only the first so many pairs.")] = None,
    requests: Annotated[int, typer.Option(min=0, help="Put so many odd requests instead, and count what ends badly.")] = 0,
    beside: Annotated[
        Optional[list[str]], typer.Option(metavar="SYSTEM", help="flite, flite:VOICE, espeak-ng, or NAME=FOLDER of ID.wav; repeatable.")
    ] = None,
) -> None:
    """Let independent judges hear a model, beside real recordings, and make a page to listen to.

    \b
      slm evaluate default --data pairs.jsonl
      slm evaluate runs/mine --data pairs.jsonl --limit 20 --out runs/scores
      slm evaluate default --data pairs.jsonl --beside flite --beside espeak-ng --beside other=runs/other/wavs
      slm evaluate default --requests 200          (no judges: is any output empty, endless or looping?)

    The judges: pip install "slm[evaluate]"
    """
    from rich.console import Console

    from slm.evaluate.pairs import read_pairs
    from slm.speak import load

    if data is None and not requests:
        raise SlmError("give --data, a manifest of pairs, or --requests, a number")
    pairs = read_pairs(data)[:limit] if data else []
    if requests:
        from slm.evaluate.requests import run

        outcome = run(load(model), [pair.prompt_path for pair in pairs] or [None], requests, out, seed)
        typer.echo(f"{outcome.requests} requests, {outcome.seconds:.0f} s of speech, real-time factor {outcome.rtf:.2f}")
        typer.echo(f"ended by {dict(outcome.stops)}; {len(outcome.bad)} ended badly, see {out / 'requests.json'}")
        return
    from slm.evaluate.speak_eval import evaluate as judge

    report = judge(load(model), pairs, out, seed, beside=beside or (), title=f"slm evaluate {model}")
    report.show(Console())
    typer.echo(f"{out / 'report.json'}\n{out / 'index.html'}")


def pairs(
    folder: Annotated[Path, typer.Argument(help="A folder that `slm prepare` and `slm align` wrote.")],
    out: Annotated[Path, typer.Option(help="The folder for pairs.jsonl and audio/.")] = Path("runs/pairs"),
    speaker: Annotated[
        Optional[list[str]], typer.Option(help="Whose recordings; repeatable. Default: speakers that no shipped model has heard.")
    ] = None,
) -> None:
    """Cut recordings in two for `slm evaluate`: until a pause the voice, behind it what is to be said.

    \b
      slm pairs data/train --out runs/pairs
      slm evaluate default --data runs/pairs/pairs.jsonl
    """
    from slm.data.splits import HELD_OUT
    from slm.evaluate.halves import halve

    rows = halve(folder, tuple(speaker or HELD_OUT), out)
    typer.echo(f"{len(rows)} pairs of {len({row['speaker'] for row in rows})} speakers: {out / 'pairs.jsonl'}")


def study(
    path: Annotated[Path, typer.Argument(metavar="STUDY.py", help="A file of recipes/study/, or your own.")],
    out: Annotated[Optional[Path], typer.Option(help="Where runs and report go. Default: runs/NAME of the study.")] = None,
    data: Annotated[Path, typer.Option(help="The folder of prepared corpora, with held-out speech.")] = Path("data"),
    seed: Annotated[Optional[list[int]], typer.Option(min=0, help="Seeds instead of the study's own; repeatable.")] = None,
    small: Annotated[bool, typer.Option("--small", help="A few steps on made-up speech, to see that it runs.")] = False,
) -> None:
    """Put a paper's claims to the test: train a system and its controls, compare them on speech they have not heard.

    \b
      slm study recipes/study/codec.py
      slm study recipes/study/hubert.py --seed 0 --out runs/try

    What is finished is not trained again, what was broken off goes on. Needs: pip install "slm[evaluate]"
    """
    from slm.study.run import load, run, show

    module, out = load(path), out or Path("runs") / f"study-{path.stem}"
    command = " ".join(["slm study", "/".join(path.parts[-3:]), *(f"--seed {each}" for each in seed or ()), *["--small"] * small])
    show(run(module.small() if small else module.study(), out, data, tuple(seed or ()), quiet=small, command=command))
    typer.echo(f"{out / 'report.json'}")


def bench(
    what: Annotated[
        Optional[list[str]], typer.Argument(metavar="[WHAT]...", help="encodec, rvq, mamba2, transformer; or long. Default: the first two.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="With 1, processor time is shown, which a busy machine hardly changes.")] = 1,
    repeats: Annotated[int, typer.Option(min=1, help="How often each is measured.")] = 9,
    small: Annotated[bool, typer.Option("--small", help="Tiny shapes: does it run? Their times mean nothing.")] = False,
    json_file: Annotated[Optional[Path], typer.Option("--json", metavar="FILE", help="Write every figure there too.")] = None,
    minutes: Annotated[int, typer.Option(min=1, help="long: how much audio.")] = 60,
    patience: Annotated[float, typer.Option(min=0, help="long: minutes on the wall after which the Transformer is stopped.")] = 60.0,
    plot: Annotated[Optional[Path], typer.Option(metavar="FILE", help="long: draw the curves there, a PNG.")] = None,
) -> None:
    """Measure our speed beside other implementations, in one run.

    \b
      slm bench
      slm bench encodec --repeats 21 --json runs/bench.json
      slm bench rvq --threads 2
      slm bench long --minutes 60 --patience 10 --json long.json --plot long.png

    All do the same task with the same weights, in turns, and what they return is compared. "of the limit" says how near the time is to
    that of the products of matrices alone, at the speed that this machine reaches in a large one. "long" shows what a step of a backbone
    takes of memory and time, minute after minute of audio.
    """
    if "long" in (what or ()):
        return _bench_long(what, minutes, patience, small, json_file, plot)
    from slm.bench.run import bench as measure
    from slm.bench.run import save, show

    limits, results = measure(what or (), repeats, threads, small)
    show(limits, results, threads)
    if json_file:
        save(json_file, limits, results, threads, repeats)
        typer.echo(json_file)


def _bench_long(what: list[str], minutes: int, patience: float, small: bool, json_file: Path | None, picture: Path | None) -> None:
    from slm.bench.long import line, long, plot, save
    from slm.codes import check_output

    if what != ["long"]:
        raise SlmError("'long' is measured alone; leave out the others.")
    if picture:
        check_output(picture, (".png",))

    def heard(curves: list) -> None:
        typer.echo(line(curves[-1]))
        if json_file:
            save(json_file, curves)

    curves = long(minutes, patience, heard, small)
    if picture:
        plot(picture, curves)
    for written in filter(None, (json_file, picture)):
        typer.echo(written)


def verify(
    only: Annotated[Optional[list[str]], typer.Argument(metavar="[NAME]...", help="Only these, such as ssd. Default: all.")] = None,
    output: Annotated[Optional[Path], typer.Option("--json", metavar="FILE", help="Write every figure here too.")] = None,
) -> None:
    """Check this machine's arithmetic: fused kernels against plain torch, backbones at once against step by step.

    \b
      slm verify
      slm verify ssd norm --json verify.json

    Ends with 1 if anything is further off than allowed.
    """
    from rich.console import Console

    from slm.codes import check_output
    from slm.verify import table, verify, write

    if output:
        check_output(output, (".json",))
    checks = verify(only)
    Console().print(table(checks))
    if output:
        write(checks, output)
    wrong = sum(not check.passed for check in checks)
    typer.echo(f"{len(checks)} checks, {wrong} wrong; computed by {', '.join(sorted({check.by for check in checks}))}")
    if wrong:
        raise typer.Exit(1)


def systems(
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON: name, group, recipe, verified, figure.")] = False,
) -> None:
    """Every published system this toolkit aims at: its recipe, and what was measured of it.

    \b
      slm systems
      slm systems --json

    The figures are read from the results that lie beside the recipes; `slm study` and `slm verify` wrote them.
    """
    import json
    from dataclasses import asdict

    from slm.systems import rows, table

    found = rows()
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in found], indent=1))
    else:
        from rich.console import Console

        Console().print(table(found))
