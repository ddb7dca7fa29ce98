"""The page: its parts as plain functions, and all of it in a real Chromium."""

import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.parse
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from slm.data import audio as audio_files
from slm.demo import app, live, picture
from slm.errors import SlmError
from slm.speak import Speech, load

ROOT = Path(__file__).resolve().parent.parent
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = "--no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update --disable-sync"
PATIENCE = 120_000  # ms


@pytest.fixture(scope="module")
def speaker(small_model):
    return load(small_model)


def tone(hertz: float, rate: int, seconds: float) -> torch.Tensor:
    return 0.3 * torch.sin(2 * torch.pi * hertz * torch.arange(int(seconds * rate)) / rate)


# the picture


def test_a_picture_has_seconds_below_and_hertz_beside():
    wave, spectrum, _ = picture.draw(tone(1000, 16_000, 2.5), 16_000).axes
    assert wave.get_xlim() == spectrum.get_xlim() == (0, 2.5)
    assert spectrum.get_ylim() == (0, 8000)
    assert (spectrum.get_xlabel(), spectrum.get_ylabel(), wave.get_ylabel()) == ("time (s)", "frequency (Hz)", "amplitude")


@pytest.mark.parametrize("rate", [8000, 16_000, 24_000])
def test_a_tone_is_drawn_at_its_frequency_and_time(rate):
    audio = torch.cat([torch.zeros(rate), tone(1000, rate, 1.0)])
    shown = picture.spectrogram(audio, rate)  # [F,C]
    height = shown.mean(1).argmax() / (len(shown) - 1) * rate / 2
    assert abs(float(height) - 1000) < rate / 2 / (len(shown) - 1)
    loud = shown.amax(0) > -20
    assert not loud[: int(0.45 * len(loud))].any() and loud[int(0.55 * len(loud)) : -3].all()


def test_the_shortest_peak_of_ten_minutes_is_drawn():
    audio = torch.zeros(600 * 16_000)
    audio[4_321_987] = 0.9
    low, high = picture.envelope(audio)
    assert len(low) == len(high) <= picture.WIDEST and high.max() == audio.max() and low.min() == 0
    assert picture.spectrogram(audio, 16_000).shape[1] <= picture.WIDEST + 1


@pytest.mark.parametrize("audio", [torch.zeros(1600), torch.tensor([0.1, -0.1])], ids=["silence", "two samples"])
def test_anything_that_can_be_said_can_be_drawn(audio, tmp_path):
    picture.save(tmp_path / "p.png", audio, 16_000)
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


# what the page does


def test_a_page_says_what_the_model_says_and_counts_the_pieces(speaker, tone_voice, monkeypatch):
    noise = lambda seed: 0.1 * torch.randn(1600, generator=torch.Generator().manual_seed(seed))  # noqa: E731
    monkeypatch.setattr(speaker, "_try", lambda text, prompt, seed: [(noise(seed), "length" if "," in text else "end")])
    text = "Hello there. " * 20 + "And so, farewell. " + "Hello there. " * 20
    told = list(app.say(speaker, text, tone_voice, 3))
    assert [done for done, _, _ in told] == list(range(1, told[0][1] + 1)) and len(told) > 3
    spoken, last = speaker.speak(text, tone_voice, seed=3), told[-1][2]
    assert torch.equal(last.audio, spoken.audio) and last.stop_reason == spoken.stop_reason == "length"
    assert (last.seed, last.rate) == (3, speaker.rate) and last.rtf > 0


def test_what_is_heard_as_it_comes_is_what_is_said_and_waits_for_no_end(tmp_path):
    recordings, audio = live.Live(), 0.5 * torch.randn(3000, generator=torch.Generator().manual_seed(0)).clamp(-1.9, 1.9)
    name = recordings.begin(16_000)
    bits = recordings.wav(recordings.recordings[name])
    begins = next(bits)
    recordings.add(name, audio[:1000])
    first = next(bits)
    recordings.add(name, audio[1000:])
    recordings.end(name)
    path = tmp_path / "live.wav"
    path.write_bytes(begins + first + b"".join(bits))
    read, rate = audio_files.read(path)
    assert rate == 16_000 and len(first) == 2000 and "synthetic" in audio_files.comment(path)
    torch.testing.assert_close(read[0], audio, atol=1 / 16_000, rtol=0)


