"""EnCodec is the published EnCodec: the same ids and the same audio as two reference implementations, on the same weights.

Every model here is written to disk by its reference and read back by `slm_tokenizers.load`. B batch, Q levels, T frames.
"""

import json
import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import pytest
import torch
from damaged import refuses_a_pickle, refuses_every_cut
from safetensors.torch import load_file, save_file
from torch import Tensor

import slm_tokenizers
from slm.errors import SlmError
from slm_tokenizers import load
from slm_tokenizers.encodec import Chunk, Encodec, stereo_48khz
from slm_tokenizers.importers import encodec_from_th, encodec_from_transformers
from slm_tokenizers.quantize.residual import Codebooks

HOP = 320
SECOND = 48_000
STRIDE = 47_520  # of the 48 kHz model: chunks of a second overlap by a hundredth
MONO = (1.5, 3.0, 6.0, 12.0, 24.0)
STEREO = (3.0, 6.0, 12.0, 24.0)


@dataclass
class Reference:
    """A published implementation with random weights, and our module after it read them from `path`."""

    path: Path
    ours: Encodec
    codes: Callable[..., list[Chunk]]  # audio, bandwidth, mask of the samples that are a row's own
    audio: Callable[[list[Chunk]], Tensor]


def noise(samples: int, channels: int = 1, batch: int = 1) -> Tensor:
    """Noise that grows louder, so that each chunk has another scale."""
    generator = torch.Generator().manual_seed(samples)
    return torch.randn(batch, channels, samples, generator=generator) * torch.linspace(0.02, 0.3, samples)


@torch.no_grad()
def enliven(theirs: torch.nn.Module) -> None:
    """As initialised, the signal drowns in the biases, ids hang on the last bit of a float, and group norms change nothing."""
    for name, parameter in theirs.named_parameters():
        if name.endswith(("weight_g", "original0")):
            parameter.mul_(2.0)
        elif name.endswith("norm.weight"):
            parameter.uniform_(0.5, 1.5)
        elif name.endswith("bias"):
            parameter.normal_(0.0, 0.03)


@torch.no_grad()
def fill_codebooks(books: list[Tensor], latents: Tensor) -> None:
    """Both references start with codebooks that give every frame the same id; these spread over the latents [B,D,T]."""
    mean, std = latents.mean((0, 2)), latents.std((0, 2))
    for level, book in enumerate(books):
        book.copy_(torch.randn_like(book) * std * 0.95**level + (mean if level == 0 else 0))


