"""A causal codec streamed is the codec run at once: same ids, same audio, whatever the pieces; and so is a long file in pieces.

B batch, C channels, N samples, T frames.
"""

import pytest
import soundfile
import torch
from torch import Tensor

from slm import codes
from slm.errors import SlmError
from slm_tokenizers import stored
from slm_tokenizers.codec import Codec
from slm_tokenizers.encodec import Encodec, stereo_48khz
from slm_tokenizers.mimi import Mimi
from slm_tokenizers.mimi_stream import DecodeStream, EncodeStream
from slm_tokenizers.pieces import decode_in_pieces, encode_in_pieces
from slm_tokenizers.soundstream import SoundStream

HOP = 40
HELD = ("kept", "before", "none")  # what a layer of a stream remembers


def noise(samples: int, channels: int = 1, batch: int = 1) -> Tensor:
    return torch.randn(batch, channels, samples, generator=torch.Generator().manual_seed(samples)) * 0.3


def spread(codebooks, latents: Tensor) -> None:
    """Codebooks among the latents [B,D,T], so that ids mean something."""
    std = latents.std((0, 2))
    codebooks.embed.copy_(torch.randn_like(codebooks.embed) * std * 0.8 ** torch.arange(codebooks.n_q).view(-1, 1, 1))
    codebooks.embed[0] += latents.mean((0, 2))


@torch.no_grad()
def enliven(codec: torch.nn.Module) -> None:
    """As initialised, the signal drowns in the biases."""
    for name, parameter in codec.named_parameters():
        if name.endswith("original0"):
            parameter.mul_(2.0)
        elif name.endswith("bias"):
            parameter.normal_(0.0, 0.03)


def encodec(channels: int = 1, **fields) -> Encodec:
    torch.manual_seed(0)
    codec = Encodec.Config(rate=8000, channels=channels, n_q=4, card=64, dim=16, n_filters=4, ratios=(5, 4, 2), **fields).build().eval()
    enliven(codec)
    with torch.no_grad():
        spread(codec.quantizer, codec.encoder(noise(8000, channels)))
    return codec


@pytest.fixture(scope="module")
def codec() -> Encodec:
    return encodec()


def cuts(total: int, seed: int, most: int) -> list[int]:
    """Piece lengths, some of them 0, that add up to `total`."""
    generator, sizes = torch.Generator().manual_seed(seed), []
    while sum(sizes) < total:
        sizes.append(min(int(torch.randint(0, most + 1, (), generator=generator)), total - sum(sizes)))
    return sizes


def streamed(stream, x: Tensor, sizes: list[int]) -> Tensor:
    pieces = [stream.push(piece) for piece in x.split(sizes, dim=-1)]
    return torch.cat([*pieces, stream.flush()], dim=-1)


