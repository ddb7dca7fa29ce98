"""VQ-VAE on waveforms and on mel, beside k-means on mel: straight-through gradients, moving codebooks, exact lengths, and they learn.

B batch, N samples, M mel bands, D width of a latent, T frames.
"""

import pytest
import torch

from slm.data.madeup import MadeUpSounds
from slm.errors import SlmError
from slm.nn.mel import PRESETS, LogMel
from slm.train.loop import Train
from slm_tokenizers import load, stored
from slm_tokenizers.griffinlim import griffin_lim
from slm_tokenizers.kmeansmel import KMeansMel
from slm_tokenizers.melvq import LearningMelVQ, MelVQ
from slm_tokenizers.quantize.learn import LearnedCodebooks
from slm_tokenizers.quantize.search import nearest
from slm_tokenizers.semantic.units import cluster
from slm_tokenizers.vqvae import VQVAE
from slm_vocoders.hifigan import HiFiGAN

MEL = LogMel.Config(8000, 256, 80, 256, 20, 0.0, 4000.0, center=False)
TINY = MelVQ.Config(MEL, layers=1, n_q=1, card=16, dim=8, width=32, residuals=1)
WAVE = VQVAE.Config(8000, n_q=1, card=16, dim=4, width=8, layers=4, residuals=1)


def noise(samples: int, rows: int = 1) -> torch.Tensor:
    return torch.randn(rows, 1, samples, generator=torch.Generator().manual_seed(samples)) * 0.1


@pytest.fixture(scope="module")
def speech() -> torch.Tensor:
    return MadeUpSounds(0.64, 6, 8000, 160).build({}).at(0)["audio"]


TOKENIZERS = [WAVE, TINY, KMeansMel.Config(MEL, 2, card=16)]