def test_a_stopped_recording_ends_and_old_ones_go():
    recordings = live.Live()
    said = ((done, 9, Speech(torch.zeros(100 * done), 16_000, "end", 0)) for done in range(1, 9))
    heard = app.heard(said, recordings)
    player = next(heard)[3]
    (name,) = recordings.recordings
    assert name in player and next(heard)[3] == "" and not recordings.recordings[name].over
    heard.close()
    assert recordings.recordings[name].over and len(b"".join(recordings.wav(recordings.recordings[name]))) == len(live.header(1)) + 400
    for _ in range(live.KEPT):
        recordings.begin(16_000)
    assert name not in recordings.recordings and len(recordings.recordings) == live.KEPT
    recordings.add(name, torch.zeros(10))  # of one that is gone: nothing happens


def test_what_a_page_gives_away_says_that_it_is_synthetic():
    wav, png = app.write(Speech(tone(300, 16_000, 1.0), 16_000, "end", 0))
    assert "synthetic" in audio_files.comment(wav) and audio_files.read(wav)[0].shape == (1, 16_000)
    assert Path(png).read_bytes().startswith(b"\x89PNG")


def test_the_facts_are_one_line():
    line = app.facts(Speech(torch.zeros(40_000), 16_000, "loop", 7, 0.25))
    assert line == "2.50 s of speech · real-time factor 0.25 · stop reason: loop · seed 7"


def test_a_sentence_hides_where_an_upload_lies_and_holds_no_markup():
    error = SlmError("/tmp/x/voice.wav cannot be read <b>as</b>\naudio.")
    assert app.sentence(error, "/tmp/x/voice.wav") == "The recording cannot be read &lt;b&gt;as&lt;/b&gt; audio."


def answer_of(page):
    return next(fn for fn in page.fns.values() if fn.api_name == "speak")


def test_a_page_can_be_built_and_speaks_for_one_visitor_at_a_time(speaker):
    page = app.build(speaker)
    assert not page.analytics_enabled and answer_of(page).concurrency_limit == 1 and answer_of(page).queue is not False
    words = str(page.get_config_file())
    assert "synthetic" in words and "permission" in words


def test_speech_with_a_bad_end_comes_with_a_warning(speaker, tone_voice, monkeypatch):
    monkeypatch.setattr(speaker, "_try", lambda text, prompt, seed: [(tone(300, speaker.rate, 1.0), "loop")])
    with pytest.warns(UserWarning, match="repeat itself"):
        *_, (wav, png, line, _) = answer_of(app.build(speaker)).fn("Hello.", tone_voice, 0)
    assert "stop reason: loop" in line and Path(wav).exists() and Path(png).exists()


@pytest.mark.parametrize("text, seed, told", [("…", 0, "nothing to speak"), ("Hello.", None, "seed"), ("Hello.", 0, "no voice of its own")])
def test_a_mistake_stays_on_the_page_as_a_sentence(text, seed, told, speaker, tone_voice):
    import gradio

    rows = []
    with pytest.raises(gradio.Error, match=told):
        for row in answer_of(app.build(speaker)).fn(text, None if "voice" in told else tone_voice, seed):
            rows.append(row)
    assert rows[-1][:2] == (None, None) and told in rows[-1][2]


def test_a_port_that_is_taken_is_told_before_the_model_is_loaded():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SlmError, match="--port"):
        app.launch("no such model", "127.0.0.1", taken.getsockname()[1])


# all of it


@contextmanager
def serving(model: Path, tmp_path: Path):
    """`slm demo` as a process of its own -> its address. Afterwards it is asked to end."""
    paths = os.pathsep.join(str(ROOT / folder) for folder in (".", "tokenizers", "vocoders"))
    env = os.environ | {"PYTHONPATH": paths, "PYTHONUNBUFFERED": "1", "TMPDIR": str(tmp_path)}
    env |= {"http_proxy": "http://127.0.0.1:9", "no_proxy": ""}  # a proxy that cannot reach this machine must not matter
    command = [sys.executable, "-m", "slm", "demo", "--model", str(model), "--port", "0"]
    server = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=(tmp_path / "log").open("w"), text=True)
    try:
        line = server.stdout.readline()
        assert (address := re.search(r"http://\S+", line)), (line, (tmp_path / "log").read_text())
        yield address[0]
    finally:
        server.terminate()
        server.wait(timeout=PATIENCE / 1000)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian: apt-get install chromium)")
