"""SpeechTokenizer is the published SpeechTokenizer: its ids and its audio, on its own files.

The fixtures were made by the reference implementation (make_speechtokenizer.py). B batch, Q levels, T frames, N samples.
"""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from damaged import refuses_a_pickle
from safetensors import safe_open
from torch import Tensor

from slm.errors import SlmError
from slm_tokenizers import load
from slm_tokenizers.importers_speechtokenizer import speechtokenizer_from_folder
from slm_tokenizers.speechtokenizer import SpeechTokenizer

FIXTURES = Path(__file__).parent / "fixtures"
LENGTHS = (40, 41, 79, 333, 1600)
HOP = 40


def thawed(name: str) -> tuple[dict, dict[str, Tensor]]:
    """Their config.json, and all tensors by name."""
    with safe_open(FIXTURES / f"{name}.safetensors", "pt") as file:
        return json.loads(file.metadata()["config"]), {name: file.get_tensor(name) for name in file.keys()}


@pytest.fixture(scope="module")
def frozen() -> tuple[dict, dict[str, Tensor]]:
    return thawed("speechtokenizer")


def write_folder(folder: Path, frozen, name: str = "SpeechTokenizer.pt", drop: str = "", **config) -> Path:
    """A folder as the authors publish it."""
    folder.mkdir(exist_ok=True)
    weights = {key.removeprefix("model."): tensor for key, tensor in frozen[1].items() if key.startswith("model.")}
    torch.save({key: tensor for key, tensor in weights.items() if key != drop}, folder / name)
    (folder / "config.json").write_text(json.dumps(frozen[0] | config))
    return folder


@pytest.fixture(scope="module")
def ours(frozen, tmp_path_factory) -> SpeechTokenizer:
    return load(write_folder(tmp_path_factory.mktemp("speechtokenizer"), frozen))


