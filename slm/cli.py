"""The command line: `slm speak | encode | decode | tokenizers | prepare | align | train | pack | evaluate | study | demo | bench | verify`.

Each command imports what it needs when it runs, so that `slm --help` needs neither torch nor numpy. A user's mistake (SlmError) becomes one
sentence on stderr and exit code 2, an interrupted command exits with 130, and everything else is a bug and shows its traceback.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from typer.core import TyperGroup

from slm import __version__
from slm.errors import SlmError

if TYPE_CHECKING:
    from slm.speak import Speech

WRONG = 2


class Commands(TyperGroup):
    """The commands in the order of this file; what goes wrong in one is told in a sentence."""

    def list_commands(self, ctx) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except SlmError as error:
            typer.echo(f"slm: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(WRONG) from error


app = typer.Typer(
    name="slm",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def start(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False) -> None:
    """Speech language models: a text and three seconds of a voice in, that voice out.

    \b
      slm speak "Hello there." --voice prompt.wav -o hello.wav
      slm demo

    `slm COMMAND --help` explains a command, with examples.
    """
    from slm.versions import check_torch

    check_torch()


@app.command()
def speak(
    text: Annotated[str, typer.Argument(help="What to say; - reads it from standard input.")],
    voice: Annotated[Optional[Path], typer.Option(help="About three seconds of the voice. Default: the voice in the model.")] = None,
    voice_text: Annotated[Optional[str], typer.Option(help="What is said in that recording, for models that can use it.")] = None,
    model: Annotated[str, typer.Option(help="A bundled model, a folder that training wrote, or a hub id.")] = "default",
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same audio.")] = 0,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write: .wav, .flac or .ogg.")] = Path("speech.wav"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON about what was written.")] = False,
    stream: Annotated[bool, typer.Option("--stream", help="Send raw samples to standard output as they are made; no file.")] = False,
) -> None:
    """Say TEXT in a voice.

    \b
      slm speak "Hello there." -o hello.wav
      slm speak "Hello there." --voice prompt.wav --seed 1 -o hello.wav
      slm speak - --json < chapter.txt
      slm speak "A long text." --stream | aplay -f S16_LE -r 16000     (the rate is told on stderr)
    """
    from slm.codes import check_output
    from slm.data.audio import FORMATS
    from slm.speak import load

    if stream and as_json:
        raise SlmError("--stream and --json both want standard output; give one of them")
    if not stream:
        check_output(output, tuple(FORMATS))
    if text == "-":
        text = _stdin()
    speaker = load(model)
    if stream:
        return _play(speaker.stream(text, voice, voice_text, seed))
    speech = speaker.speak(text, voice, voice_text, seed)
    speech.save(output)
    facts = {"path": str(output), "seconds": round(speech.seconds, 3), "rate": speech.rate, "stop_reason": speech.stop_reason}
    facts |= {"rtf": round(speech.rtf, 4), "seed": speech.seed, "model": model}
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        typer.echo(f"{output}: {speech.seconds:.2f} s, {speech.rate} Hz, ended by {speech.stop_reason}, real-time factor {speech.rtf:.2f}")


def _stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise SlmError(f"the text on standard input is not UTF-8 ({error})") from error


def _play(pieces: Iterator[Speech]) -> None:
    """16-bit little-endian mono samples to standard output, each piece as soon as it is spoken."""
    for i, piece in enumerate(pieces):  # piece.audio [N]
        if i == 0:
            typer.echo(f"{piece.rate} Hz, 16 bits, mono", err=True)
        sys.stdout.buffer.write((piece.audio.float().clamp(-1, 1) * 32767).round().short().cpu().numpy().astype("<i2").tobytes())
        sys.stdout.buffer.flush()


@app.command()
def encode(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A recording: wav, flac, ogg, opus or mp3.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write: .safetensors.")],
    tokenizer: Annotated[str, typer.Option(help="default, or a tokenizer's file or folder.")] = "default",
) -> None:
    """Turn a recording into codes.

    \b
      slm encode in.wav -o codes.safetensors
      slm encode in.wav -o codes.safetensors --tokenizer encodec_24khz/
    """
    from slm.codes import encode_file

    done = encode_file(source, output, tokenizer)
    bits = done.path.stat().st_size * 8 / 1000 / done.seconds
    typer.echo(f"{done.path}: {done.levels} levels, {done.frames} frames, {done.seconds:.2f} s, {bits:.1f} kbit/s as stored")


@app.command()
def decode(
    source: Annotated[Path, typer.Argument(metavar="CODES", help="What `slm encode` wrote.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write: .wav, .flac or .ogg.")],
    tokenizer: Annotated[Optional[str], typer.Option(help="Default: the one that the file names.")] = None,
) -> None:
    """Turn codes back into a recording.

    \b
      slm decode codes.safetensors -o out.wav
    """
    from slm.codes import decode_file

    done = decode_file(source, output, tokenizer)
    typer.echo(f"{done.path}: {done.seconds:.2f} s at {done.rate} Hz")


@app.command()
def tokenizers(
    paths: Annotated[Optional[list[str]], typer.Argument(metavar="[PATH[@LEVELS]]...", help="More tokenizers: files or folders.")] = None,
    data: Annotated[Optional[list[Path]], typer.Option(help="Recordings, manifests, prepared or other folders; repeatable.")] = None,
    opus: Annotated[Optional[list[float]], typer.Option(help="Opus at so many kbit/s, as a yardstick; repeatable.")] = None,
    judges: Annotated[bool, typer.Option("--judges", help="Also count word errors, compare voices and predict opinion.")] = False,
    speakers: Annotated[str, typer.Option(help="Only these, with commas between; held-out: those no shipped model has heard.")] = "",
    limit: Annotated[Optional[int], typer.Option(min=1, help="Only so many recordings, spread evenly.")] = None,
    output: Annotated[Optional[Path], typer.Option("--json", metavar="FILE", help="Write every figure with its interval here too.")] = None,
) -> None:
    """Compare codecs: rate, codebooks, bits a second, parameters, and how near their reconstruction comes.

    \b
      slm tokenizers
      slm tokenizers runs/codec/codec encodec_24khz/ --data recordings/
      slm tokenizers default@4 --opus 6 --opus 12 --data data/dev --judges --json codecs.json
      slm tokenizers --data data/libri --speakers held-out --limit 100

    PATH@LEVELS decodes a codec's first levels only. The judges: pip install "slm[evaluate]"
    """
    from slm.codes import check_output
    from slm.table import compare, show, write

    if output:
        check_output(output, (".json",))
    compared = compare(paths or (), data or (), opus or (), judges, [s.strip() for s in speakers.split(",") if s.strip()], limit)
    show(compared)
    if output:
        write(compared, output)


@app.command()
def prepare(
    source: Annotated[Path, typer.Argument(help="A folder of speech, or a manifest.")],
    out: Annotated[Path, typer.Argument(help="The folder to write cuts.jsonl.gz and skipped.jsonl into.")],
    layout: Annotated[str, typer.Option(help="folder, ljspeech, librispeech or manifest; auto finds out.")] = "auto",
    exclude_source: Annotated[Optional[list[str]], typer.Option(help="A source to leave out; repeatable.")] = None,
) -> None:
    """List a corpus for training, and what is broken in it.

    \b
      slm prepare LJSpeech-1.1 data/lj
      slm prepare LibriSpeech/train-clean-100 data/libri --layout librispeech
      slm prepare corpus data/corpus --exclude-source asterisk
    """
    from slm.data.prepare import prepare

    prepare(source, out, layout, exclude_source or ())


@app.command()
def align(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="What `slm prepare` wrote; aligned together.")],
    spikes: Annotated[Optional[list[Path]], typer.Option(help="JSON lines with path and spikes, to start from.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same alignment.")] = 0,
) -> None:
    """Find out when each phone of a prepared corpus is said.

    \b
      slm align data/lj data/libri
    """
    from slm.data.aligning import align_folders

    typer.echo(f"{align_folders(folders, spikes or (), seed)} clips aligned")


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.py", help="A file of recipes/, or your own.")],
    stage: Annotated[Optional[str], typer.Option(help="Which stage of the recipe. Default: its first.")] = None,
    out: Annotated[Optional[Path], typer.Option(help="Where the run goes. Default: runs/NAME of the recipe.")] = None,
    changes: Annotated[Optional[list[str]], typer.Option("--set", metavar="A.B=VALUE", help="Change one place; repeatable.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint, bit for bit.")] = False,
) -> None:
    """Train a stage of a recipe.

    \b
      slm train recipes/zero_shot/default.py --stage semantic
      slm train recipes/zero_shot/default.py --set train.semantic.steps=100 --out runs/try
      slm train recipes/zero_shot/default.py --set "stages.semantic.backbone=Mamba2.Config(dim=256, depth=6)"
      slm train recipes/zero_shot/default.py --resume

    Several processes: torchrun --nproc-per-node 2 recipes/zero_shot/default.py --stage semantic
    """
    from slm.train.run import train_recipe

    train_recipe(recipe, stage, out or Path("runs") / recipe.stem, changes or [], resume)


@app.command()
def pack(
    run: Annotated[Path, typer.Argument(help="The folder that training wrote.")],
    out: Annotated[Path, typer.Argument(help="The folder to make.")],
    voice: Annotated[Optional[Path], typer.Option(help="The voice it speaks in when it is given none.")] = None,
    card: Annotated[Optional[Path], typer.Option(help="Its model card, a markdown file.")] = None,
) -> None:
    """Copy what speaks out of a run, to share it.

    \b
      slm pack runs/default my-model --voice prompt.wav --card card.md
    """
    from slm.model import pack as pack_model

    size = pack_model(run, out, voice, card)
    typer.echo(f"{out}: {size / 1e6:.1f} MB")


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A bundled model, a folder that training wrote, or a hub id.")],
    data: Annotated[Optional[Path], typer.Option(help="JSON lines with text, prompt_path and gt_path.")] = None,
    out: Annotated[Path, typer.Option(help="The folder for the report and what was spoken.")] = Path("runs/evaluate"),
    seed: Annotated[int, typer.Option(min=0, help="Stored in the report, beside the scores.")] = 0,
    limit: Annotated[Optional[int], typer.Option(min=1, help="Only the first so many pairs.")] = None,
    requests: Annotated[int, typer.Option(min=0, help="Put so many odd requests instead, and count what ends badly.")] = 0,
) -> None:
    """Let independent judges hear a model, beside real recordings.

    \b
      slm evaluate default --data pairs.jsonl
      slm evaluate runs/mine --data pairs.jsonl --limit 20 --out runs/scores
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

    report = judge(load(model), pairs, out, seed)
    report.show(Console())
    typer.echo(f"{out / 'report.json'}")


@app.command()
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
    show(run(module.small() if small else module.study(), out, data, tuple(seed or ()), quiet=small))
    typer.echo(f"{out / 'report.json'}")


@app.command()
def demo(
    model: Annotated[str, typer.Option(help="A bundled model, a folder that training wrote, or a hub id.")] = "default",
    host: Annotated[str, typer.Option(help="0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free port.")] = 7860,
) -> None:
    """Open the web page: type a text, give a voice, hear it.

    \b
      slm demo
      slm demo --model runs/mine --port 8000
    """
    from slm.demo.app import launch

    launch(model, host, port, share=False)


@app.command()
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


@app.command()
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


def main() -> None:
    app(prog_name="slm")


if __name__ == "__main__":
    main()
