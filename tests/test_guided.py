"""The default voice in stretches: what is heard early is what is heard, and all of it together is nearly what it was in one."""

import pytest
import torch

from slm import guided, speak
from slm.guided import AHEAD, STRETCHES, Sounding, stretches
from slm_tokenizers.codec import tiny


@pytest.fixture(scope="module")
def way():
    return speak.load("default").way


@pytest.fixture(scope="module")
def prompt():
    return speak.load("default").voice()


@pytest.mark.parametrize("start, stop", [(0, 1), (3, 20), (5, 42), (0, 150), (8, 500), (0, 1111)])
def test_stretches_are_all_frames_in_order_and_the_last_is_no_scrap(start, stop):
    edges = stretches(start, stop)
    sizes = [b - a for a, b in zip(edges, edges[1:])]
    assert (edges[0], edges[-1]) == (start, stop) and min(sizes) > 0
    due = [*STRETCHES, *[STRETCHES[-1]] * len(sizes)]
    assert sizes[:-1] == due[: len(sizes) - 1]
    assert sizes[-1] < due[len(sizes) - 1] * 1.5
    assert len(sizes) == 1 or sizes[-1] >= due[len(sizes) - 2] // 2


@torch.inference_mode()
def test_one_stretch_is_what_the_stages_say(way, prompt, monkeypatch):
    monkeypatch.setattr(guided, "STRETCHES", (10_000,))
    text, seed = "Hello there.", 4
    latents = way.codec.codebooks.decode(prompt.codes[None])[0].T
    batch = way.semantic.run({"text": [way.text.encode(text)], "prompt": [latents], "prompt_codes": [prompt.codes]}, [seed])
    done = way.acoustic.run(batch | {"given": batch["semantic"], "given_chances": batch["semantic_chances"]}, [seed])
    lead, tail = (int(batch["duration"][0][i]) for i in (0, -1))
    start, stop = max(0, lead - guided.LEAD), len(done["latent"][0]) - max(0, tail - guided.TAIL)
    known = done["latent"][0][max(0, start - guided.BEHIND) : stop + AHEAD].T
    whole = way.codec.sound(done["latent"][0].T[None])[0, 0, start * way.codec.hop : stop * way.codec.hop]
    audio, reason = way.say(text, prompt, seed)
    assert reason == "end" and len(audio) == len(whole)
    assert known.shape[1] < len(done["latent"][0]) or torch.allclose(audio, whole, atol=1e-5)
    assert (audio - whole).norm() < 0.15 * whole.norm(), "a few frames of silence at either end were not heard"


@torch.inference_mode()
def test_stretches_change_little_of_what_one_would_be(way, prompt, monkeypatch):
    text = "The birch canoe slid on the smooth planks."
    parts, _ = way.say(text, prompt, 1)
    monkeypatch.setattr(guided, "STRETCHES", (10_000,))
    whole, _ = way.say(text, prompt, 1)
    from slm.evaluate.codec import log_mel_l1

    assert len(parts) == len(whole) and log_mel_l1(whole, parts, way.codec.rate) < 0.15


@torch.inference_mode()
def test_the_first_stretch_is_heard_before_the_rest_is_said(way, prompt, monkeypatch):
    said = []
    real = way.semantic.saying

    def watched(batch, seeds):
        for now in real(batch, seeds):
            said.append((now.part.name, len(now.rows[0].said[0])))
            yield now

    monkeypatch.setattr(way.semantic, "saying", watched)
    flow = way.flow("The birch canoe slid on the smooth planks, and the sun came out.", prompt, 0)
    audio, reason = next(flow)
    assert reason is None and len(audio) == STRETCHES[0] * way.codec.hop
    name, frames = said[-1]
    assert name == "semantic" and frames <= STRETCHES[0] + AHEAD + 60, "sixty is the longest silence before the first word"
    *_, (_, reason) = flow
    assert reason == "end" and said[-1][1] > 100


@torch.inference_mode()
def test_known_latents_sound_in_stretches_as_at_once():
    codec = tiny().build().eval()
    latent = torch.randn(8, 120, generator=torch.Generator().manual_seed(0))
    whole, sounding, found = codec.sound(latent[None])[0, 0], Sounding(codec), []
    for start, stop in ((0, 30), (30, 31), (31, 90), (90, 120)):
        found.append(sounding.sound(latent[:, start : stop + codec.receptive_field], stop - start))
    assert (torch.cat(found) - whole).abs().max() <= 1e-5 * whole.abs().max()


def test_a_quiet_beginning_is_no_silence_and_a_broken_stretch_ends_it(monkeypatch):
    speaker = speak.load("default")
    quiet, loud, broken = torch.full((1600,), 1e-5), torch.full((1600,), 0.1), torch.full((1600,), torch.nan)

    def told(*stretches):
        flow = [(audio, "end" if i == len(stretches) - 1 else None) for i, audio in enumerate(stretches)]
        monkeypatch.setattr(speaker.way, "flow", lambda text, prompt, seed: iter(flow))
        speech = speaker.speak("Hello.")
        assert speech.audio.isfinite().all()
        return speech.stop_reason, len(speech.audio)

    assert told(quiet, loud) == ("end", 3200)
    assert told(quiet, quiet) == ("silence", 3200)
    assert told(loud, broken, loud) == ("silence", 3200)
    assert told(broken, loud) == ("silence", 1600)
