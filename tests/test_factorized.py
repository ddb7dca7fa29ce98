"""The factorised codec: named streams, a voice besides, and listeners that are helped or hindered.

B batch, N samples, Q levels, T frames, V width of a voice.
"""

import math
from dataclasses import replace

import pytest
import torch

from slm.data.madeup import MadeUpSounds
from slm.errors import SlmError
from slm.nn.gradient_reversal import reverse
from slm.nn.pitch import pitch, tune
from slm_tokenizers import load, stored
from slm_tokenizers.factorized import STREAMS, FACodec
from slm_tokenizers.factorizing import LearningFactors, at_frames, contrast
from slm_tokenizers.quantize.factorised import Factorised
from slm_tokenizers.quantize.learn_factorised import pull

TINY = FACodec.Config(8000, card=16, narrow=4, dim=12, voice=6, n_filters=2, ratios=(5, 4, 4), residuals=1)
HOP = 80


@pytest.fixture
def codec():
    torch.manual_seed(0)
    return TINY.build().eval()


@pytest.fixture(scope="module")
def batch():
    made = MadeUpSounds(0.2, 4, 8000, HOP).build({}).at(0)
    return {**made, "hertz": pitch(made["audio"], 8000, HOP)}


@pytest.fixture
def learning():
    torch.manual_seed(1)
    return LearningFactors.Config(TINY, rise=0).build().train()


def noise(samples: int, rows: int = 1) -> torch.Tensor:
    return torch.randn(rows, 1, samples, generator=torch.Generator().manual_seed(samples)) * 0.3


def test_the_gradient_turns_round_and_the_value_stays():
    x = torch.randn(5, requires_grad=True)
    y = reverse(x, 0.5)
    assert torch.equal(y, x)
    (y * torch.arange(5.0)).sum().backward()
    assert torch.equal(x.grad, -0.5 * torch.arange(5.0))


def test_a_reversed_listener_learns_while_what_it_hears_hides():
    """One step down the loss: the listener's own weights lower it, the heard one's raise it."""
    torch.manual_seed(2)
    heard, listener, target = torch.nn.Linear(4, 4), torch.nn.Linear(4, 3), torch.randint(0, 3, (50,))
    x = torch.randn(50, 4)

    def loss(turn):
        hidden = heard(x)
        return torch.nn.functional.cross_entropy(listener(turn(hidden)), target)

    before = loss(reverse)
    before.backward()
    for part, rises in ((listener, False), (heard, True)):
        with torch.no_grad():
            was = [p.clone() for p in part.parameters()]
            for p in part.parameters():
                p -= 0.05 * p.grad
            assert (loss(reverse) > before) == rises
            for p, old in zip(part.parameters(), was):
                p.copy_(old)


