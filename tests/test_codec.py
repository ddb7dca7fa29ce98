"""Our own codec: exact lengths, pieces equal to the whole, the same ids as the library that trained its codebooks."""

import pytest
import torch

from slm.errors import SlmError
from slm_tokenizers import codec as codecs
from slm_tokenizers.codec import Codec
from slm_tokenizers.quantize.learn import LearnedCodebooks
from slm_tokenizers.quantize.taught import distill
from slm_tokenizers.taught import TaughtCodec

TINY = Codec.Config(n_q=4, card=32, dim=8, enc_width=24, enc_high=1, enc_low=2, dec_width=24, dec_low=2, dec_high_width=16, dec_high=2)


@pytest.fixture
def codec():
    torch.manual_seed(0)
    return TINY.build().eval()


@pytest.mark.parametrize("samples", [1, 319, 320, 321, 4801, 16000])
def test_what_comes_out_is_as_long_as_what_went_in(codec, samples):
    audio = torch.randn(2, 1, samples) * 0.1
    codes = codec.encode(audio)
    assert codes.shape == (2, 4, codec.frames(samples)) and codes.dtype == torch.long
    assert codec.decode(codes, samples).shape == audio.shape
    assert codec.decode(codes).shape[-1] == codec.frames(samples) * codec.hop


def test_a_row_does_not_depend_on_its_batch_mates(codec):
    audio = torch.randn(3, 1, 9000) * torch.tensor([0.01, 0.1, 1.0])[:, None, None]
    together = codec.encode(audio)
    for row in range(3):
        assert torch.equal(codec.encode(audio[row : row + 1])[0], together[row])


def test_any_prefix_of_the_levels_can_be_decoded(codec):
    codes = codec.encode(torch.randn(1, 1, 6400) * 0.1)
    outs = [codec.decode(codes[:, :q]) for q in range(1, 5)]
    assert all(o.shape == outs[0].shape for o in outs) and not torch.equal(outs[0], outs[3])
    assert torch.equal(codec.encode(torch.zeros(1, 1, 640), n_q=2), codec.encode(torch.zeros(1, 1, 640))[:, :2])


def test_decoding_in_pieces_is_decoding_at_once(codec):
    """Contract 3, with the context that the layers need and no less."""
    codes = torch.randint(0, 32, (1, 4, 90))
    whole = codec.decode(codes)
    side, hop = codec.receptive_field, codec.hop

    def middle(context):
        piece = codec.decode(codes[..., 40 - context : 50 + context])
        return piece[..., context * hop : (context + 10) * hop]

    wanted = whole[..., 40 * hop : 50 * hop]
    assert torch.allclose(middle(side), wanted, atol=1e-5)
    assert not torch.allclose(middle(side // 2), wanted, atol=1e-5), "half the context should not be enough"


def test_learned_codebooks_and_ours_give_the_same_ids_and_vectors(codec):
    torch.manual_seed(1)
    learned = LearnedCodebooks(8, 4, 32, dropout=False)
    z = torch.randn(4, 8, 50)
    learned.train()
    for _ in range(3):
        learned(z)
    learned.eval()
    codec.codebooks.embed.copy_(learned.embed)
    quantised = learned(z)
    assert torch.equal(codec.codebooks.encode(z), quantised.codes)
    assert torch.allclose(codec.codebooks.decode(quantised.codes), quantised.latent, atol=1e-5)


def test_the_first_level_alone_reaches_the_teacher_and_passes_gradients_to_the_encoder():
    torch.manual_seed(0)
    taught = TaughtCodec.Config(TINY, teacher=5).build()
    batch = {"audio": torch.randn(4, 1, 6400) * 0.1, "teacher": torch.randint(-1, 5, (4, 20))}
    made = taught.reconstruct(batch)
    made.losses["distill"].backward()
    assert taught.codec.encoder.stem.weight.grad.abs().sum() > 0
    assert all(p.grad is None for p in taught.codec.decoder.parameters())


def test_distillation_counts_labelled_frames_only():
    logits = torch.tensor([[[4.0, 0.0], [0.0, 4.0]]])
    right = distill(logits, torch.tensor([[0, -1]]))
    assert torch.isclose(right, torch.log1p(torch.exp(torch.tensor(-4.0))))
    assert distill(logits, torch.tensor([[-1, -1]])) == 0


def test_codes_survive_saving_and_loading(codec, tmp_path):
    codec.as_stored()
    codecs.save(codec, tmp_path)
    from slm_tokenizers import load

    loaded = load(tmp_path)
    audio = torch.randn(1, 1, 5000) * 0.1
    codes = codec.encode(audio)
    assert torch.equal(loaded.encode(audio), codes) and torch.equal(loaded.decode(codes), codec.decode(codes))


def test_bad_input_is_one_sentence(codec, tmp_path):
    for audio in (torch.zeros(1, 2, 400), torch.zeros(400), torch.zeros(1, 1, 0)):
        with pytest.raises(SlmError):
            codec.encode(audio)
    with pytest.raises(SlmError, match="99"):
        codec.decode(torch.full((1, 1, 3), 99))
    codec.as_stored()
    codecs.save(codec, tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(SlmError, match="damaged"):
        codecs.load(tmp_path)


@pytest.mark.parametrize("shape", [dict(enc_low=3, enc_high=3, dec_low=1, dec_high=1), dict(enc_low=1, enc_high=1, dec_low=3, dec_high=2)])
def test_nothing_beyond_the_receptive_field_is_heard_by_encoder_or_decoder(shape):
    torch.manual_seed(0)
    codec = Codec.Config(n_q=2, card=16, dim=8, enc_width=16, dec_width=16, dec_high_width=16, **shape).build().eval()
    with torch.no_grad():
        for name, p in codec.named_parameters():
            if name.endswith("scale"):
                p.fill_(1.0)  # else what comes from far is lost in rounding
    side, middle, frames = codec.receptive_field, 40, 81
    audio = torch.randn(1, 1, frames * codec.hop)
    moved = audio.clone()
    moved[..., middle * codec.hop : (middle + 1) * codec.hop] += 1
    with torch.no_grad():
        heard = (codec.latent(moved) - codec.latent(audio)).abs().amax((0, 1)) > 0
        latent = torch.randn(1, 8, frames)
        other = latent.clone()
        other[..., middle] += 1
        sounded = (codec.sound(other) - codec.sound(latent)).abs().view(frames, codec.hop).amax(1) > 0
    for name, changed in (("encoder", heard), ("decoder", sounded)):
        where = changed.nonzero().squeeze(1)
        assert len(where) and middle - side <= where.min() and where.max() <= middle + side, name
    reach = max(int((c.nonzero() - middle).abs().max()) for c in (heard, sounded))
    assert side - reach <= 3, "and it is no wider than it need be"
