"""A second stage and a decoder that learn on as one: crops of the same frames, both move, and the voice that is written speaks."""

from pathlib import Path

import pytest
import torch

from slm import model
from slm import recipe as recipes
from slm.codes import fingerprint
from slm.data.madeup import MadeUpUtterances
from slm.errors import SlmError
from slm.speak import load
from slm.stage.sharpening import SharpeningVoice
from slm.stream.sample import Sampling
from slm.train.loop import Train, fit
from slm.train.run import train_stage
from slm_tokenizers.melvq import MelVQ
from slm_tokenizers.sharpening import SharpeningMelVQ
from slm_vocoders.balancer import Balancer
from slm_vocoders.learning import Reconstruction

RECIPES = Path(__file__).parent.parent / "recipes"
CODEC = MelVQ.Config(n_q=2, card=16, dim=8, width=16, residuals=1)


def trained(name: str, out: Path) -> Path:
    r = recipes.load(RECIPES / "zero_shot" / name).small()
    r.tokenizers["acoustic"] = CODEC
    for stage in r.stages:
        train_stage(r, stage, out, quiet=True)
    return out


@pytest.fixture(scope="module")
def voice(tmp_path_factory):
    return trained("default.py", tmp_path_factory.mktemp("voice"))


def sharpening(voice: Path, **config) -> SharpeningVoice:
    return SharpeningVoice.Config(str(voice), SharpeningMelVQ.Config(str(voice / "codec"), sharp=None), **config).build()


def utterances(voice: Path):
    built = model.load(voice).tokenizers
    return MadeUpUtterances(sound=True).build(built), built["acoustic"]


def test_crops_are_of_the_same_frames(voice):
    data, codec = utterances(voice)
    generator, seen = sharpening(voice, frames=10, share=0.0, phones=0.0), []
    generator.mels.reconstruct = seen.append
    batch = data.at(0)
    generator.reconstruct(batch)
    (crops,) = seen
    places = []
    for audio, latent in zip(crops["audio"], crops["latent"]):
        assert audio.shape == (1, 10 * codec.hop) and latent.shape == (10, 8)
        row, at = next(
            (row, at) for row, whole in enumerate(batch["audio"]) for at in range(whole.shape[1] // codec.hop - 9)
            if torch.equal(whole[:, at * codec.hop : (at + 10) * codec.hop], audio)
        )
        places += [(row, frame) for frame in range(at, at + 10)]
        torch.testing.assert_close(latent, codec.codebooks.decode(batch["acoustic"][row][None, :, at : at + 10])[0].T)
    assert len(places) == len(set(places)) > 100, "crops overlap"


def test_crops_are_whole_and_at_most_as_many_as_asked(voice):
    generator = sharpening(voice, crops=3)
    assert len(generator.places([30, 100, 9], 10)) == 3
    generator = sharpening(voice)
    assert sorted(row for row, _ in generator.places([30, 19, 9], 10)) == [0, 0, 0, 1]
    assert {at for _ in range(99) for _, at in generator.places([12], 10)} == {0, 1, 2}


def test_the_first_level_is_heard_as_the_voice_believes_it_where_it_hears_its_own_draws(voice):
    batch = utterances(voice)[0].at(0)
    semantic = model.load(voice).stages["semantic"]
    true, drawn = (sharpening(voice, draws=draws).believed(batch) for draws in (0, 1))
    for row, a, b, c in zip(batch["semantic"], true, drawn, semantic.chances(batch, "semantic"), strict=True):
        assert a.shape == (row.shape[-1], 16)
        torch.testing.assert_close(b.sum(-1), torch.ones(row.shape[-1]))
        torch.testing.assert_close(a, c)
        assert not torch.allclose(a, b)
    greedy = sharpening(voice, draws=1)
    greedy._voice[0].stages["semantic"].config.sampling = {"semantic": Sampling(temperature=0)}
    heard = [row.argmax(-1)[None] for row in true]
    for a, b in zip(greedy.believed(batch), semantic.chances(batch | {"semantic_heard": heard}, "semantic"), strict=True):
        torch.testing.assert_close(a, b)


def test_the_listener_learns_of_recordings_and_teaches_what_is_said(voice):
    generator = sharpening(voice)
    phones = torch.arange(12).repeat(2, 1)
    right = torch.randn(2, 1, 80, 24)
    listener = torch.optim.Adam(generator.listener.parameters(), 1e-2)
    fake = torch.randn(2, 1, 80, 24).requires_grad_()
    for _ in range(60):
        losses = generator.listener(Reconstruction(right, fake, {}), phones)
        listener.zero_grad()
        losses["listening"].backward()
        listener.step()
    assert losses["listening"] < 0.2 and fake.grad is None
    listener.zero_grad()
    losses = generator.listener(Reconstruction(right, fake, {}), phones)
    losses["phones"].backward()
    assert all(p.grad is None for p in generator.listener.parameters())
    generator.listener.balancer = Balancer(("phones",), total=0.3)
    fake.grad = None
    generator.listener(Reconstruction(right, fake, {}), phones)["phones"].backward()
    torch.testing.assert_close(fake.grad.flatten(1).norm(dim=1).mean(), torch.tensor(0.3), atol=0.03, rtol=0)
    before = losses["phones"].item()
    for _ in range(60):
        pull, = torch.autograd.grad(generator.listener(Reconstruction(right, fake, {}), phones)["phones"], fake)
        fake = (fake - 3 * pull).detach().requires_grad_()
    assert generator.listener(Reconstruction(right, fake, {}), phones)["phones"] < before / 2
    assert sharpening(voice, phones=0.0).listener is None


def test_both_learn_and_the_voice_that_is_written_speaks(voice, tone_voice, tmp_path):
    r = recipes.load(RECIPES / "codec/sharpvoice.py").recipe(str(voice), str(voice / "codec"))
    stage = r.stages["sharp"]
    stage.generator.frames = 8
    built = stage.build()
    fit(built, utterances(voice)[0], Train(steps=3, warmup=1, clip=0.0), tmp_path / "run", quiet=True)
    stuck = [name for name, p in built.generator.named_parameters() if p.grad is None or not p.grad.any()]
    assert not stuck, stuck
    built.generator.write(tmp_path / "out")
    before, after = model.load(voice), model.load(tmp_path / "out")
    assert fingerprint(before.tokenizers["acoustic"]) == fingerprint(after.tokenizers["acoustic"])
    for moved, a, b in (
        (False, before.stages["semantic"], after.stages["semantic"]),
        (True, before.stages["acoustic"], after.stages["acoustic"]),
        (True, before.tokenizers["acoustic"].decoder, after.tokenizers["acoustic"].decoder),
    ):
        assert moved != all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert load(tmp_path / "out").speak("Hello there.", voice=tone_voice).stop_reason == "end"


def test_a_voice_that_says_codes_level_by_level_cannot_learn_on(tmp_path):
    with pytest.raises(SlmError, match="does not say at once"):
        sharpening(trained("masked.py", tmp_path / "voice"))


def test_a_codec_of_other_codes_is_told(voice):
    with pytest.raises(SlmError, match="another codec"):
        SharpeningVoice.Config(str(voice), SharpeningMelVQ.Config(CODEC, sharp=None)).build()