def transformers_model(tmp: Path, channels: int = 1, **config) -> Reference:
    from transformers import EncodecConfig, EncodecModel

    torch.manual_seed(0)
    theirs = EncodecModel(EncodecConfig(num_filters=4, hidden_size=16, audio_channels=channels, **config)).eval()
    enliven(theirs)
    latents = theirs.encoder(noise(SECOND // 2, channels) / (0.2 if theirs.config.normalize else 1.0))
    fill_codebooks([layer.codebook.embed for layer in theirs.quantizer.layers], latents)
    theirs.save_pretrained(tmp)

    def codes(audio: Tensor, bandwidth: float, mask: Tensor | None = None) -> list[Chunk]:
        out = theirs.encode(audio, mask, bandwidth=bandwidth)
        chunks = [Chunk(c, s) for c, s in zip(out.audio_codes, out.audio_scales)]
        chunks[-1].codes = chunks[-1].codes[..., : chunks[-1].codes.shape[-1] - out.last_frame_pad_length]
        return chunks

    def audio(chunks: list[Chunk]) -> Tensor:
        pad = chunks[0].codes.shape[-1] - chunks[-1].codes.shape[-1]
        padded = [torch.nn.functional.pad(c.codes, (0, pad if c is chunks[-1] else 0)) for c in chunks]
        return theirs.decode(padded, [c.scale for c in chunks], last_frame_pad_length=pad).audio_values

    return Reference(tmp, load(tmp), torch.no_grad()(codes), torch.no_grad()(audio))


def package_model(tmp: Path, stereo: bool) -> Reference:
    from encodec import EncodecModel
    from encodec.modules import SEANetDecoder, SEANetEncoder
    from encodec.quantization import ResidualVectorQuantizer

    torch.manual_seed(1)
    shape = dict(channels=2 if stereo else 1, dimension=16, n_filters=4, causal=not stereo)
    shape["norm"] = "time_group_norm" if stereo else "weight_norm"
    quantizer = ResidualVectorQuantizer(dimension=16, n_q=16 if stereo else 32, bins=1024)
    theirs = EncodecModel(
        SEANetEncoder(**shape), SEANetDecoder(**shape), quantizer, list(STEREO if stereo else MONO),
        48_000 if stereo else 24_000, shape["channels"], normalize=stereo, segment=1.0 if stereo else None,
    ).eval()  # fmt: skip
    enliven(theirs)
    latents = theirs.encoder(noise(SECOND // 2, shape["channels"]) / (0.2 if stereo else 1.0))
    fill_codebooks([layer._codebook.embed for layer in quantizer.vq.layers], latents)
    torch.save(theirs.state_dict(), tmp / "encodec.th")

    def codes(audio: Tensor, bandwidth: float, mask: Tensor | None = None) -> list[Chunk]:
        theirs.set_target_bandwidth(bandwidth)
        return [Chunk(c, s) for c, s in theirs.encode(audio if mask is None else audio * mask)]

    def audio(chunks: list[Chunk]) -> Tensor:
        return theirs.decode([(c.codes, c.scale) for c in chunks])

    return Reference(tmp / "encodec.th", load(tmp / "encodec.th"), torch.no_grad()(codes), torch.no_grad()(audio))


@pytest.fixture(scope="module", params=["transformers", "package"])
def mono(request, tmp_path_factory) -> Reference:
    tmp = tmp_path_factory.mktemp("mono")
    return transformers_model(tmp) if request.param == "transformers" else package_model(tmp, stereo=False)


@pytest.fixture(scope="module", params=["transformers", "package"])
def stereo(request, tmp_path_factory) -> Reference:
    tmp = tmp_path_factory.mktemp("stereo")
    if request.param == "package":
        return package_model(tmp, stereo=True)
    return transformers_model(
        tmp, channels=2, sampling_rate=48_000, target_bandwidths=list(STEREO), normalize=True, chunk_length_s=1.0,
        overlap=0.01, norm_type="time_group_norm", use_causal_conv=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def tiny() -> Encodec:
    torch.manual_seed(2)
    return Encodec.Config(n_q=8, dim=8, n_filters=2).build().eval()


def assert_same(reference: Reference, audio: Tensor, bandwidth: float) -> None:
    ours, samples = reference.ours.encode_chunks(audio, bandwidth), audio.shape[-1]
    theirs = reference.codes(audio, bandwidth)
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs):
        assert torch.equal(mine.codes, other.codes)
        assert (mine.scale is None) == (other.scale is None)
        assert mine.scale is None or torch.allclose(mine.scale.flatten(), other.scale.flatten(), rtol=1e-6)
    expected = reference.audio(theirs)[..., :samples]
    assert expected.std() > 0.01 and (reference.ours.decode_chunks(ours, samples) - expected).abs().max() <= 1e-4


@pytest.mark.parametrize("bandwidth", MONO)
def test_24khz_ids_and_audio_are_those_of_the_reference_at_every_bandwidth(mono, bandwidth):
    audio = noise(4807, batch=2)
    assert_same(mono, audio, bandwidth)
    codes = mono.ours.encode(audio, bandwidth)
    assert codes.shape == (2, {1.5: 2, 3.0: 4, 6.0: 8, 12.0: 16, 24.0: 32}[bandwidth], 16)
    assert codes.dtype == torch.long and all(level.unique().numel() >= 8 for level in codes.unbind(1))  # the ids mean something


@pytest.mark.parametrize("samples", [320, 321, 639, 640, 1283, 12_345])
def test_24khz_ids_and_audio_are_those_of_the_reference_at_every_length(mono, samples):
    assert_same(mono, noise(samples), 6.0)


@pytest.mark.parametrize("bandwidth", STEREO)
def test_48khz_ids_scales_and_audio_are_those_of_the_reference_at_every_bandwidth(stereo, bandwidth):
    assert_same(stereo, noise(SECOND + 2003, 2, batch=2), bandwidth)


# less than a chunk, one chunk and its overlap, a second chunk of a few samples, three chunks
@pytest.mark.parametrize("samples", [HOP, 9001, STRIDE, SECOND, STRIDE + 7, 2 * STRIDE + 5001])
def test_48khz_ids_scales_and_audio_are_those_of_the_reference_at_every_length(stereo, samples):
    assert_same(stereo, noise(samples, 2), 3.0)


def test_32khz_layout_without_shortcut_and_not_causal_is_that_of_the_reference(tmp_path):
    config = dict(sampling_rate=32_000, upsampling_ratios=[8, 5, 4, 4], codebook_size=2048, target_bandwidths=[2.2])
    reference = transformers_model(tmp_path, use_conv_shortcut=False, use_causal_conv=False, **config)
    assert (reference.ours.rate, reference.ours.hop, reference.ours.n_q) == (32_000, 640, 4)
    assert_same(reference, noise(7001), 2.2)


def test_decoding_returns_exactly_the_samples_asked_for(mono, stereo):
    for samples in (320, 321, 6399):
        codes = mono.ours.encode(noise(samples), 1.5)
        assert mono.ours.decode(codes, samples).shape == (1, 1, samples)
        assert mono.ours.decode(codes).shape == (1, 1, -(-samples // HOP) * HOP)
    # STRIDE + HOP: the first chunk, rounded up to whole frames, ends after the last one
    for samples in (HOP, STRIDE + HOP, SECOND + 1):
        audio = stereo.ours.decode_chunks(stereo.ours.encode_chunks(noise(samples, 2), 3.0), samples)
        assert audio.shape == (1, 2, samples) and audio.isfinite().all()


def test_fewer_levels_are_a_prefix_and_decode_as_such(mono):
    audio = noise(3200)
    every = mono.ours.encode(audio)
    assert every.shape[1] == 32 and torch.equal(every[:, :8], mono.ours.encode(audio, 6.0))
    assert mono.ours.decode(every[:, :3]).shape == audio.shape


def padded(reference: Reference, lengths: list[int], bandwidth: float) -> tuple[list[Chunk], list[Chunk]]:
    """Our chunks of a batch padded with silence, and the reference's, which was given noise behind the rows and a mask."""
    batch = noise(max(lengths), reference.ours.channels, len(lengths))
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None, None]).expand_as(batch)
    return reference.ours.encode_chunks(batch * mask, bandwidth), reference.codes(batch, bandwidth, mask)


def test_a_padded_batch_of_24khz_is_that_of_the_reference_with_its_mask(mono):
    for mine, other in zip(*padded(mono, [5003, 4480, 3001], 6.0), strict=True):
        assert torch.equal(mine.codes, other.codes)


def test_a_padded_batch_of_48khz_is_that_of_the_reference_and_its_full_chunks_those_of_the_row_alone(stereo):
    lengths = [SECOND + 2003, 9001, SECOND]
    ours, theirs = padded(stereo, lengths, 6.0)
    assert len(ours) == len(theirs) == 2
    for mine, other in zip(ours, theirs):
        assert torch.equal(mine.codes, other.codes) and torch.allclose(mine.scale.flatten(), other.scale.flatten(), rtol=1e-6)
    row = noise(SECOND + 2003, 2, 3)[2:, :, :SECOND]
    alone = stereo.ours.encode_chunks(row, 6.0)[0]
    assert torch.equal(alone.codes, ours[0].codes[2:]) and torch.allclose(alone.scale, ours[0].scale[2:])


def test_a_causal_row_in_a_padded_batch_is_the_row_alone(mono):
    lengths = [12 * HOP, 7 * HOP, 9 * HOP + 11]  # from 7 frames on: the first frames mirror the next 6
    rows = [noise(n) for n in lengths]
    batch = torch.zeros(3, 1, max(lengths))
    for i, row in enumerate(rows):
        batch[i, :, : row.shape[-1]] = row
    codes = mono.ours.encode(batch)
    audio = mono.ours.decode(codes)
    for i, (row, n) in enumerate(zip(rows, lengths)):
        whole = n // HOP
        alone = mono.ours.encode(row)[..., :whole]
        assert torch.equal(codes[i : i + 1, :, :whole], alone)
        assert torch.allclose(audio[i : i + 1, :, : whole * HOP], mono.ours.decode(alone), atol=1e-5)


def test_the_published_size_is_that_of_the_published_model():
    with torch.device("meta"):
        model = Encodec.Config().build()
        assert model.rate / model.hop == 75
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 3) == 14.852


def test_codebooks_give_the_ids_and_latents_of_vector_quantize_pytorch():
    from vector_quantize_pytorch import ResidualVQ

    torch.manual_seed(3)
    z = torch.randn(2, 16, 50)
    library = ResidualVQ(dim=16, num_quantizers=6, codebook_size=64, kmeans_init=False, rotation_trick=False).eval()
    books = Codebooks(6, 64, 16)
    books.embed.mul_(0.7 ** torch.arange(6).view(-1, 1, 1))
    for layer, embed in zip(library.layers, books.embed):
        layer._codebook.embed.copy_(embed[None])
    with torch.no_grad():
        latents, ids, _ = library(z.transpose(1, 2))
    codes = books.encode(z)
    assert torch.equal(codes, ids.transpose(1, 2)) and codes.unique().numel() > 32
    assert torch.allclose(books.decode(codes), latents.transpose(1, 2), atol=1e-6)
    assert torch.equal(books.encode(z, 4), codes[:, :4])


def test_codebooks_choose_the_same_ids_under_autocast():
    torch.manual_seed(4)
    books, z = Codebooks(4, 256, 16), torch.randn(1, 16, 200)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = books.encode(z)
    assert torch.equal(inside, books.encode(z))


def test_a_code_out_of_range_is_named_by_level_and_position(tiny):
    for bad in (1024, -1):
        codes = torch.zeros(1, 8, 6, dtype=torch.long)
        codes[0, 3, 5] = bad
        with pytest.raises(SlmError, match=f"code {bad} of level 3, frame 5"):
            tiny.decode(codes)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda m: m.encode(noise(640, channels=2)), "2 channels but this codec hears 1"),
        (lambda m: m.encode(noise(319)), "319 samples but this codec needs at least one frame of 320"),
        (lambda m: m.encode(torch.zeros(1, 1, 0)), "0 samples"),
        (lambda m: m.encode(torch.zeros(640)), "floats"),
        (lambda m: m.encode(torch.full((1, 1, 640), float("nan"))), "NaN"),
        (lambda m: m.encode(noise(640), 7.0), "7.0 kbit/s is not one of 1.5, 3.0, 6.0$"),
        (lambda m: m.encode(noise(640), 12.0), "12.0 kbit/s"),  # published, but this one has 8 levels
        (lambda m: m.decode(torch.zeros(1, 9, 2, dtype=torch.long)), "9 levels"),
        (lambda m: m.decode(torch.zeros(1, 8, 2)), "whole numbers"),
        (lambda m: m.decode(torch.zeros(1, 8, 0, dtype=torch.long)), "0 frames"),
        (lambda m: m.decode(torch.zeros(1, 8, 2, dtype=torch.long), samples=641), "641"),
        (lambda m: m.decode_chunks([]), "0 chunks"),
        (lambda m: m.quantizer.encode(torch.zeros(1, 8, 2), n_q=9), "n_q is 9 but these codebooks have levels 1 to 8"),
        (lambda m: m.quantizer.encode(torch.zeros(1, 8, 2), n_q=0), "n_q is 0"),
        (lambda m: m.quantizer.encode(torch.zeros(1, 9, 2)), r"\[B, 8, T\]"),
        (lambda m: Encodec.Config(norm="time_group_norm").build(), "causal"),
        (lambda m: Encodec.Config(norm="batch").build(), "norm is 'batch'"),
        (lambda m: Encodec.Config(n_q=0).build(), "n_q is 0"),
    ],
)
def test_a_wrong_input_is_one_sentence(tiny, wrong, says):
    with pytest.raises(SlmError, match=says) as raised:
        wrong(tiny)
    assert "\n" not in str(raised.value)


