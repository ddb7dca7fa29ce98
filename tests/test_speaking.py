"""What users do wrong, each answered with one sentence and exit code 2 and nothing written; and what must simply work."""

import json

import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner

from slm import prompt, speak
from slm.cli import app
from slm.data import audio as audio_files

LONG = "The river runs to the sea. " * 760


def say(model, out, *more, text="Hello there."):
    return CliRunner().invoke(app, ["speak", text, "--model", str(model), "-o", str(out), *more])


def wav(path, samples, rate=16000):
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return path


def speech_like(seconds, rate):
    time = np.arange(int(seconds * rate)) / rate
    return (0.2 * np.sin(2 * np.pi * 150 * time) * (1 + np.sin(2 * np.pi * 3 * time))).astype(np.float32)


BAD_VOICES = {
    "text file": lambda p: p.write_text("this is not audio"),
    "empty file": lambda p: p.write_bytes(b""),
    "a tenth of a second": lambda p: wav(p, speech_like(0.1, 16000)),
    "silence": lambda p: wav(p, np.zeros(48000, np.float32)),
    "NaN": lambda p: wav(p, np.full(48000, np.nan, np.float32)),
    "missing": lambda p: None,
    "a folder": lambda p: p.mkdir(),
}


@pytest.mark.parametrize("kind", BAD_VOICES)
def test_a_voice_that_cannot_be_used_is_one_sentence(kind, small_model, tmp_path):
    voice, out = tmp_path / "voice.wav", tmp_path / "out.wav"
    BAD_VOICES[kind](voice)
    result = say(small_model, out, "--voice", str(voice))
    assert result.exit_code == 2 and not out.exists(), result.output
    assert result.stderr.startswith("slm: ") and result.stderr.count("\n") == 1 and "voice.wav" in result.stderr


@pytest.mark.parametrize("text", ["", "   ", "…!?", "🙂"])
def test_a_text_with_nothing_to_speak_is_one_sentence(text, small_model, tone_voice, tmp_path):
    result = say(small_model, tmp_path / "out.wav", "--voice", tone_voice, text=text)
    assert result.exit_code == 2 and not (tmp_path / "out.wav").exists()
    assert "nothing to speak" in result.stderr and result.stderr.count("\n") == 1


def test_an_unknown_model_is_one_sentence(tone_voice, tmp_path):
    for name in ("no-such-model", str(tmp_path)):
        result = say(name, tmp_path / "out.wav", "--voice", tone_voice)
        assert result.exit_code == 2 and result.stderr.count("\n") == 1 and not (tmp_path / "out.wav").exists()


def test_a_model_without_a_voice_asks_for_one(small_model, tmp_path):
    result = say(small_model, tmp_path / "out.wav")
    assert result.exit_code == 2 and "--voice" in result.stderr