@pytest.mark.parametrize("samples", [1, 79, 80, 81, 1000])
def test_what_comes_out_is_as_long_as_what_went_in(codec, samples):
    codes = codec.encode(noise(samples, 2))
    assert codes.shape == (2, 6, codec.frames(samples)) and codes.dtype == torch.long
    assert codec.decode(codes, samples).shape == (2, 1, samples)
    assert codec.decode(codes).shape[-1] == codec.frames(samples) * HOP == -(-samples // HOP) * HOP


def test_streams_have_names_and_an_order(codec):
    codes = codec.encode(noise(800))
    parts = codec.split(codes)
    assert {name: part.shape[1] for name, part in parts.items()} == {"prosody": 1, "content": 2, "detail": 3}
    assert torch.equal(torch.cat([parts[name] for name in STREAMS], 1), codes)
    latent = codec.latent(noise(800))
    assert torch.equal(codec.books["content"].encode(latent), parts["content"])
    assert {name: part.shape[1] for name, part in codec.split(codes[:, :2]).items()} == {"prosody": 1, "content": 1}
    assert [codec.decode(codes[:, :q]).shape[-1] for q in range(1, 7)] == [800] * 6


def test_a_voice_is_one_vector_and_changes_the_sound_only(codec):
    audio = noise(1600, 2)
    voice = codec.voice(audio)
    assert voice.shape == (2, 6) and torch.allclose(voice.norm(dim=1), torch.ones(2))
    assert torch.allclose(codec.voice(audio[1:]), voice[1:], atol=1e-6)
    codes = codec.encode(audio)
    swapped = codec.decode(codes, voice=voice.flip(0))
    assert not torch.allclose(swapped, codec.decode(codes, voice=voice), atol=1e-5)
    codec.decoder.average.copy_(voice[0])
    assert torch.allclose(codec.decode(codes[:1]), codec.decode(codes[:1], voice=voice[:1]), atol=1e-6)


def test_codes_voices_and_the_average_survive_saving(codec, tmp_path):
    codec.as_stored().decoder.average.normal_()
    stored.save(codec, tmp_path)
    loaded, audio = load(tmp_path), noise(777)
    codes = codec.encode(audio)
    assert torch.equal(loaded.encode(audio), codes) and torch.equal(loaded.voice(audio), codec.voice(audio))
    assert torch.equal(loaded.decode(codes), codec.decode(codes))


def usage(codec, audio) -> list[float]:
    """How many codes each level uses, as the exponential of their entropy in nats."""
    shares = [torch.bincount(level.flatten()) / level.numel() for level in codec.encode(audio).unbind(1)]
    return [float(torch.special.entr(share).sum().exp()) for share in shares]


@pytest.mark.parametrize("config", [TINY, FACodec.Config(n_filters=8)], ids=["tiny", "five times five"])
def test_an_untrained_codec_already_tells_frames_apart(config):
    """With biases as torch draws them, every frame had the same code, and commitment kept it so."""
    for seed in range(3):
        torch.manual_seed(seed)
        codec = config.build().eval()
        audio = torch.cat([MadeUpSounds(0.6, 4, config.rate, 320).build({}).at(step)["audio"] for step in range(2)])
        with torch.no_grad():
            latent = codec.latent(audio)
        resting = latent.mean((0, 2)).square().mean() / latent.square().mean()
        assert resting < 0.2 and min(usage(codec, audio)) > 5
        assert 0.01 < latent.square().mean().sqrt() / audio.square().mean().sqrt() < 100


def test_codes_stay_in_use_while_learning():
    torch.manual_seed(5)
    learning = LearningFactors.Config(TINY, rise=0).build().train()
    optimiser = torch.optim.Adam(learning.parameters(), 2e-3)
    for step in range(18):
        optimiser.zero_grad()
        made = learning.reconstruct(MadeUpSounds(0.2, 4, 8000, HOP).build({}).at(step))
        (sum(made.losses.values()) + 10 * (made.real.abs() - made.fake.abs()).abs().mean()).backward()
        optimiser.step()
    audio = MadeUpSounds(0.6, 4, 8000, HOP).build({}).at(99)["audio"]
    assert min(usage(learning.finished(), audio)) > 3


def test_learned_codes_are_those_that_are_spoken_and_gradients_pass_and_pull():
    torch.manual_seed(3)
    books = Factorised(3, 16, 12, 4)
    z, way = torch.randn(2, 12, 30, requires_grad=True), torch.randn(2, 12, 30)
    q = pull(books, z)
    assert torch.equal(q.codes, books.encode(z)) and torch.allclose(q.latent, books.decode(q.codes), atol=1e-5)
    first = books.quantizers[0]
    one = pull(Factorised(1, 16, 12, 4), z)
    assert one.codes.shape == (2, 1, 30)
    (through,) = torch.autograd.grad((q.latent * way).sum(), z, retain_graph=True)
    assert through.abs().sum() > 0
    assert torch.autograd.grad(q.commitment, first.codebook.weight, retain_graph=True, allow_unused=True)[0] is None
    assert torch.autograd.grad(q.codebook, first.codebook.weight, retain_graph=True)[0].abs().sum() > 0
    assert torch.autograd.grad(q.commitment, first.in_proj.weight, retain_graph=True)[0].abs().sum() > 0


def test_straight_through_is_the_projections_alone():
    """One level: the gradient at the latent is that of the two projections, as if nothing had been rounded between them."""
    torch.manual_seed(4)
    books = Factorised(1, 16, 12, 4)
    z, way = torch.randn(2, 12, 30, requires_grad=True), torch.randn(2, 12, 30)
    (found,) = torch.autograd.grad((pull(books, z).latent * way).sum(), z)
    level = books.quantizers[0]
    (wanted,) = torch.autograd.grad((level.out_proj(level.in_proj(z)) * way).sum(), z)
    assert torch.allclose(found, wanted, atol=1e-6)


def test_who_is_helped_and_who_is_hindered(learning, batch):
    """A stream's gradient from a listener that is to succeed points down its loss; from one that is to fail, up."""
    latent = learning.codec.latent(batch["audio"])
    made = learning.codec.streams(latent)
    voice = learning.codec.listener(latent)
    told = learning.told(made, batch)
    content = made["content"].latent
    (down,) = torch.autograd.grad(told["content"], content, retain_graph=True)
    hidden = learning.hidden(made, voice, batch)
    assert set(hidden) == {"content_melody", "detail_melody", "prosody_phones", "detail_phones", "hidden_voice"}
    prosody = made["prosody"].latent
    (up,) = torch.autograd.grad(hidden["prosody_phones"], prosody, retain_graph=True)
    with torch.no_grad():
        assert learning.phone_loss("content", content - 1e-2 * down / down.norm(), batch) < learning.phone_loss("content", content, batch)
        before, after = (learning.phone_loss("prosody", p, batch) for p in (prosody, prosody - 1e-1 * up / up.norm()))
        assert after > before
    (voiced,) = torch.autograd.grad(hidden["hidden_voice"], learning.codec.listener.out.weight, retain_graph=True, allow_unused=True)
    assert voiced is None, "the voice must not change so as to be hard to guess"


def test_the_reversal_grows(learning, batch):
    """Streams first learn to tell what is theirs; the gradient of what they are to hide grows over `rise` steps."""
    learning.config.rise = 8
    latent = learning.codec.latent(batch["audio"])
    made = {name: replace(m, latent=m.latent.detach().requires_grad_()) for name, m in learning.codec.streams(latent).items()}
    prosody, voice = made["prosody"].latent, learning.codec.listener(latent)
    found = []
    for updates in (0, 3, 7, 99):
        learning.updates.fill_(updates)
        found.append(torch.autograd.grad(learning.hidden(made, voice, batch)["prosody_phones"], prosody)[0])
    assert found[2].abs().sum() > 0 and torch.equal(found[2], found[3])
    assert torch.allclose(found[0], found[2] / 8) and torch.allclose(found[1], found[2] / 2)
    learning.reconstruct(batch)
    assert learning.updates == 100
    learning.eval().reconstruct(batch)
    assert learning.updates == 100


def test_speech_without_phones_will_do(learning, batch):
    made = learning.reconstruct({"audio": batch["audio"]})
    assert "content" not in made.losses and made.fake.shape == made.real.shape == batch["audio"].shape
    assert all(loss.isfinite() for loss in made.losses.values())


def test_detail_is_dropped_in_training_only(learning, batch):
    made = learning.codec.streams(learning.codec.latent(batch["audio"]))
    rows = [learning.heard(made) - (made["prosody"].latent + made["content"].latent).transpose(1, 2) for _ in range(20)]
    kept = torch.stack([row.flatten(1).abs().sum(1) > 1e-3 for row in rows])
    assert 0.2 < kept.float().mean() < 0.8
    learning.eval()
    whole = learning.heard(made)
    assert torch.allclose(whole, sum(m.latent for m in made.values()).transpose(1, 2))


def test_a_voice_learns_to_be_the_same_in_both_halves_of_a_crop():
    torch.manual_seed(1)
    codec = TINY.build()
    audio = 3 * MadeUpSounds(0.4, 4, 8000, HOP).build({}).at(0)["audio"]
    optimiser = torch.optim.Adam([*codec.encoder.parameters(), *codec.listener.parameters()], 1e-2)
    for _ in range(25):
        optimiser.zero_grad()
        latent = codec.latent(audio)
        middle = latent.shape[-1] // 2
        loss = contrast(codec.listener(latent[..., :middle]), codec.listener(latent[..., middle:]))
        loss.backward()
        optimiser.step()
    assert loss < 0.5 * math.log(4)


def test_all_losses_train_together(learning, batch):
    """A few steps, in which the content's head learns at least how frequent each phone is. That the streams part takes a real run."""
    optimiser = torch.optim.Adam(learning.parameters(), 1e-2)
    history = []
    for _ in range(15):
        optimiser.zero_grad()
        made = learning.reconstruct(batch)
        (sum(made.losses.values()) + 10 * (made.real.abs() - made.fake.abs()).abs().mean()).backward()
        optimiser.step()
        history.append({name: loss.item() for name, loss in made.losses.items()})
    assert history[-1]["content"] < 0.9 * history[0]["content"]
    assert learning.codec.decoder.average.abs().sum() > 0
    finished = learning.finished()
    assert finished.decode(finished.encode(batch["audio"])).isfinite().all() and not finished.training


@pytest.mark.parametrize("hertz", [70, 100, 163, 250, 380])
def test_pitch_is_heard_within_three_percent(hertz):
    time = torch.arange(8000) / 8000
    for partials in ((1,), (1, 2, 3), (2, 3, 4)):  # with a missing fundamental too
        audio = sum(torch.sin(2 * math.pi * hertz * k * time) for k in partials)[None, None] * 0.1
        found = pitch(audio, 8000, HOP)
        assert found.shape == (1, 100)
        inside = found[0, 5:-5]
        assert ((inside / hertz).log().abs() < 0.03).all(), (partials, inside)


def test_silence_and_noise_have_no_pitch_and_a_melody_no_voice():
    assert (pitch(torch.zeros(1, 1, 1600), 8000, HOP) == 0).all()
    assert (pitch(noise(8000), 8000, HOP) > 0).float().mean() < 0.1
    hertz = torch.tensor([[100.0, 0.0, 200.0], [150.0, 0.0, 300.0], [0.0, 0.0, 0.0]])
    tuned = tune(hertz)
    assert torch.allclose(tuned[0], tuned[1]) and torch.allclose(tuned[0], torch.tensor([-0.3466, 0.0, 0.3466]), atol=1e-4)
    assert (tuned[2] == 0).all()


def test_labels_at_another_rate_and_contrast():
    assert at_frames(torch.tensor([[1, 2, 3]]), 6).tolist() == [[1, 1, 2, 2, 3, 3]]
    assert at_frames(torch.tensor([[1, 2, 3, 4]]), 2).tolist() == [[1, 3]]
    right = contrast(torch.eye(4), torch.eye(4))
    assert right < contrast(torch.eye(4), torch.ones(4, 4) / 2) < contrast(torch.eye(4), torch.eye(4).roll(1, 0))


def test_a_mistake_is_one_sentence(codec):
    for wrong, says in [
        (lambda: codec.encode(torch.zeros(1, 2, 400)), "mono"),
        (lambda: codec.decode(torch.full((1, 1, 3), 99)), "99"),
        (lambda: codec.decode(torch.zeros(1, 7, 3, dtype=torch.long)), "1 to 6"),
        (lambda: FACodec.Config(content=0).build(), "content is 0"),
    ]:
        with pytest.raises(SlmError, match=says):
            wrong()