def test_a_chunked_codec_refuses_what_would_lose_its_scales(stereo):
    codes = torch.zeros(1, 2, 150, dtype=torch.long)
    scale = torch.ones(1, 1, 1)
    with pytest.raises(SlmError, match="encode_chunks"):
        stereo.ours.encode(noise(SECOND, 2))
    with pytest.raises(SlmError, match="decode_chunks"):
        stereo.ours.decode(codes)
    with pytest.raises(SlmError, match="chunk 1 has no scale"):
        stereo.ours.decode_chunks([Chunk(codes, scale), Chunk(codes, None)])
    with pytest.raises(SlmError, match="chunk 0 of 2 has 9 frames"):
        stereo.ours.decode_chunks([Chunk(codes[..., :9], scale), Chunk(codes, scale)])


def test_published_configs_are_recognised_on_disk(mono, stereo):
    assert mono.ours.config == Encodec.Config(n_filters=4, dim=16)
    ours = stereo_48khz()
    ours.n_filters, ours.dim = 4, 16
    assert stereo.ours.config == ours


def test_old_names_of_weight_norm_are_read(tmp_path):
    reference = transformers_model(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    new = "parametrizations.weight.original"
    old = {name.replace(f"{new}0", "weight_g").replace(f"{new}1", "weight_v"): tensor for name, tensor in tensors.items()}
    assert len(set(old) - set(tensors)) > 40
    save_file(old, tmp_path / "model.safetensors")
    assert torch.equal(load(tmp_path).encode(noise(3200)), reference.ours.encode(noise(3200)))


def test_the_report_tells_what_did_not_fit_and_strict_refuses_it(tmp_path):
    reference = transformers_model(tmp_path)
    whole = encodec_from_transformers(tmp_path).report
    assert whole.complete and len(whole.mapped) == len(reference.ours.state_dict()) - 1 + 32 and len(whole.unused) == 3 * 32

    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["quantizer.layers.5.codebook.embed"]
    tensors["encoder.layers.0.conv.bias"] = torch.zeros(5)
    tensors["encoder.layers.99.conv.bias"] = torch.zeros(5)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(SlmError, match="1 missing .*layers.5.*1 unexpected .*layers.99.*1 of another shape .*layers.0.conv.bias"):
        load(tmp_path)
    report = encodec_from_transformers(tmp_path, strict=False).report
    assert report.missing == ["quantizer.layers.5.codebook.embed"]
    assert report.unexpected == ["encoder.layers.99.conv.bias"]
    assert report.reshaped == {"encoder.layers.0.conv.bias": ([5], [4])}


def test_a_truncated_file_is_one_sentence(tmp_path, mono):
    refuses_every_cut(load, mono.path, tmp_path)


@pytest.mark.parametrize("write", [pickle.dump, torch.save])
def test_a_pickle_is_refused_and_never_run(tmp_path, write):
    refuses_a_pickle(load, tmp_path / "model.th", write, lambda harm: {"encoder.model.0.conv.conv.weight_g": harm})


def test_anything_else_on_disk_is_one_sentence(tmp_path):
    cases: dict[str, Callable[[Path], object]] = {
        "no tokenizer here, neither": lambda path: None,
        "config.json is missing": lambda path: path.mkdir(),
        "not readable as JSON": lambda path: folder(path, '{"model_type": '),
        "a JSON object is needed": lambda path: folder(path, "[]"),
        "'model_type': 'xcodec'": lambda path: folder(path, '{"model_type": "xcodec"}'),
        "it says neither": lambda path: folder(path, "{}"),
        "model.safetensors is missing": lambda path: folder(path, '{"model_type": "encodec"}'),
        "not a file of tensors": lambda path: path.write_text("hello"),
        "not those of an EnCodec": lambda path: torch.save({"weight": torch.zeros(3)}, path),
        "state dict of tensors": lambda path: torch.save([torch.zeros(3)], path),
    }
    for i, (says, make) in enumerate(cases.items()):
        make(tmp_path / f"{i}")
        with pytest.raises(SlmError, match=says) as raised:
            load(tmp_path / f"{i}")
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("key", "value"), [("compress", 4), ("pad_mode", "constant"), ("num_filters", "x"), ("codebook_dim", 7),
                                           ("target_bandwidths", []), ("chunk_length_s", "x")])  # fmt: skip