@pytest.mark.parametrize("samples", LENGTHS)
def test_ids_and_audio_are_those_of_the_reference(frozen, ours, samples):
    tensors = frozen[1]
    audio, codes = tensors[f"audio.{samples}"], tensors[f"codes.{samples}"].long().transpose(0, 1)
    assert torch.equal(ours.encode(audio), codes) and codes.shape == (len(audio), 4, -(-samples // HOP))
    made = tensors[f"made.{samples}"]
    assert made.std() > 0.01 and (ours.decode(codes) - made).abs().max() <= 1e-4
    assert torch.equal(ours.decode(codes, samples), ours.decode(codes)[..., :samples])
    assert torch.equal(ours.encode(audio, 2), codes[:, :2])


def test_levels_after_the_first_sound_as_those_of_the_reference(frozen, ours):
    codes, voice = frozen[1]["codes.1600"].long().transpose(0, 1), frozen[1]["voice.1600"]
    assert (ours.decode(codes[:, 1:], first=1) - voice).abs().max() <= 1e-4
    assert (ours.decode(codes[:, 1:]) - voice).abs().max() > 1e-2


def test_the_variant_with_snake_has_the_ids_and_audio_of_the_reference(tmp_path):
    snake = thawed("speechtokenizer_snake")
    ours, tensors = load(write_folder(tmp_path, snake)), snake[1]
    alphas = [p for name, p in ours.named_parameters() if name.endswith("alpha")]
    assert ours.config.snake and len(alphas) == 20 and not any((p == 1).any() for p in alphas)
    for samples in (41, 333, 1600):
        codes, made = tensors[f"codes.{samples}"].long().transpose(0, 1), tensors[f"made.{samples}"]
        assert torch.equal(ours.encode(tensors[f"audio.{samples}"]), codes)
        assert made.std() > 0.01 and (ours.decode(codes) - made).abs().max() <= 1e-5
    assert all(level.unique().numel() >= 12 for level in codes.unbind(1))
    assert speechtokenizer_from_folder(tmp_path).report.complete


def test_the_ids_of_the_fixture_mean_something(frozen):
    assert all(level.unique().numel() >= 12 for level in frozen[1]["codes.1600"])


def test_the_published_size_is_that_of_the_published_model():
    with torch.device("meta"):
        model = SpeechTokenizer.Config().build()
    assert model.rate / model.hop == 50
    teaching = 1024 * 768 + 768  # the projection into HuBERT's features, which is not needed here
    assert round((sum(p.numel() for p in model.parameters()) + teaching) / 1e6, 2) == 103.68


def test_the_report_accounts_for_every_tensor(frozen, tmp_path):
    report = speechtokenizer_from_folder(write_folder(tmp_path, frozen)).report
    held = [name for name in frozen[1] if name.startswith("model.")]
    assert report.complete and len(report.mapped) + len(report.unused) == len(held)
    assert len(report.unused) == 3 * 4 + 2 and "transform.weight" in report.unused


def test_another_name_of_the_one_checkpoint_is_found(frozen, tmp_path):
    folder = write_folder(tmp_path, frozen, "SpeechTokenizer_best_dev.pt")
    assert isinstance(load(folder), SpeechTokenizer)
    write_folder(tmp_path, frozen, "another.pt")
    with pytest.raises(SlmError, match="there are 2"):
        load(folder)


def test_what_does_not_fit_is_one_sentence(frozen, tmp_path):
    lacking = "encoder.model.0.conv.conv.weight_v"
    cases = {
        "'GELU' but only 'ELU' and 'Snake' are supported": dict(activation="GELU"),
        "20 missing": dict(activation="Snake"),
        "cannot have": dict(strides=None),
        "of another shape": dict(n_filters=3),
        "1 missing": dict(drop=lacking),
    }
    for i, (says, wrong) in enumerate(cases.items()):
        with pytest.raises(SlmError, match=says) as raised:
            load(write_folder(tmp_path / str(i), frozen, **wrong))
        assert "\n" not in str(raised.value)
    with pytest.raises(SlmError, match="there are 0"):
        (tmp_path / "0" / "SpeechTokenizer.pt").unlink()
        load(tmp_path / "0")
    report = speechtokenizer_from_folder(tmp_path / "4", strict=False).report
    assert report.missing == ["encoder.layers.0.conv.parametrizations.weight.original1"]


@pytest.mark.parametrize("write", [pickle.dump, torch.save])
def test_a_pickle_is_refused_and_never_run(frozen, tmp_path, write):
    folder = write_folder(tmp_path, frozen)
    refuses_a_pickle(lambda _: load(folder), folder / "SpeechTokenizer.pt", write, lambda harm: {"transform.weight": harm})


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda m: m.encode(torch.zeros(1, 1, 39)), "39 samples but this codec needs at least one frame of 40"),
        (lambda m: m.encode(torch.zeros(1, 2, 80)), "2 channels"),
        (lambda m: m.encode(torch.full((1, 1, 80), float("nan"))), "NaN"),
        (lambda m: m.encode(torch.zeros(1, 1, 80), 5), "n_q is 5"),
        (lambda m: m.decode(torch.full((1, 4, 2), 64)), "code 64 of level 0"),
        (lambda m: m.decode(torch.zeros(1, 4, 2, dtype=torch.long), first=1), "4 levels"),
        (lambda m: m.decode(torch.zeros(1, 1, 2, dtype=torch.long), first=4), "first is 4"),
        (lambda m: m.decode(torch.zeros(1, 4, 2, dtype=torch.long), 81), "81"),
        (lambda m: m.stream_encoder(), "not causal"),
        (lambda m: m.stream_decoder(), "not causal"),
        (lambda m: replace(m.config, n_q=0).build(), "n_q is 0"),
        (lambda m: replace(m.config, ratios=()).build(), "ratios"),
    ],
)
def test_a_wrong_input_is_one_sentence(ours, wrong, says):
    with pytest.raises(SlmError, match=says) as raised:
        wrong(ours)
    assert "\n" not in str(raised.value)
