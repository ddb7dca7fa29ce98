"""The voice that is shipped loads, speaks by itself, and fits."""

from pathlib import Path

import torch

from slm import recipe, speak
from slm.config import to_dict
from slm.prompt import latents

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "slm/models/default"


def test_the_default_voice_speaks_without_being_given_anything():
    speaker = speak.load()
    speech = speaker.speak("The sun came out.", seed=0)
    assert speech.stop_reason == "end" and speech.rate == 16000 and 0.6 < speech.seconds < 4
    assert speech.audio.square().mean().sqrt() > 0.01
    assert torch.equal(speech.audio, speaker.speak("The sun came out.", seed=0).audio)


def test_in_a_batch_it_says_what_it_says_alone():
    speaker = speak.load()
    prompt, way = speaker.voice(), speaker.way
    texts, seeds = [way.text.encode(text) for text in ("The sun came out.", "Yes.", "Nobody knew what to do about it.")], [1, 2, 3]

    def said(rows: list[int]) -> dict:
        batch = {"text": [texts[i] for i in rows], "prompt": [latents(speaker.codec, prompt)] * len(rows)}
        batch = way.semantic.run(batch, [seeds[i] for i in rows])
        given = {"given": batch["semantic"], "given_chances": batch["semantic_chances"], "prompt_codes": [prompt.codes] * len(rows)}
        return way.acoustic.run(batch | given, [seeds[i] for i in rows])

    together = said([0, 1, 2])
    for i in range(3):
        alone = said([i])
        assert torch.equal(alone["duration"][0], together["duration"][i]) and torch.equal(alone["semantic"][0], together["semantic"][i])
        torch.testing.assert_close(alone["latent"][0], together["latent"][i], atol=1e-4, rtol=0)


def test_the_default_voice_is_what_its_recipe_describes():
    """The shipped stages are those of the recipe, decode settings included; only training made the difference."""
    described = speak.load().model.recipe.stages
    written = recipe.load(ROOT / "recipes/zero_shot/default.py").recipe().stages
    assert {name: to_dict(stage) for name, stage in described.items()} == {name: to_dict(stage) for name, stage in written.items()}


def test_the_default_voice_is_small_and_names_its_sources():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= 40e6
    card = (FOLDER / "README.md").read_text()
    for source in ("LibriSpeech", "speechocean762", "Kathleen", "Picovoice", "Kokoro", "CC BY 4.0", "CC0", "Apache-2.0", "synthetic"):
        assert source in card