def test_a_config_that_no_published_encodec_has_is_refused(tmp_path, key, value):
    folder(tmp_path / "model", json.dumps({"model_type": "encodec", key: value}))
    save_file({"a": torch.zeros(1)}, tmp_path / "model" / "model.safetensors")
    with pytest.raises(SlmError, match="config.json"):
        load(tmp_path / "model")


def folder(path: Path, config: str) -> None:
    path.mkdir()
    (path / "config.json").write_text(config)


def test_a_given_config_overrides_what_a_th_file_cannot_say(tmp_path):
    package_model(tmp_path, stereo=False)
    config = Encodec.Config(rate=16_000, n_filters=4, dim=16)
    assert encodec_from_th(tmp_path / "encodec.th", config).model.rate == 16_000


def test_importing_the_package_is_free_and_load_stays_a_function():
    code = (
        "import sys, slm_tokenizers as t; assert 'torch' not in sys.modules; import slm_tokenizers.load;"
        "assert callable(t.load) and 'torch' not in sys.modules"
    )
    root = Path(__file__).parent.parent
    assert slm_tokenizers.Encodec is Encodec and slm_tokenizers.load is load
    assert all(getattr(slm_tokenizers, name).__name__ == name for name in slm_tokenizers.__all__) and len(slm_tokenizers.__all__) == 16
    with pytest.raises(AttributeError, match="Nothing"):
        slm_tokenizers.Nothing
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": f"{root}:{root / 'tokenizers'}"}, timeout=60)
