"""The command line: it lists its commands, and a mistake is one sentence, exit code 2 and no file."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from slm import __version__, codes, versions
from slm.cli import app
from slm.errors import SlmError
from slm_tokenizers import Encodec

COMMANDS = ["speak", "reply", "change", "encode", "decode", "tokenizers", "prepare", "render", "align", "train", "pack", "demo"]
COMMANDS += ["evaluate", "pairs", "study", "bench", "verify", "systems"]


def slm(*arguments, stdin: str | None = None):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin, prog_name="slm")


def assert_one_sentence(result, *says: str):
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("slm: ") and result.stderr.count("\n") == 1 and "Traceback" not in result.stderr
    for word in says:
        assert word in result.stderr


@pytest.fixture
def recording(tmp_path) -> Path:
    """Half a second of a tone at 24 kHz."""
    path = tmp_path / "in.wav"
    soundfile.write(path, 0.3 * np.sin(np.arange(12_000) * 0.1), 24_000)
    return path


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> Path:
    """A tiny untrained EnCodec on disk, 75 frames of 2 levels a second."""
    torch.manual_seed(0)
    return write_encodec(tmp_path_factory.mktemp("tokenizer"))


def write_encodec(folder: Path) -> Path:
    """Random weights, in the layout that transformers writes."""
    model = Encodec.Config(n_q=2, card=16, dim=8, n_filters=4, bandwidths=(0.6,)).build()
    weights = model.state_dict()
    weights |= {f"quantizer.layers.{q}.codebook.embed": torch.randn(16, 8) for q in range(len(weights.pop("quantizer.embed")))}
    config = {"model_type": "encodec", "num_filters": 4, "hidden_size": 8, "codebook_size": 16, "target_bandwidths": [0.6]}
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_help_lists_every_command_in_the_order_of_use():
    shown = slm("--help").stdout
    assert [line.split()[0] for line in shown.split("Commands:")[1].splitlines() if line.strip()] == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_shows_how_to_call_it(command):
    result = slm(command, "--help")
    assert result.exit_code == 0 and f"slm {command} " in result.stdout.split("Usage:")[1].split("\n", 1)[1] + " "


def test_version_is_the_packages():
    assert slm("--version").stdout.strip() == __version__


def test_python_dash_m_slm_is_the_same_program():
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-m", "slm", "--version"], capture_output=True, text=True, cwd=root, check=False)
    assert done.stdout.strip() == __version__


def test_an_unknown_option_or_a_missing_argument_exits_with_2():
    assert slm("speak", "Hello.", "--louder").exit_code == 2
    assert slm("speak").exit_code == 2


def test_encode_then_decode_gives_a_recording_of_the_same_length(recording, tokenizer, tmp_path):
    coded, out = tmp_path / "codes.safetensors", tmp_path / "out.wav"
    result = slm("encode", recording, "-o", coded, "--tokenizer", tokenizer)
    assert result.exit_code == 0 and "38 frames" in result.stdout
    assert slm("decode", coded, "-o", out).exit_code == 0  # the file says which tokenizer
    assert soundfile.info(out).frames == 12_000 and soundfile.info(out).samplerate == 24_000


def test_the_stored_codes_are_the_tokenizers_and_the_audio_is_theirs(recording, tokenizer, tmp_path):
    coded, out = tmp_path / "codes.safetensors", tmp_path / "out.wav"
    slm("encode", recording, "-o", coded, "--tokenizer", tokenizer)
    slm("decode", coded, "-o", out)
    codec = codes.load_tokenizer(str(tokenizer))
    audio = torch.from_numpy(soundfile.read(recording, dtype="float32")[0])
    with torch.inference_mode():
        expected = codec.encode(audio[None, None])
        decoded = codec.decode(expected, 12_000)[0, 0]
    assert torch.equal(codes.read_codes(coded)[0], expected[0])
    assert torch.allclose(torch.from_numpy(soundfile.read(out, dtype="float32")[0]), decoded.clamp(-1, 1), atol=1e-4)


def test_audio_from_codes_is_marked_synthetic(recording, tokenizer, tmp_path):
    slm("encode", recording, "-o", tmp_path / "codes.safetensors", "--tokenizer", tokenizer)
    slm("decode", tmp_path / "codes.safetensors", "-o", tmp_path / "out.wav")
    assert "synthetic" in soundfile.SoundFile(tmp_path / "out.wav").comment


def test_codes_of_another_tokenizer_are_refused(recording, tokenizer, tmp_path):
    (tmp_path / "other").mkdir()
    write_encodec(tmp_path / "other")
    slm("encode", recording, "-o", tmp_path / "codes.safetensors", "--tokenizer", tokenizer)
    result = slm("decode", tmp_path / "codes.safetensors", "-o", tmp_path / "out.wav", "--tokenizer", tmp_path / "other")
    assert_one_sentence(result, "another tokenizer")
    assert not (tmp_path / "out.wav").exists()


@pytest.mark.parametrize(
    "tensors, says",
    [
        ({"mel": torch.zeros(2, 3)}, "not a file of codes"),
        ({"codes": torch.zeros(2, 3)}, "whole numbers"),
        ({"codes": torch.zeros(2, 0, dtype=torch.int32)}, "whole numbers"),
        ({"codes": torch.full((2, 3), 16)}, "ids up to 16"),
        ({"codes": torch.full((2, 3), -1)}, "levels of ids"),
        ({"codes": torch.zeros(99, 3, dtype=torch.int16)}, "99 levels"),
    ],
)
def test_a_file_that_holds_no_such_codes_is_refused(tensors, says, tokenizer, tmp_path):
    save_file(tensors, tmp_path / "codes.safetensors")
    result = slm("decode", tmp_path / "codes.safetensors", "-o", tmp_path / "out.wav", "--tokenizer", tokenizer)
    assert_one_sentence(result, says)
    assert not (tmp_path / "out.wav").exists()


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["encode", "missing.wav", "-o", "codes.safetensors", "--tokenizer", "TOKENIZER"], "missing.wav"),
        (["encode", "text.wav", "-o", "codes.safetensors", "--tokenizer", "TOKENIZER"], "text.wav"),
        (["encode", "in.wav", "-o", "codes.safetensors", "--tokenizer", "nobodys"], "no tokenizer 'nobodys'"),
        (["encode", "in.wav", "-o", "codes.bin"], "must end in .safetensors"),
        (["encode", "in.wav", "-o", "nowhere/codes.safetensors"], "no folder nowhere"),
        (["decode", "missing.safetensors", "-o", "out.wav"], "missing.safetensors"),
        (["decode", "text.wav", "-o", "out.wav"], "not a file of codes"),
        (["decode", "in.wav", "-o", "out.mp4"], "must end in .wav or .flac or .ogg"),
        (["speak", "Hello.", "--model", "nobodys", "-o", "out.wav"], "nobodys"),
        (["speak", "Hello.", "-o", "out.mp4"], "must end in"),
        (["speak", "Hello.", "-o", "nowhere/out.wav"], "no folder nowhere"),
        (["speak", "Hello.", "--stream", "--json"], "--stream and --json"),
        (["align", "missing"], "missing"),
        (["train", "missing.py"], "missing.py"),
        (["evaluate", "nobodys", "--data", "missing.jsonl"], "missing.jsonl"),
        (["prepare", "missing", "prepared"], "no corpus at missing"),
    ],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(arguments, says, recording, tokenizer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.wav").write_text("these are words, not sound")
    before = sorted(tmp_path.rglob("*"))
    assert_one_sentence(slm(*[tokenizer if word == "TOKENIZER" else word for word in arguments]), says)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_interrupted_command_exits_with_130_and_leaves_no_file(recording, tokenizer, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(codes, "fingerprint", interrupt)
    before = sorted(tmp_path.rglob("*"))
    assert slm("encode", recording, "-o", tmp_path / "codes.safetensors", "--tokenizer", tokenizer).exit_code == 130
    assert sorted(tmp_path.rglob("*")) == before


def test_a_fingerprint_changes_with_any_weight_that_makes_codes():
    layer = torch.nn.Linear(3, 3)
    first = codes.fingerprint(layer)
    assert first == codes.fingerprint(layer)
    with torch.no_grad():
        layer.bias[2] += 1e-6
    assert codes.fingerprint(layer) != first
    both = torch.nn.ModuleDict({"encoder": torch.nn.Linear(2, 2), "decoder": torch.nn.Linear(2, 2)})
    first = codes.fingerprint(both)
    with torch.no_grad():
        both["decoder"].bias += 1
    assert codes.fingerprint(both) == first, "codes do not depend on who makes them sound"
    with torch.no_grad():
        both["encoder"].bias += 1
    assert codes.fingerprint(both) != first


def test_tokenizers_are_compared_on_recordings_and_shapes_are_named(recording, tokenizer):
    shown = slm("tokenizers", tokenizer, "--data", recording)
    assert shown.exit_code == 0, shown.output
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.stdout.splitlines() if "│" in line]
    lines = {name: facts for name, *facts in cells}
    assert lines["default"][:3] == ["16000", "50", "8 x 1024"] and lines["default"][3] == "4.00" and lines["default"][5] == "no"
    assert lines["EnCodec 24 kHz"][:4] == ["24000", "75", "32 x 1024", "24.00"] and lines["EnCodec 24 kHz"][5] == "yes"
    assert lines["Mimi"][1] == "12.5" and lines["Mimi"][5] == "yes" and lines["Mimi"][6] == "-"
    assert float(lines["default"][6]) > 0 and any(line[2] == "2 x 16" and float(line[6]) > 0 for line in lines.values())


def test_what_cannot_be_compared_is_one_sentence(tmp_path, recording):
    (tmp_path / "empty").mkdir()
    assert_one_sentence(slm("tokenizers", "--data", tmp_path / "empty"), "holds no audio")
    assert_one_sentence(slm("tokenizers", "nowhere", "--data", recording), "nowhere")


@pytest.mark.parametrize(
    "torch_version, torchaudio_version, fits",
    [("2.11.0", "2.11.0", True), ("2.11.0+cu130", "2.11.0", True), ("2.11.0+cpu", "2.11.0+cpu", True),
     ("2.13.0", "2.11.0", False), ("2.11.0+cpu", "2.11.0", False)],
)  # fmt: skip
def test_a_torch_that_does_not_go_with_torchaudio_is_told_at_the_start(torch_version, torchaudio_version, fits, monkeypatch):
    monkeypatch.setattr(versions, "version", {"torch": torch_version, "torchaudio": torchaudio_version}.get)
    if fits:
        return versions.check_torch()
    with pytest.raises(SlmError, match="do not match"):
        versions.check_torch()