# one frame; with 6 and 7 frames the mirror at the start is just short of, and just, whole; lengths within a frame
@pytest.mark.parametrize("samples", [HOP, HOP + 1, 2 * HOP - 1, 6 * HOP, 6 * HOP + 1, 7 * HOP, 7 * HOP + 23])
@pytest.mark.parametrize("most", [1, 57, 3 * HOP, 10**6])
def test_streamed_is_at_once_at_every_length_and_in_every_piece(codec, samples, most):
    audio = noise(samples, batch=2)
    codes = codec.encode(audio)
    assert torch.equal(streamed(codec.stream_encoder(), audio, cuts(samples, samples, most)), codes)
    back, frames = codec.decode(codes), codes.shape[-1]
    again = streamed(codec.stream_decoder(), codes, cuts(frames, most, -(-most // HOP)))
    assert again.shape == back.shape == (2, 1, frames * HOP)
    assert (again - back).abs().max() <= 1e-5 and back.std() > 0.01


def test_ids_of_the_streamed_codec_mean_something(codec):
    codes = codec.encode(noise(4000))
    assert all(level.unique().numel() > 20 for level in codes.unbind(1))


@pytest.mark.parametrize("fields", [{"channels": 2}, {"shortcut": False}, {"bandwidths": (1.2, 4.8)}])
def test_every_causal_encodec_streams(fields):
    other = encodec(**fields)
    audio = noise(1513, other.channels, 3)
    kbps = min(other.bandwidths)
    codes = other.encode(audio, kbps)
    assert torch.equal(streamed(other.stream_encoder(kbps), audio, cuts(1513, 1, 200)), codes)
    again = streamed(other.stream_decoder(1513), codes, cuts(codes.shape[-1], 2, 4))
    assert again.shape == audio.shape and (again - other.decode(codes, 1513)).abs().max() <= 1e-5


def soundstream(**fields) -> SoundStream:
    torch.manual_seed(1)
    codec = SoundStream.Config(n_q=3, card=64, dim=8, n_filters=2, ratios=(5, 4, 2), **fields).build().eval()
    enliven(codec)
    with torch.no_grad():
        spread(codec.codebooks, codec.latent(noise(4000)))
    return codec


def mimi() -> Mimi:
    torch.manual_seed(2)
    small = dict(n_q=3, card=64, code_dim=8, dim=16, n_filters=4, ratios=(5, 4), depth=2, heads=2, mlp=24, window=12)
    codec = Mimi.Config(**small).build().eval()
    with torch.no_grad():
        z = codec.latent(noise(4000))
        for part in (codec.quantizer.semantic, codec.quantizer.acoustic):
            spread(part.books, part.inward(z))
    return codec


CAUSAL = {
    "Encodec": encodec,
    "SoundStream": soundstream,
    "SoundStream as EnCodec": lambda: soundstream(pad="reflect", lstm=1, shortcut=True, compress=2),
    "SoundStream without norm": lambda: soundstream(norm="none", residuals=1),
    "Mimi": mimi,
}


@pytest.mark.parametrize("name", CAUSAL)
def test_every_causal_codec_streams_in_pieces_of_any_size(name):
    """Seed 0 gives it one sample and one frame at a time."""
    codec = CAUSAL[name]()
    least = HOP if name == "Encodec" else 1
    for seed in range(5):
        dice = torch.Generator().manual_seed(seed)
        samples = int(torch.randint(least, 500, (), generator=dice))
        audio = noise(samples, batch=2)
        codes, frames = codec.encode(audio), -(-samples // HOP)
        back = codec.decode(codes, samples)
        assert codes.shape[-1] == frames and codes.unique().numel() > min(10, frames) and back.std() > 1e-3
        sizes = [[1] * n if seed == 0 else cuts(n, seed, most) for n, most in ((samples, 150), (frames, 5))]
        if name == "Mimi":
            encoder, decoder = EncodeStream(codec, batch=2), DecodeStream(codec, batch=2)
            sizes = [[n for n in row if n] for row in sizes]
        else:
            encoder, decoder = codec.stream_encoder(), codec.stream_decoder(samples)
        assert torch.equal(streamed(encoder, audio, sizes[0]), codes)
        again = streamed(decoder, codes, sizes[1])[..., :samples]
        assert again.shape == audio.shape and (again - back).abs().max() <= 1e-5 * max(1.0, float(back.abs().max()))


def test_a_stream_of_fewer_levels_is_a_prefix():
    codec = soundstream()
    codes = streamed(codec.stream_encoder(2), noise(1311), cuts(1311, 5, 90))
    assert torch.equal(codes, codec.encode(noise(1311))[:, :2])
    again, back = streamed(codec.stream_decoder(), codes, cuts(codes.shape[-1], 6, 3)), codec.decode(codes)
    assert (again - back).abs().max() <= 1e-5 * float(back.abs().max())


def test_a_frame_comes_out_as_soon_as_it_is_heard(codec):
    """Zero padding needs no look ahead; a mirror of 6 frames needs 7, and then every hop gives a frame, every frame a hop."""
    encoder, decoder = codec.stream_encoder(), codec.stream_decoder()
    given = [encoder.push(noise(HOP)) for _ in range(10)]
    assert [codes.shape[-1] for codes in given] == [0] * 6 + [7, 1, 1, 1]
    heard = [decoder.push(codes).shape[-1] for codes in torch.cat(given, dim=-1).split(1, dim=-1)]
    assert heard[:6] == [0] * 6 and heard[7:] == [HOP] * 3 and sum(heard) == 10 * HOP


def test_two_streams_do_not_hear_each_other(codec):
    one, other = noise(800), noise(801)
    a, b = codec.stream_encoder(), codec.stream_encoder()
    pieces = [(a.push(x), b.push(y)) for x, y in zip(one.split(100, -1), other.split(100, -1))]
    b.push(other[..., 800:])
    assert torch.equal(torch.cat([*(p[0] for p in pieces), a.flush()], -1), codec.encode(one))


def test_a_stream_keeps_no_more_than_a_few_frames(codec):
    encoder = codec.stream_encoder()
    for _ in range(50):
        encoder.push(noise(4 * HOP))
    kept = [tensor for layer in walk(encoder.layers) for name, tensor in vars(layer).items() if name in HELD and tensor is not None]
    assert len(kept) > 15 and max(tensor.untyped_storage().nbytes() / 4 / tensor.shape[1] for tensor in kept) <= 5 * HOP


def walk(layer):
    yield layer
    for part in getattr(layer, "layers", getattr(layer, "paths", [])):
        yield from walk(part)


def test_a_codec_that_hears_the_future_is_refused_in_one_sentence():
    stereo = stereo_48khz()
    stereo.n_filters, stereo.dim = 2, 8
    plain = Encodec.Config(n_q=2, dim=8, n_filters=2, causal=False)
    around = SoundStream.Config(n_q=2, dim=8, n_filters=2, causal=False)
    for config in (stereo, plain, around):
        for make in (config.build().stream_encoder, config.build().stream_decoder):
            with pytest.raises(SlmError, match="not causal") as raised:
                make()
            assert "\n" not in str(raised.value)
    with pytest.raises(SlmError, match="encode_chunks"):
        Encodec.Config(n_q=2, dim=8, n_filters=2, normalize=True).build().stream_encoder()


def ended(stream, x: Tensor):
    stream.push(x)
    stream.flush()
    return stream


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda m: m.stream_encoder().flush(), "0 samples"),
        (lambda m: ended(m.stream_encoder(), noise(HOP - 1)), "39 samples but this codec needs at least 40"),
        (lambda m: m.stream_encoder().push(noise(80, channels=2)), "1, n"),
        (lambda m: m.stream_encoder().push(torch.full((1, 1, 80), float("nan"))), "NaN"),
        (lambda m: m.stream_encoder(7.0), "7.0 kbit/s"),
        (lambda m: ended(m.stream_encoder(), noise(80)).push(noise(80)), "ended"),
        (lambda m: [s.push(noise(80, batch=n)) for s in [m.stream_encoder()] for n in (1, 2)], "2 rows but this stream began with 1"),
        (lambda m: m.stream_decoder().flush(), "before it was given a code"),
        (lambda m: m.stream_decoder().push(torch.full((1, 4, 1), 64)), "code 64"),
        (lambda m: ended(m.stream_decoder(81), torch.zeros(1, 4, 2, dtype=torch.long)), "81 but these codes hold 1 to 80"),
        (lambda m: ended(m.stream_decoder(), torch.zeros(1, 4, 2, dtype=torch.long)).flush(), "ended"),
    ],
)
def test_a_wrong_use_is_one_sentence(codec, wrong, says):
    with pytest.raises(SlmError, match=says) as raised:
        wrong(codec)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("make", [encodec, soundstream])
def test_a_long_file_in_pieces_is_the_file_at_once_for_a_causal_codec(make):
    codec, audio = make(), noise(20_011)
    codes = codec.encode(audio)
    assert torch.equal(encode_in_pieces(codec, audio, seconds=0.3), codes)
    back = codec.decode(codes, 20_011)
    assert (decode_in_pieces(codec, codes, 20_011, seconds=0.3) - back).abs().max() <= 1e-5 * max(1.0, float(back.abs().max()))


@pytest.mark.parametrize("samples", [1, 77, 4000, 40_003])
def test_a_long_file_in_pieces_is_the_file_at_once_for_our_codec(samples):
    codec, audio = spectral(), noise(samples, batch=2)
    codes = codec.encode(audio)
    assert torch.equal(encode_in_pieces(codec, audio, seconds=0.1), codes)
    again = decode_in_pieces(codec, codes, samples, seconds=0.1)
    assert again.shape == audio.shape and (again - codec.decode(codes, samples)).abs().max() <= 1e-5


def spectral() -> Codec:
    torch.manual_seed(2)
    codec = Codec.Config(hop=64, n_fft=128, n_q=3, card=64, dim=8, enc_width=16, dec_width=16, dec_high_width=16).build().eval()
    with torch.no_grad():
        spread(codec.codebooks, codec.latent(noise(8000)))
    return codec


@pytest.mark.parametrize("make", [encodec, soundstream, spectral])
def test_a_long_recording_becomes_a_file_of_codes_in_pieces_and_nothing_changes(make, tmp_path, monkeypatch):
    codec, samples = make(), 23_017
    stored.save(codec, tmp_path / "codec", exact=True)
    soundfile.write(tmp_path / "in.wav", noise(samples)[0, 0].numpy(), codec.rate)

    def through(name: str) -> tuple[Tensor, Tensor]:
        path = tmp_path / f"{name}.safetensors"
        codes.encode_file(tmp_path / "in.wav", path, str(tmp_path / "codec"))
        codes.decode_file(path, tmp_path / f"{name}.wav")
        return codes.read_codes(path)[0], torch.from_numpy(soundfile.read(tmp_path / f"{name}.wav")[0])

    whole, back = through("whole")
    monkeypatch.setattr(codes, "PIECE", 0.2)
    for verb in ("encode", "decode"):
        monkeypatch.setattr(type(codec), verb, short(getattr(type(codec), verb), (samples if verb == "encode" else len(whole.T)) // 2))
    cut, again = through("cut")
    assert torch.equal(cut, whole) and whole.unique().numel() > 20
    assert len(again) == len(back) == samples and (again - back).abs().max() <= 1e-4 and back.std() > 1e-3


def short(run, most: int):
    """`run`, but nothing longer than `most` may come."""

    def limited(self, x: Tensor, *more):
        assert x.shape[-1] <= most, f"{x.shape[-1]} at once"
        return run(self, x, *more)

    return limited


def test_a_codec_without_a_finite_context_is_not_cut_in_pieces():
    plain = Encodec.Config(n_q=2, dim=8, n_filters=2, causal=False).build()
    with pytest.raises(SlmError, match="not causal"):
        encode_in_pieces(plain, noise(4000))
    with pytest.raises(SlmError, match="in pieces"):
        encode_in_pieces(torch.nn.Identity(), noise(4000))
    with pytest.raises(SlmError, match="seconds is 0"):
        encode_in_pieces(plain, noise(4000), seconds=0)
