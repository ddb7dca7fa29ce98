"""SoundStream and its kin: exact lengths, no look into the future, EnCodec's ids in EnCodec's shape, and it learns.

B batch, N samples, Q levels, T frames.
"""

import pytest
import torch

from slm.codes import fingerprint
from slm.data.madeup import MadeUpSounds
from slm.errors import SlmError
from slm.stage.adversarial import Adversarial
from slm_tokenizers import load, stored
from slm_tokenizers.codec import Codec
from slm_tokenizers.encodec import Encodec
from slm_tokenizers.soundstream import SoundStream, encodec, speechtokenizer
from slm_tokenizers.taught import TaughtCodec
from slm_tokenizers.vqvae import VQVAE
from slm_vocoders.losses import MultiMel

TINY = SoundStream.Config(16_000, n_q=4, card=32, dim=8, n_filters=2, ratios=(4, 3, 2), residuals=2)
SPECTRAL = Codec.Config(n_q=2, card=16, dim=8, enc_width=16, enc_high=1, enc_low=1, dec_width=16, dec_low=1, dec_high_width=16, dec_high=1)
HOP = 24


def noise(samples: int, rows: int = 1) -> torch.Tensor:
    return torch.randn(rows, 1, samples, generator=torch.Generator().manual_seed(samples)) * 0.3


@torch.no_grad()
def louder(codec):
    """As initialised, the signal drowns in the biases and every frame has the same id."""
    for name, parameter in codec.named_parameters():
        if name.endswith("original0"):
            parameter.mul_(2.0)


@torch.no_grad()
def lively(codec):
    louder(codec)
    latent = codec.latent(noise(9600, 4))
    spread = latent.std((0, 2)) * 0.8 ** torch.arange(codec.n_q)[:, None, None]
    codec.codebooks.embed.mul_(spread)
    codec.codebooks.embed[0] += latent.mean((0, 2))
    return codec.eval()


@pytest.fixture(scope="module")
def codec():
    torch.manual_seed(0)
    return lively(TINY.build())


@pytest.mark.parametrize("samples", [1, 23, 24, 25, 481, 1000])
def test_what_comes_out_is_as_long_as_what_went_in(codec, samples):
    codes = codec.encode(noise(samples, 2))
    assert codes.shape == (2, 4, codec.frames(samples)) and codes.dtype == torch.long
    assert codec.decode(codes, samples).shape == (2, 1, samples)
    assert codec.decode(codes).shape[-1] == codec.frames(samples) * codec.hop


@pytest.mark.parametrize("norm", ["weight_norm", "none"])
def test_what_comes_later_changes_no_code(norm):
    """The ids of frame t depend on samples before (t+1)*hop only, from the first frame on."""
    torch.manual_seed(1)
    codec = lively(SoundStream.Config(**{**vars(TINY), "norm": norm}).build())
    audio = noise(20 * HOP)
    codes = codec.encode(audio)
    assert codes.unique().numel() > 10
    for frames in range(1, 20):
        assert torch.equal(codec.encode(audio[..., : frames * HOP]), codes[..., :frames])


def test_a_frame_hears_its_last_sample_and_nothing_after_it(codec):
    audio = noise(10 * HOP).requires_grad_()
    for t in (0, 1, 5):
        (pull,) = torch.autograd.grad(codec.latent(audio)[..., t].square().sum(), audio)
        assert pull[..., (t + 1) * HOP - 1].abs() > 0 and (pull[..., (t + 1) * HOP :] == 0).all()
    mirrored = SoundStream.Config(**{**vars(TINY), "pad": "reflect"}).build()
    (pull,) = torch.autograd.grad(mirrored.latent(audio)[..., 0].square().sum(), audio)
    assert (pull[..., HOP:] != 0).any(), "mirrored edges, as EnCodec has them, do hear what follows the first frame"


def test_a_codec_that_is_not_causal_hears_what_follows(codec):
    audio = noise(10 * HOP).requires_grad_()
    around = SoundStream.Config(**{**vars(TINY), "causal": False}).build()
    (pull,) = torch.autograd.grad(around.latent(audio)[..., 5].square().sum(), audio)
    assert (pull[..., 6 * HOP :] != 0).any()


def test_audio_can_be_decoded_as_the_codes_arrive(codec):
    codes = torch.randint(0, 32, (1, 4, 12))
    whole = codec.decode(codes)
    for frames in range(1, 12):
        assert torch.allclose(codec.decode(codes[..., :frames]), whole[..., : frames * HOP], atol=1e-6)


def test_rows_and_levels_stand_alone(codec):
    audio = noise(900, 3) * torch.tensor([0.1, 1.0, 2.0])[:, None, None]
    codes = codec.encode(audio)
    assert all(torch.equal(codec.encode(audio[row : row + 1])[0], codes[row]) for row in range(3))
    assert torch.equal(codec.encode(audio, 2), codes[:, :2])
    outs = [codec.decode(codes[:, :q]) for q in range(1, 5)]
    assert all(o.shape == outs[0].shape for o in outs) and not torch.equal(outs[0], outs[3])


def test_in_encodecs_shape_it_is_encodec():
    torch.manual_seed(2)
    config = encodec()
    config.dim, config.n_filters, config.card = 16, 4, 64
    ours = lively(config.build())
    theirs = Encodec.Config(n_q=8, card=64, dim=16, n_filters=4).build().eval()
    renamed = {name.replace("decoder.net.", "decoder.").replace("codebooks.", "quantizer."): t for name, t in ours.state_dict().items()}
    theirs.load_state_dict(renamed)
    audio = noise(320 * 20, 2)
    codes = theirs.encode(audio)
    assert torch.equal(ours.encode(audio), codes) and codes.unique().numel() > 30
    assert torch.allclose(ours.decode(codes), theirs.decode(codes), atol=1e-6)
    assert ours.frames(320 * 20 - 7) == 20 and not speechtokenizer().causal