def test_stereo_at_96_khz_is_a_voice_like_any_other(small_model, tmp_path):
    rate = 96000
    mono = speech_like(3, rate)
    voice = wav(tmp_path / "stereo.wav", np.stack([mono, mono], 1), rate)
    result = say(small_model, tmp_path / "out.wav", "--voice", str(voice), "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["rate"] == 16000


def test_what_is_written_is_marked_as_synthetic(small_model, tone_voice, tmp_path):
    for suffix in (".wav", ".flac", ".ogg"):
        out = tmp_path / f"out{suffix}"
        assert say(small_model, out, "--voice", tone_voice).exit_code == 0
        assert "synthetic" in audio_files.comment(out)


def test_twenty_thousand_characters_are_spoken_in_pieces(small_model, tone_voice, monkeypatch):
    """Every piece is reached, in order; the sound itself is left out, which would take minutes."""
    speaker = speak.load(small_model)
    heard = []
    monkeypatch.setattr(speaker, "_try", lambda text, prompt, seed: (heard.append(text), [(torch.full((1600,), 0.1), "end")])[1])
    speech = speaker.speak(LONG[:20_000], voice=tone_voice)
    assert " ".join(heard) == LONG[:20_000].strip() and speech.seconds == pytest.approx(len(heard) / 10)
    assert max(map(len, heard)) <= speak.PIECE


def test_a_text_beyond_the_limit_says_the_limit(small_model, tone_voice, tmp_path):
    result = say(small_model, tmp_path / "out.wav", "--voice", tone_voice, text="word " * 20_001)
    assert result.exit_code == 2 and str(speak.LONGEST) in result.stderr


def test_a_piece_that_ends_badly_is_tried_once_more_and_never_again(small_model, tone_voice, monkeypatch):
    speaker = speak.load(small_model)
    seeds = []
    monkeypatch.setattr(speaker, "_try", lambda text, prompt, seed: (seeds.append(seed), [(torch.zeros(1600), "silence")])[1])
    speech = speaker.speak("Hello.", voice=tone_voice, seed=3)
    assert speech.stop_reason == "silence" and len(seeds) == 2 and seeds[0] != seeds[1]


def test_a_voice_can_be_kept_and_so_can_speech(small_model, tone_voice):
    speaker = speak.load(small_model)
    prompt = speaker.voice(tone_voice)
    first = speaker.speak("Hello.", voice=prompt, seed=1)
    assert torch.equal(first.audio, speaker.speak("Hello.", voice=tone_voice, seed=1).audio)
    assert speaker.voice(speak.Speech(torch.randn(48000) * 0.1, 16000, "end", 0)).codes.shape[1] == 150


def test_the_loudest_part_of_a_long_voice_is_heard():
    quiet, loud = torch.randn(1, 80000) * 1e-3, torch.randn(1, 48000) * 0.1
    part = prompt.loud_part(torch.cat([quiet, loud, quiet], 1), 16000, 320, "voice")
    assert part.shape == (1, 48000) and torch.allclose(part / part.std(), loud / loud.std(), atol=1e-2)


def test_a_packed_model_speaks_by_itself(small_model, tone_voice, tmp_path):
    result = CliRunner().invoke(app, ["pack", str(small_model), str(tmp_path / "packed"), "--voice", tone_voice])
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "packed/semantic").exists()
    assert speak.load(tmp_path / "packed").speak("Hello.").seconds > 0
    assert CliRunner().invoke(app, ["pack", str(small_model), str(tmp_path / "packed")]).exit_code == 2


def test_the_rate_travels_with_the_audio(small_model, tmp_path):
    """Contract 8: the same sound at any rate is the same voice, and what comes out says its own rate."""
    speaker = speak.load(small_model)
    for rate in (8000, 22050, 48000):
        voice = wav(tmp_path / f"{rate}.wav", speech_like(2, rate), rate)
        assert speaker.voice(voice).codes.shape[1] == 100  # 2 s at 50 frames a second
        audio, out_rate = speaker.reconstruct(torch.from_numpy(speech_like(2, rate))[None], rate)
        assert out_rate == speaker.rate == 16000 and audio.shape == (1, 32000)
    speech = speaker.speak("Hello.", voice=voice)
    speech.save(tmp_path / "out.wav")
    assert soundfile.info(tmp_path / "out.wav").samplerate == speech.rate


def test_odd_requests_are_counted_and_the_broken_ones_named(small_model, tone_voice, tmp_path):
    from slm.evaluate import requests

    asked = requests.requests(16)
    assert len({request.kind for request in asked}) == 8 and asked == requests.requests(16)
    speaker = speak.load(small_model)
    outcome = requests.run(speaker, [tone_voice], 3, tmp_path, progress=False)
    assert outcome.requests == 3 and json.loads((tmp_path / "requests.json").read_text())["requests"] == 3
    good = speak.Speech(torch.full((16000,), 0.1), 16000, "end", 0)
    assert requests.wrong(good, 10) is None and "phone" in requests.wrong(good, 1) and "phone" in requests.wrong(good, 100)
    assert requests.wrong(speak.Speech(good.audio, 16000, "loop", 0), 10) == "ended by loop"
    assert requests.wrong(speak.Speech(good.audio * 0, 16000, "end", 0), 10) == "silent"