def test_in_a_browser_a_text_is_spoken_and_mistakes_are_sentences(small_model, tone_voice, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (it comes with the test extra)")
    with serving(small_model, tmp_path) as address, playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split(), timeout=PATIENCE)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(PATIENCE)
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        speaks_and_gives_it_away(page, tone_voice, tmp_path)
        shows_mistakes(page, tmp_path)
        browser.close()
    hosts = {urllib.parse.urlsplit(url).hostname for url in asked if not url.startswith(("data:", "blob:"))}
    assert hosts == {urllib.parse.urlsplit(address).hostname}
    assert not list(tmp_path.glob("slm-demo-*")), "what visitors gave and got is still there"
    assert "Traceback" not in (tmp_path / "log").read_text()


def speaks_and_gives_it_away(page, voice: str, tmp_path: Path) -> None:
    page.fill("#text textarea", "Hello there. " * 15)  # two pieces
    page.set_input_files("#voice input[type=file]", voice)
    page.wait_for_selector("#voice [aria-label='Clear']")
    page.click("#speak")
    page.wait_for_selector("#speech >> text=1/2 pieces")
    page.wait_for_function("document.querySelector('#live audio')?.currentTime > 0")
    page.wait_for_selector("#facts >> text=stop reason")
    seconds = float(re.match(r"[\d.]+", page.inner_text("#facts"))[0])
    player = page.wait_for_selector("#speech audio[src^='blob:']", state="attached")
    page.wait_for_function("player => player.duration > 0", arg=player)
    assert player.evaluate("player => player.duration") == pytest.approx(seconds, abs=0.01)
    page.wait_for_function("document.querySelector('#picture img')?.naturalWidth > 800")
    page.screenshot(path=tmp_path / "spoken.png", full_page=True)
    page.evaluate("document.querySelector('#live audio').playbackRate = 16")
    page.wait_for_function("document.querySelector('#live audio').ended")  # what played as it came is no longer and no shorter
    assert page.evaluate("document.querySelector('#live audio').currentTime") == pytest.approx(seconds, abs=0.05)
    with page.expect_download() as download:
        page.click("#speech [aria-label='Download']")
    download.value.save_as(tmp_path / "speech.wav")
    audio, rate = audio_files.read(tmp_path / "speech.wav")
    assert "synthetic" in audio_files.comment(tmp_path / "speech.wav") and audio.shape[1] / rate == pytest.approx(seconds, abs=0.01)


def shows_mistakes(page, tmp_path: Path) -> None:
    """No text; a text file as a voice, under its own name, which the page refuses, and under an audio file's, which only the model can."""
    page.fill("#text textarea", "")
    page.click("#speak")
    page.wait_for_selector("[data-testid=toast-body] >> text=nothing to speak")
    page.wait_for_selector("#facts >> text=nothing to speak")
    (tmp_path / "words.wav").write_text("this is not audio\n" * 100)
    page.click("#voice [aria-label='Clear']")
    shutil.copy(tmp_path / "words.wav", tmp_path / "words.txt")
    page.set_input_files("#voice input[type=file]", tmp_path / "words.txt")
    page.wait_for_selector("[data-testid=toast-body] >> text=Invalid file type: words.txt")
    page.set_input_files("#voice input[type=file]", tmp_path / "words.wav")
    page.wait_for_selector("#voice [aria-label='Clear']")
    page.fill("#text textarea", "Hello there.")
    page.click("#speak")
    page.wait_for_selector("#facts >> text=The recording cannot be read as audio")
    assert "Traceback" not in page.content() and str(tmp_path) not in page.inner_text("body")
    page.screenshot(path=tmp_path / "mistake.png", full_page=True)