@pytest.mark.parametrize("config", [TINY, VQVAE.Config(n_q=2, card=16, dim=4, width=8, layers=3)], ids=["SoundStream", "VQVAE"])
def test_codes_survive_saving_and_loading(config, tmp_path):
    torch.manual_seed(3)
    codec = lively(config.build()).as_stored()
    stored.save(codec, tmp_path)
    loaded, audio = load(tmp_path), noise(777)
    codes = codec.encode(audio)
    assert type(loaded) is type(codec) and loaded.config == config and not loaded.training
    assert torch.equal(loaded.encode(audio), codes) and torch.equal(loaded.decode(codes), codec.decode(codes))
    assert fingerprint(loaded) == fingerprint(codec)
    torch.nn.init.normal_(next(loaded.decoder.parameters()))
    assert fingerprint(loaded) == fingerprint(codec), "a decoder may learn further"
    torch.nn.init.normal_(next(loaded.encoder.parameters()))
    assert fingerprint(loaded) != fingerprint(codec)


WAVES = VQVAE.Config(n_q=2, card=16, dim=4, width=8, layers=3)


@pytest.mark.parametrize("config", [SPECTRAL, TINY, WAVES], ids=["Codec", "SoundStream", "VQVAE"])
def test_one_learner_serves_every_codec(config):
    """The stored codec has the ids that its learner had, and the teacher's gradient reaches the encoder but no decoder."""
    torch.manual_seed(4)
    taught = TaughtCodec.Config(config, teacher=5, dropout=False).build().train()
    frames = 1920 // taught.codec.hop
    batch = {"audio": noise(1920, 4), "teacher": torch.randint(-1, 5, (4, frames))}
    for _ in range(3):
        made = taught.reconstruct(batch)
    assert made.fake.shape == made.real.shape == (4, 1, 1920)
    made.losses["distill"].backward()
    assert next(taught.codec.encoder.parameters()).grad.abs().sum() > 0
    assert all(p.grad is None for p in taught.codec.decoder.parameters())
    assert {name.split(".")[0] for name in taught.state_dict()} == {"codec", "learned", "head"}
    torch.manual_seed(58)  # three steps leave twins, and which is nearer to the rounding; of these codes one is nearer by 0.03 or more
    for layer in taught.learned.rvq.layers:
        layer._codebook.embed.normal_()
    learned = taught.eval().learned(taught.codec.latent(batch["audio"])).codes
    taught.codec.codebooks.embed.copy_(taught.learned.embed)
    assert torch.equal(taught.codec.encode(batch["audio"]), learned)


def test_it_learns_and_every_level_brings_it_nearer():
    """A few crops of made-up speech, learned by heart: the mel of the first level alone is nearer than before, of all levels nearest."""
    torch.manual_seed(5)
    config = SoundStream.Config(8000, n_q=3, card=8, dim=8, n_filters=4, ratios=(4, 4, 10), residuals=1, residual_kernel=3)
    mels = MultiMel.Config(8000, (128,), (20,), floor=1e-2)
    stage = Adversarial.Config(TaughtCodec.Config(config, teacher=0, dropout=False), mels, stft=0.0, begin=-1).build().train()
    audio = 5 * MadeUpSounds(0.4, 2, 8000, 160).build({}).at(0)["audio"]
    louder(stage.generator.codec)
    optimiser = torch.optim.Adam(stage.parameters(), 3e-3, betas=(0.8, 0.98))
    history = []
    for _ in range(50):
        optimiser.zero_grad()
        losses = stage({"audio": audio})
        sum(losses.values()).backward()
        optimiser.step()
        history.append(losses["mel"].item() / stage.config.mel)
    codec = stage.generator.finished()
    codes = codec.encode(audio)
    off = [float(stage.spectra(audio, codec.decode(codes[:, :q]))) for q in (1, 2, 3)]
    print(history[0], off)
    assert history[0] / 2 > off[0] > off[1] > off[2]
    assert all(codes[:, q].unique().numel() >= 4 for q in range(3)), "codes that nobody uses carry nothing"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda c: c.encode(torch.zeros(1, 2, 400)), r"mono audio \[B,1,N\], not \[1, 2, 400\]"),
        (lambda c: c.encode(torch.zeros(400)), r"not \[400\]"),
        (lambda c: c.encode(torch.zeros(1, 1, 0)), "no samples"),
        (lambda c: c.encode(noise(100), 5), "n_q is 5"),
        (lambda c: c.decode(torch.full((1, 1, 3), 99)), "code 99"),
        (lambda c: SoundStream.Config(n_q=0).build(), "n_q is 0"),
        (lambda c: SoundStream.Config(ratios=()).build(), "ratios"),
        (lambda c: SoundStream.Config(norm="batch").build(), "norm is 'batch'.*none"),
        (lambda c: SoundStream.Config(pad="wrap").build(), "pad is 'wrap'.*reflect, zero"),
    ],
)
def test_a_mistake_is_one_sentence(codec, wrong, says):
    with pytest.raises(SlmError, match=says) as raised:
        wrong(codec)
    assert "\n" not in str(raised.value)
