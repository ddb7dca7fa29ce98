"""Shared by all tests: one thread (small tensors lose by more), and a voice that needs no corpus."""

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tone_voice(tmp_path_factory):
    """A wav file of two seconds of made-up speech at 16 kHz."""
    import soundfile

    from slm.data.madeup import utterance

    _, _, audio = utterance(0, 1, 25, 40, 320, 16000)
    path = tmp_path_factory.mktemp("voice") / "voice.wav"
    soundfile.write(path, audio[0].numpy(), 16000)
    return str(path)


@pytest.fixture(scope="session")
def small_model(tmp_path_factory):
    """The folder of the default recipe's small model, trained for three steps a stage: it speaks, if not English."""
    from pathlib import Path

    from slm.train.run import train_recipe

    out = tmp_path_factory.mktemp("small_model")
    for stage in ("semantic", "acoustic"):
        train_recipe(Path(__file__).parent.parent / "recipes/zero_shot/default.py", stage, out, small=True, quiet=True)
    return out


@pytest.fixture
def judges(monkeypatch):
    """A recogniser that always hears "one", and an encoder of voices that hears how a sound is spread, where measuring is tested."""
    import numpy as np

    class Recogniser:
        def __init__(self, name: str) -> None:
            pass

        def transcribe(self, audio: np.ndarray) -> str:
            return "one"

    class Encoder:
        def embed(self, audio: np.ndarray) -> np.ndarray:
            return np.array([1.0, audio.std()])

    monkeypatch.setattr("slm.evaluate.transcribe.Recogniser", Recogniser)
    monkeypatch.setattr("slm.evaluate.speaker.SpeakerEncoder", Encoder)
