"""The command line: `slm speak | encode | decode | tokenizers | prepare | render | align | train | pack | demo`; more in cli_measure.py.

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
from slm.cli_measure import bench, evaluate, pairs, study, systems, verify
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
    voice_text: Annotated[Optional[str], typer.Option(help="What is said in that recording, for a model that goes on from it.")] = None,
    model: Annotated[str, typer.Option(help="A bundled model, a folder that training wrote, or a hub id.")] = "default",
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same audio.")] = 0,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write: .wav, .flac or .ogg.")] = Path("speech.wav"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON about what was written.")] = False,
    description: Annotated[str, typer.Option(help="How to sound, for a model that is told in words.")] = "",
    stream: Annotated[bool, typer.Option("--stream", help="Send raw samples to standard output as they are made; no file.")] = False,
) -> None:
    """Say TEXT in a voice.

    \b
      slm speak "Hello there." -o hello.wav
      slm speak "Hello there." --voice prompt.wav --seed 1 -o hello.wav
      slm speak - --json < chapter.txt
      slm speak "A long text." --stream | aplay -f S16_LE -r 16000     (the rate is told on stderr)
      some-language-model | slm speak - --stream | aplay -f S16_LE -r 16000     (speaks while the text is being written)
      slm speak "Hello there." --model runs/valle --voice prompt.wav --voice-text "What the prompt says."
      slm speak "Hello there." --model runs/parler --description "slowly, in a low voice"
    """
    from slm.codes import check_output
    from slm.data.audio import FORMATS
    from slm.speak import load

    if stream and as_json:
        raise SlmError("--stream and --json both want standard output; give one of them")
    if not stream:
        check_output(output, tuple(FORMATS))
    speaker = load(model)
    if stream:
        return _play(speaker.stream(_written() if text == "-" else text, voice, voice_text, seed, description))
    if text == "-":
        text = "".join(_written())
    speech = speaker.speak(text, voice, voice_text, seed, description)
    speech.save(output)
    facts = {"path": str(output), "seconds": round(speech.seconds, 3), "rate": speech.rate, "stop_reason": speech.stop_reason}
    facts |= {"rtf": round(speech.rtf, 4), "seed": speech.seed, "model": model}
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        typer.echo(f"{output}: {speech.seconds:.2f} s, {speech.rate} Hz, ended by {speech.stop_reason}, real-time factor {speech.rtf:.2f}")


@app.command()
def reply(
    question: Annotated[Path, typer.Argument(help="What is asked, half a minute at most: wav, flac, ogg, opus or mp3.")],
    model: Annotated[str, typer.Option(help="A folder that training a model of several tasks wrote.")],
    voice: Annotated[Optional[Path], typer.Option(help="Who answers, where the model takes a voice. Default: who asked.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same answer.")] = 0,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write: .wav, .flac or .ogg.")] = Path("answer.wav"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON about what was written.")] = False,
) -> None:
    """Answer a spoken question in speech.

    \b
      slm train recipes/speech_lm/omni.py --out runs/omni
      slm reply question.wav --model runs/omni -o answer.wav
    """
    from slm.codes import check_output
    from slm.data.audio import FORMATS
    from slm.reply import reply as answer
    from slm.speak import load

    check_output(output, tuple(FORMATS))
    found = answer(load(model), question, voice, seed)
    _save(found.speech, output, found.texts, as_json)


@app.command()
def change(
    speech: Annotated[Path, typer.Argument(help="What is said, twelve seconds at most: wav, flac, ogg, opus or mp3.")],
    model: Annotated[str, typer.Option(help="A folder that training Make-A-Voice or UniAudio wrote.")],
    voice: Annotated[Optional[Path], typer.Option(help="Whose voice it is to be. Default: its own, without noise.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same samples.")] = 0,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write: .wav, .flac or .ogg.")] = Path("changed.wav"),
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON about what was written.")] = False,
) -> None:
    """Say the same words in another voice, or without noise.

    \b
      slm train recipes/speech_lm/uniaudio.py --out runs/uniaudio
      slm change me.wav --voice you.wav --model runs/uniaudio
      slm change noisy.wav --model runs/uniaudio
    """
    from slm.change import change as changed
    from slm.codes import check_output
    from slm.data.audio import FORMATS
    from slm.speak import load

    check_output(output, tuple(FORMATS))
    _save(changed(load(model), speech, voice, seed), output, {}, as_json)


def _save(speech: "Speech", output: Path, texts: dict[str, str], as_json: bool) -> None:
    """Write what was said, and tell about it and what was written before it."""
    speech.save(output)
    if as_json:
        facts = {"path": str(output), "seconds": round(speech.seconds, 3), "stop_reason": speech.stop_reason, "seed": speech.seed}
        typer.echo(json.dumps(facts | texts))
        return
    for part, text in texts.items():
        typer.echo(f"{part.replace('_', ' ')}: {text}")
    typer.echo(f"{output}: {speech.seconds:.2f} s, ended by {speech.stop_reason}")


def _written() -> Iterator[str]:
    """Standard input as it is written, bit by bit. SlmError if it is not UTF-8."""
    import codecs

    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        while data := sys.stdin.buffer.read1(65536):
            yield decoder.decode(data)
        yield decoder.decode(b"", final=True)
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
def render(
    texts: Annotated[Path, typer.Argument(help="A text file, a sentence a line; or: dialogues, made of templates; or: pseudo.")],
    out: Annotated[Path, typer.Argument(help="The folder to write: audio, cuts.jsonl.gz and phones.jsonl.")],
    count: Annotated[int, typer.Option(min=1, help="How many lines, or dialogues.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Which ones.")] = 0,
) -> None:
    """Let flite say a text file: a robotic corpus whose phones are known to the frame, in nine voices.

    \b
      slm render sentences.txt data/flite --count 3000
      slm render dialogues data/dialogues --count 900
      slm render pseudo data/pseudo                        (the dialogues' sentences in a language made by rule)

    For experiments where no speech is at hand, or where every label must be right. Needs flite: apt install flite
    """
    from slm.data.render import render, render_dialogues, render_pseudo

    if str(texts) == "pseudo":
        said = render_pseudo(out)
    elif str(texts) == "dialogues":
        said = render_dialogues(out, count, seed)
    else:
        said = render(texts, out, count, seed)
    typer.echo(f"{out}: {said} sentences")


@app.command()
def align(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="What `slm prepare` wrote; aligned together.")],
    spikes: Annotated[Optional[list[Path]], typer.Option(help="JSON lines with path and spikes, to start from.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same alignment.")] = 0,
    by: Annotated[Optional[Path], typer.Option(help="An aligner that has learned already; it is used as it is.")] = None,
) -> None:
    """Find out when each phone of a prepared corpus is said. What was learned is kept beside the first folder, as aligner/.

    \b
      slm align data/lj data/libri
      slm align data/more --by data/aligner
    """
    from slm.data.aligning import align_folders

    typer.echo(f"{align_folders(folders, spikes or (), seed, by)} clips aligned")


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


for command in (evaluate, pairs, study, bench, verify, systems):
    app.command()(command)


def main() -> None:
    app(prog_name="slm")


if __name__ == "__main__":
    main()
