"""Every system that makes speech of text speaks by the same command: `slm speak --model FOLDER`."""

from pathlib import Path

import pytest
import torch

from slm import recipe
from slm.errors import SlmError
from slm.speak import load
from slm.train.run import train_recipe

ROOT = Path(__file__).parent.parent / "recipes"
VOICED = [
    "zero_shot/default",
    "speech_lm/tortoise",
    "speech_lm/makeavoice",
    "speech_lm/uniaudio",
    "speech_lm/musicgen",
    "speech_lm/interleaved",
]
OTHERS = {
    "zero_shot/valle": {"voice_text": "what is said"},
    "zero_shot/hamtts": {"voice_text": "what is said"},
    "speech_lm/parler": {"description": "slowly"},
    "speech_lm/omni": {},
}
SILENT = ["speech_lm/audiolm", "speech_lm/basetts"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """name of a recipe -> the folder of its small model, trained when first asked for."""
    folders = {}

    def train(name):
        if name not in folders:
            path, folders[name] = ROOT / f"{name}.py", tmp_path_factory.mktemp("run")
            for stage in recipe.load(path).small().stages:
                train_recipe(path, stage, folders[name], small=True, quiet=True)
        return folders[name]

    return train


@pytest.mark.parametrize("name", [*VOICED, *OTHERS])
def test_a_system_says_a_text_and_the_seed_decides(name, trained, tone_voice):
    speaker = load(trained(name))
    how = OTHERS.get(name, {}) | ({"voice": tone_voice} if speaker.way.voiced else {})
    first, again, other = (speaker.speak("Hello there.", seed=seed, **how) for seed in (1, 1, 2))
    assert first.seconds > 0.02 and first.audio.isfinite().all() and first.stop_reason in ("end", "length", "loop", "silence")
    assert torch.equal(first.audio, again.audio), "the same seed gives the same samples"
    assert not torch.equal(first.audio, other.audio), "another seed gives others"
    joined = torch.cat([piece.audio for piece in speaker.stream("Hello there.", seed=1, **how)])
    assert torch.equal(joined, first.audio), "streamed as at once"


def test_a_voice_is_heard_where_there_is_one(trained, tone_voice, tmp_path):
    import soundfile

    generator = torch.Generator().manual_seed(1)
    other = tmp_path / "other.wav"
    soundfile.write(other, (0.1 * torch.randn(32000, generator=generator)).numpy(), 16000)
    for name in [*VOICED, "zero_shot/valle"]:
        speaker = load(trained(name))
        first, second = (speaker.voice(voice, "what is said") for voice in (tone_voice, str(other)))
        assert not torch.equal(first.codes, second.codes), name
        said = [speaker.speak("Hello there, you.", voice=voice, seed=1).audio for voice in (first, second)]
        assert not torch.equal(*said), f"{name} says the same in both voices"


@pytest.mark.parametrize("name", SILENT)
def test_a_model_that_speaks_no_text_says_so(name, trained):
    with pytest.raises(SlmError, match="does not speak a text"):
        load(trained(name))


def test_what_a_way_needs_is_asked_for_in_a_sentence(trained, tone_voice):
    valle, _, told, omni = (load(trained(name)) for name in OTHERS)
    with pytest.raises(SlmError, match="--voice-text"):
        valle.speak("Hello.", voice=tone_voice)
    with pytest.raises(SlmError, match="--description"):
        told.speak("Hello.")
    with pytest.raises(SlmError, match="hears no voice"):
        told.speak("Hello.", voice=tone_voice)
    with pytest.raises(SlmError, match="leave out --voice"):
        omni.speak("Hello.", voice=tone_voice)
    with pytest.raises(SlmError, match="leave out --description"):
        valle.speak("Hello.", voice=tone_voice, description="slowly")


def test_a_model_that_ends_at_once_is_an_error_and_no_silence(trained, tone_voice, monkeypatch):
    speaker = load(trained("speech_lm/uniaudio"))
    monkeypatch.setattr(speaker.way, "say", lambda text, prompt, seed: (torch.zeros(0), "end"))
    with pytest.raises(SlmError, match="before it said anything"):
        speaker.speak("Hello.", voice=tone_voice)