@pytest.mark.parametrize("config", TOKENIZERS, ids=["VQVAE", "MelVQ", "KMeansMel"])
def test_every_tokenizer_keeps_the_contract(config, tmp_path):
    torch.manual_seed(0)
    tokenizer = config.build().as_stored().eval()
    for samples in (1, tokenizer.hop - 1, tokenizer.hop, tokenizer.hop + 1, 1111):
        codes = tokenizer.encode(noise(samples, 2))
        frames = -(-samples // tokenizer.hop)
        assert codes.shape == (2, 1, frames) and codes.dtype == torch.long and 0 <= codes.min() and codes.max() < tokenizer.card == 16
        audio = tokenizer.decode(codes)
        assert audio.shape == (2, 1, frames * tokenizer.hop) and audio.isfinite().all()
        assert tokenizer.decode(codes, samples).shape == (2, 1, samples)
        made = getattr(tokenizer, "mel", tokenizer.decode)  # Griffin-Lim makes much of the last bit of a mel
        assert torch.allclose(made(codes[1:])[0], made(codes)[1], atol=1e-5), "a row does not hear its neighbours"
    stored.save(tokenizer, tmp_path)
    loaded = load(tmp_path)
    assert type(loaded) is type(tokenizer) and torch.equal(loaded.encode(noise(1111, 2)), codes)
    for wrong in (torch.zeros(1, 2, 400), torch.zeros(400), torch.zeros(1, 1, 0)):
        with pytest.raises(SlmError):
            tokenizer.encode(wrong)
    with pytest.raises(SlmError, match="99"):
        tokenizer.decode(torch.full((1, 1, 3), 99))


def test_the_gradient_goes_straight_through_the_codebook():
    torch.manual_seed(1)
    learned = LearnedCodebooks(4, 1, 8, dropout=False).train()
    z, pull = torch.randn(2, 4, 30, requires_grad=True), torch.randn(2, 4, 30)
    q = learned(z)
    assert not torch.allclose(q.latent, z)
    (found,) = torch.autograd.grad((q.latent * pull).sum(), z)
    assert torch.equal(found, pull)


def test_the_codebook_moves_as_the_paper_says():
    """N <- decay N + (1 - decay) n, m <- decay m + (1 - decay) sum z, e = m / N (appendix A.1), with the library's smoothing of N."""
    torch.manual_seed(2)
    learned = LearnedCodebooks(4, 1, 3, dropout=False).train()
    z = torch.randn(2, 4, 100)
    learned(z)  # k-means start
    book = learned.rvq.layers[0]._codebook
    size, total, embed = book.cluster_size[0].clone(), book.embed_avg[0].clone(), book.embed[0].clone()
    vectors = z.transpose(1, 2).reshape(-1, 4)
    chosen = torch.nn.functional.one_hot(nearest(vectors, embed), 3).float()
    learned(z)
    size = 0.99 * size + 0.01 * chosen.sum(0)
    total = 0.99 * total + 0.01 * chosen.t() @ vectors
    smoothed = (size + 1e-5) / (size.sum() + 3e-5) * size.sum()
    assert torch.allclose(book.cluster_size[0], size, rtol=1e-5)
    assert torch.allclose(learned.embed[0], total / smoothed[:, None], rtol=1e-4)


def test_it_learns_and_every_level_brings_it_nearer(speech):
    """A few crops of made-up speech, learned by heart."""
    torch.manual_seed(3)
    config = MelVQ.Config(**{**vars(TINY), "n_q": 3})
    stage = LearningMelVQ.Config(config, commit=3.0).build().train()
    optimiser = torch.optim.Adam(stage.parameters(), 3e-3)
    for _ in range(80):
        optimiser.zero_grad()
        sum(stage.losses({"audio": speech}).values()).backward()
        optimiser.step()
    vq = stage.finished()
    codes, wanted = vq.encode(speech), vq.spectrum(speech)
    off = [float((vq.mel(codes[:, :q]) - wanted).abs().mean()) for q in (1, 2, 3)]
    nothing = float((wanted.mean((0, 2), keepdim=True) - wanted).abs().mean())
    print(off, nothing)
    assert 0.9 * nothing > off[0] > off[1] > off[2] and codes.unique().numel() >= 8


def test_a_teacher_hears_the_first_level_alone_and_its_lesson_is_learned(speech):
    torch.manual_seed(3)
    stage = LearningMelVQ.Config(MelVQ.Config(**{**vars(TINY), "n_q": 3}), teacher=2, distill=1.0).build().train()
    frames = stage.codec.frames(speech.shape[-1])
    batch = {"audio": speech, "teacher": (torch.arange(frames) // 5 % 2).expand(len(speech), -1).clone()}
    batch["teacher"][0] = -1  # nobody knows what is said there
    optimiser = torch.optim.Adam(stage.parameters(), 3e-3)
    lessons = []
    for _ in range(40):
        optimiser.zero_grad()
        losses = stage.losses(batch)
        sum(losses.values()).backward()
        optimiser.step()
        lessons.append(float(losses["distill"].detach()))
    assert lessons[-1] < 0.8 * lessons[0]
    stage.eval()
    before = stage.losses(batch)
    for layer in stage.learned.rvq.layers[1:]:
        layer._codebook.embed.normal_()
    after = stage.losses(batch)
    assert after["distill"] == before["distill"] and after["mel"] != before["mel"]
    assert "distill" not in stage.losses({"audio": speech})


def test_a_sum_of_codes_vectors_sounds_as_the_codes_do(speech):
    torch.manual_seed(0)
    vq = MelVQ.Config(**{**vars(TINY), "n_q": 3}).build().eval()
    vq.codebooks.embed.normal_()
    codes = vq.encode(speech)
    assert torch.equal(vq.sound(vq.codebooks.decode(codes)), vq.decode(codes))


class Given:
    """Data whose every batch is the same audio [B,1,N]."""

    def __init__(self, audio: torch.Tensor) -> None:
        self.audio = audio

    def at(self, step: int) -> dict:
        return {"audio": self.audio}


def test_k_means_finds_what_is_there():
    draw = torch.Generator().manual_seed(5)
    centres = torch.randn(4, 6, generator=draw) * 10
    x = centres[torch.arange(400) % 4] + 0.1 * torch.randn(400, 6, generator=draw)
    assert torch.cdist(centres, cluster(x, 4)).amin(1).max() < 0.1


def test_k_means_on_mel_falls_with_more_codes(speech):
    def off(card):
        tokenizer = KMeansMel.Config(MEL, 2, card=card).build()
        tokenizer.fit(Given(speech), Train(steps=1))
        return float((tokenizer.mel(tokenizer.encode(speech)) - MEL.build()(speech)).square().mean())

    offs = [off(card) for card in (2, 8, 32)]
    assert offs[0] > offs[1] > offs[2]
    with pytest.raises(SlmError, match="192 frames cannot have 200 clusters"):
        off(200)


def test_each_level_of_k_means_leaves_as_much_as_it_was_fitted_to_leave(speech, tmp_path):
    """Prefixes of the levels decode, each nearer than the one before, and what is loaded again is what was written."""
    tokenizer = KMeansMel.Config(MEL, 2, n_q=3, card=8).build()
    fitted = [level["distance"] for level in tokenizer.fit(Given(speech), Train(steps=2))]
    codes, wanted = tokenizer.encode(speech), MEL.build()(speech)
    left = [float((tokenizer.mel(codes[:, :q]) - wanted).square().mean()) for q in (1, 2, 3)]
    assert left == pytest.approx(fitted, rel=1e-4) and left[0] > left[1] > left[2]
    assert torch.equal(tokenizer.encode(speech, 2), codes[:, :2])
    tokenizer.write(tmp_path)
    assert torch.equal(load(tmp_path).encode(speech), codes)


def test_k_means_is_deterministic(speech):
    def centres(seed):
        tokenizer = KMeansMel.Config(MEL, 2, n_q=2, card=8).build()
        tokenizer.fit(Given(speech), Train(steps=1, seed=seed))
        return tokenizer.codebooks.embed

    assert torch.equal(centres(0), centres(0)) and not torch.equal(centres(0), centres(1))


def test_griffin_lim_speaks_the_mel_it_is_given(speech):
    """In place, not shifted: the mel of its audio is the mel it was given, and less so one frame off."""
    hear = MEL.build()
    mel = hear(speech)
    again = hear(griffin_lim(mel, MEL))
    off = (again - mel).abs().mean()
    shifted = (again[..., 1:] - mel[..., :-1]).abs().mean()
    nothing = (mel.mean(-1, keepdim=True) - mel).abs().mean()
    print(float(off), float(shifted), float(nothing))
    assert off < 0.6 * shifted and off < 0.5 * nothing
    assert torch.equal(griffin_lim(mel[1:2], MEL)[0], griffin_lim(mel, MEL)[1]), "no draws, and no ear for other rows"
    with pytest.raises(SlmError, match="center=True"):
        griffin_lim(torch.zeros(1, 80, 4), PRESETS["codec16k"])
    with pytest.raises(SlmError, match=r"\[B, 20, T\]"):
        griffin_lim(torch.zeros(1, 80, 4), MEL)


def test_a_vocoder_handed_in_speaks():
    torch.manual_seed(6)
    tokenizer = MelVQ.Config(PRESETS["hifigan22k"], layers=2, card=16, dim=4, width=8, residuals=1).build().eval()
    vocoder = small_vocoder()
    codes = tokenizer.encode(noise(5000))
    with torch.no_grad():
        spoken = vocoder(tokenizer.mel(codes))
    assert torch.equal(tokenizer.decode(codes, vocoder=vocoder), spoken) and spoken.shape[-1] == codes.shape[-1] * 1024 == 5 * 1024


def small_vocoder() -> HiFiGAN:
    config = HiFiGAN.Config.v3()
    config.channels = 16
    return config.build().eval()
