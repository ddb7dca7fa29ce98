"""Every recipe at its small size trains, saves, loads and speaks; a killed run goes on as if nothing had happened."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import slm_tokenizers
import slm_vocoders
from slm import model, recipe
from slm.errors import SlmError
from slm.speak import Speaker, load
from slm.train.run import train_recipe

ROOT = Path(__file__).parent.parent
RECIPES = sorted(path for path in (ROOT / "recipes").glob("*/*.py") if path.parent.name != "study")
SYSTEMS = [path for path in RECIPES if {"semantic", "acoustic"} <= set(recipe.load(path).small().stages)]
LANGUAGE = [path for path in RECIPES if path.parent.name in ("speech_lm", "zero_shot") and path.stem != "merges"]  # merges are counted
ENCODERS = [path for path in RECIPES if path.parent.name == "represent"]
SOUNDS = [path for path in RECIPES if path.parent.name in ("codec", "vocoder")]


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_the_full_recipe_and_the_small_one_have_the_same_structure(path):
    module = recipe.load(path)
    full, small = module.recipe(), module.small()
    assert list(full.stages) == list(small.stages) == list(small.data) == list(small.train)
    assert [type(s) for s in full.stages.values()] == [type(s) for s in small.stages.values()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """path of a recipe -> the folder of its small model, trained once."""
    folders = {}
    for path in SYSTEMS:
        out = tmp_path_factory.mktemp(path.stem)
        for stage in recipe.load(path).small().stages:
            assert len(train_recipe(path, stage, out, small=True, quiet=True)) == 3
        folders[path] = out
    return folders


@pytest.mark.parametrize("path", SYSTEMS, ids=lambda p: p.stem)
def test_a_small_recipe_trains_saves_loads_and_speaks(path, trained, tone_voice):
    speaker = load(trained[path])
    speech = speaker.speak("Hello there.", voice=tone_voice, seed=1)
    assert speech.stop_reason in ("end", "silence") and speech.seconds > 0.1 and speech.audio.isfinite().all()
    again = load(trained[path]).speak("Hello there.", voice=tone_voice, seed=1)
    assert torch.equal(speech.audio, again.audio), "a saved and loaded model must say the same samples"
    other = speaker.speak("Hello there.", voice=tone_voice, seed=2)
    assert not torch.equal(speech.audio[:2000], other.audio[:2000])


@pytest.mark.parametrize("path", SOUNDS, ids=lambda p: p.stem)
def test_a_small_codec_or_vocoder_trains_saves_and_loads(path, tmp_path):
    (stage,) = recipe.load(path).small().stages
    losses = train_recipe(path, stage, tmp_path, small=True)
    assert len(losses) == 3 and all(map(math.isfinite, losses[-1].values()))
    assert any((tmp_path / stage / "log").glob("events*")), "TensorBoard should have something to show"
    if (tmp_path / "codec").exists():
        codec = slm_tokenizers.load(tmp_path / "codec")
        made = codec.decode(torch.zeros(1, codec.n_q, 9, dtype=torch.long))
    else:
        vocoder = slm_vocoders.load(tmp_path / "vocoder")
        if isinstance(vocoder, slm_vocoders.UnitVocoder):
            made = vocoder.sound(torch.zeros(9, dtype=torch.long), torch.zeros(vocoder.voice_dim), torch.full((9,), 120.0))[None]
        else:
            on_codes = isinstance(vocoder, slm_vocoders.CodeHiFiGAN)
            made = vocoder(torch.zeros(1, 2, 9, dtype=torch.long) if on_codes else torch.zeros(1, 80, 9))
    assert made.isfinite().all() and made.shape[:2] == (1, 1) and made.shape[2] in (9 * 320, 9 * 256)


@pytest.mark.parametrize("path", ENCODERS, ids=lambda p: p.stem)
def test_a_small_encoder_or_units_train_save_and_load(path, tmp_path):
    from slm_tokenizers.semantic.units import Units

    audio = torch.randn(1, 1, 4000)
    for stage in recipe.load(path).small().stages:
        losses = train_recipe(path, stage, tmp_path, small=True, quiet=True)
        assert losses and all(map(math.isfinite, losses[-1].values()))
        made = slm_tokenizers.load(tmp_path / stage)
        heard = made.encode(audio) if isinstance(made, Units) else made(audio).out
        assert len(heard.flatten()) > 0 and heard.isfinite().all()
        with pytest.raises(SlmError, match="--resume"):
            train_recipe(path, stage, tmp_path, small=True, quiet=True)


def test_training_then_loading_is_the_trained_stage(tmp_path):
    """What runs after loading has the averaged weights that training ended with, rounded to bfloat16."""
    path = ROOT / "recipes/zero_shot/default.py"
    train_recipe(path, "semantic", tmp_path, small=True, quiet=True)
    from slm.train.checkpoint import latest, read

    average = read(latest(tmp_path / "semantic") / "average.safetensors")
    loaded = model.load(tmp_path).stages["semantic"].state_dict()
    for name, value in average.items():
        assert torch.equal(loaded[name], value.bfloat16().float()), name


def test_a_killed_run_resumes_to_the_last_bit(tmp_path):
    """SIGKILL in the middle of training, then --resume: the same losses as a run that nobody disturbed."""
    path = str(ROOT / "recipes/zero_shot/default.py")
    script = (
        "import sys; from slm.train.run import train_recipe; import torch; torch.set_num_threads(1);"
        "longer = ['train.semantic.steps=12', 'train.semantic.every=4'];"
        "train_recipe(sys.argv[1], 'semantic', sys.argv[2], longer, resume='resume' in sys.argv, small=True)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / p) for p in ("", "tokenizers", "vocoders"))}

    def run(out, *more):
        return subprocess.Popen([sys.executable, "-c", script, path, str(out), *more], env=environment, stdout=subprocess.DEVNULL)

    def losses_of(out):
        lines = (out / "semantic/losses.jsonl").read_text().splitlines()
        return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]

    assert run(tmp_path / "whole").wait() == 0
    victim = run(tmp_path / "killed")
    losses = tmp_path / "killed/semantic/losses.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not losses.exists() or losses.read_text().count("\n") < 6):
        time.sleep(0.01)
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    assert not (tmp_path / "killed/semantic/checkpoints/step-12").exists(), "the run ended before it could be killed"
    assert run(tmp_path / "killed", "resume").wait() == 0

    assert len(losses_of(tmp_path / "whole")) == 12
    assert losses_of(tmp_path / "whole") == losses_of(tmp_path / "killed")
    assert (tmp_path / "whole/semantic.safetensors").read_bytes() == (tmp_path / "killed/semantic.safetensors").read_bytes()


@pytest.mark.parametrize("path", LANGUAGE, ids=lambda p: p.stem)
def test_every_stage_of_a_small_recipe_trains_loads_and_goes_on_from_its_checkpoint(path, tmp_path):
    """Without its last checkpoint a run goes on from the one before, to the same loss and the same weights, bit for bit."""
    import shutil

    small, losses = recipe.load(path).small(), {}
    for stage in small.stages:
        losses[stage] = train_recipe(path, stage, tmp_path, small=True, quiet=True)
        assert len(losses[stage]) == 3 and all(map(math.isfinite, losses[stage][-1].values()))
    loaded = model.load(tmp_path)
    assert set(loaded.stages) == set(small.stages)
    for stage in small.stages:
        written = (tmp_path / f"{stage}.safetensors").read_bytes()
        shutil.rmtree(tmp_path / stage / "checkpoints" / "step-3")
        assert (tmp_path / stage / "checkpoints" / "step-2").exists()
        (again,) = train_recipe(path, stage, tmp_path, small=True, quiet=True, resume=True)
        assert {**again, "seconds": 0} == {**losses[stage][-1], "seconds": 0}
        assert (tmp_path / f"{stage}.safetensors").read_bytes() == written


def test_a_second_run_does_not_overwrite_the_first(tmp_path):
    path = ROOT / "recipes/zero_shot/default.py"
    train_recipe(path, "semantic", tmp_path, small=True, quiet=True)
    with pytest.raises(SlmError, match="--resume"):
        train_recipe(path, "semantic", tmp_path, small=True, quiet=True)


def test_mamba_takes_the_transformers_place_by_one_setting(tmp_path, tone_voice):
    path = ROOT / "recipes/zero_shot/default.py"
    mamba = ["stages.semantic.backbone=Mamba2.Config(dim=32, depth=1, headdim=16, d_state=8)"]
    for stage in ("semantic", "acoustic"):
        train_recipe(path, stage, tmp_path, mamba, small=True, quiet=True)
    assert load(tmp_path).speak("Hello.", voice=tone_voice).seconds > 0.1


def test_a_model_without_all_its_stages_says_so(tmp_path):
    train_recipe(ROOT / "recipes/zero_shot/default.py", "semantic", tmp_path, small=True, quiet=True)
    with pytest.raises(SlmError, match="acoustic stage is not trained"):
        load(tmp_path)


def test_rows_are_said_as_if_they_were_alone(trained):
    """Contract 4: the same row, seed and prompt give the same ids in any batch."""
    loaded = model.load(trained[ROOT / "recipes/zero_shot/masked.py"])
    embed = loaded.tokenizers["acoustic"].codebooks.embed
    draw = torch.Generator().manual_seed(0)
    texts = [torch.randint(1, 50, (n,), generator=draw) for n in (4, 9, 6)]
    prompts = [torch.randint(0, 16, (3, n), generator=draw) for n in (20, 9, 14)]
    latents = [sum(embed[q][level] for q, level in enumerate(p)) for p in prompts]

    def said(rows):
        batch = loaded.stages["semantic"].run({"text": [texts[r] for r in rows], "prompt": [latents[r] for r in rows]}, rows)
        batch |= {"given": batch["semantic"], "prompt_codes": [prompts[r] for r in rows]}
        return loaded.stages["acoustic"].run(batch, rows)["acoustic"]

    together = said([0, 1, 2])
    for row in range(3):
        assert torch.equal(said([row])[0], together[row])


def test_generation_has_exactly_the_length_its_durations_say(trained):
    loaded = model.load(next(iter(trained.values())))
    batch = {"text": [torch.tensor([0, 5, 9, 0])], "prompt": [torch.randn(20, 8)]}
    said = loaded.stages["semantic"].run(batch, [0])
    assert (said["duration"][0] >= 1).all() and len(said["duration"][0]) == 4
    assert said["semantic"][0].shape[-1] == int(said["duration"][0].sum()) and said["stop"] == ["end"]


def test_a_slower_pace_says_longer_durations(trained):
    loaded = model.load(next(iter(trained.values())))
    batch, stage = {"text": [torch.arange(9)], "prompt": [torch.randn(20, 8)]}, loaded.stages["semantic"]
    stage.config.pace = 1.0
    first = stage.run(batch, [0])["duration"][0][0]
    stage.config.pace = 2.0
    assert stage.run(batch, [0])["duration"][0][0] == min(63, 2 * first)


def test_a_stage_that_never_says_eos_is_stopped_at_its_cap():
    """Contract 5: without durations, generation ends at a cap that grows with the text, or when it goes in circles."""
    from slm.backbone.transformer import Transformer
    from slm.stage.lm import LM, Stream
    from slm.stream.part import Part
    from slm.stream.sample import Sampling

    known = {"text": Stream(10), "semantic": Stream(50)}
    parts = [Part("text", learn=False), Part("semantic", end=True)]
    config = LM.Config(
        parts, Transformer.Config(dim=16, depth=1, heads=2), sampling={"semantic": Sampling(temperature=1.0, top_p=1.0)}, cap=5
    )
    torch.manual_seed(0)
    stage = config.build(known).eval()
    with torch.no_grad():
        stage.head.bias[stage.vocabulary.eos] = -1e4
    said = stage.run({"text": [torch.arange(4), torch.arange(8)]}, [0, 1])
    assert said["stop"] == ["length", "length"] and [len(row) for row in said["semantic"]] == [20, 40]
    with torch.no_grad():
        stage.head.bias[stage.vocabulary.range("semantic")[0]] = 1e4
        stage.config.cap = 100
    said = stage.run({"text": [torch.arange(4)]}, [0])
    assert said["stop"] == ["loop"] and len(said["semantic"][0]) < 100


def test_another_codec_or_vocabulary_is_an_error_not_noise(trained, tmp_path):
    """Contract 6."""
    import shutil

    source = next(iter(trained.values()))
    for name, edit, message in (
        ("codec", lambda d: d | {"codec": "0" * 16}, "not the codec"),
        ("vocabulary", lambda d: d | {"vocabulary": {"semantic": "0" * 16}}, "another vocabulary"),
        ("format", lambda d: d | {"format": 99}, "format 99"),
    ):
        copy = tmp_path / name
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("semantic", "acoustic"))
        config = copy / "config.json"
        config.write_text(json.dumps(edit(json.loads(config.read_text()))))
        with pytest.raises(SlmError, match=message):
            load(copy)


def test_a_truncated_checkpoint_is_named(trained, tmp_path):
    import shutil

    copy = tmp_path / "broken"
    shutil.copytree(next(iter(trained.values())), copy, ignore=shutil.ignore_patterns("semantic", "acoustic"))
    weights = copy / "semantic.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(SlmError, match="semantic.safetensors is damaged"):
        load(copy)


def test_streamed_is_spoken(trained, tone_voice):
    speaker: Speaker = load(next(iter(trained.values())))
    text = "One sentence. Another one, " * 12
    whole = speaker.speak(text, voice=tone_voice, seed=4)
    pieces = list(speaker.stream(text, voice=tone_voice, seed=4))
    assert len(pieces) > 1 and torch.equal(torch.cat([p.audio for p in pieces]), whole.audio)
