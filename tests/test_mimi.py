"""Mimi is the published Mimi: the same ids and the same audio as transformers on the same weights, at once and chunk by chunk.

The model is written to disk by transformers and read back by `slm_tokenizers.load`. B batch, Q levels, T frames.
"""

import json
import math
import random
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from damaged import refuses_every_cut
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from slm.errors import SlmError
from slm_tokenizers import load
from slm_tokenizers.importers_mimi import mimi_from_transformers
from slm_tokenizers.mimi import Mimi
from slm_tokenizers.mimi_stream import DecodeStream, EncodeStream
from slm_tokenizers.windowed import Windowed

N_Q, CARD, HOP = 5, 64, 40
SMALL = dict(
    hidden_size=16, num_filters=4, upsampling_ratios=[5, 4], num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
    intermediate_size=24, sliding_window=12, codebook_size=CARD, codebook_dim=8, vector_quantization_hidden_dimension=8,
    num_quantizers=N_Q, upsample_groups=16,
)  # fmt: skip


@dataclass
class Reference:
    """The published implementation with random weights, and our module after it read them from `path`."""

    path: Path
    ours: Mimi
    theirs: nn.Module

    @torch.no_grad()
    def codes(self, audio: Tensor, n_q: int) -> Tensor:
        return self.theirs.encode(audio, num_quantizers=n_q).audio_codes

    @torch.no_grad()
    def audio(self, codes: Tensor) -> Tensor:
        return self.theirs.decode(codes).audio_values


def noise(samples: int, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(samples)
    return torch.randn(batch, 1, samples, generator=generator) * torch.linspace(0.05, 0.5, samples)


@torch.no_grad()
def enliven(theirs: nn.Module) -> None:
    """As initialised, attention is nearly off, the codebooks are zeros, and the audio grows a hundredfold."""
    for name, parameter in theirs.named_parameters():
        if name.endswith("layer_scale.scale"):
            parameter.normal_(0.0, 0.5)
        elif "layernorm.weight" in name:
            parameter.uniform_(0.5, 1.5)
        elif name.endswith("bias"):
            parameter.normal_(0.0, 0.03)
        elif "self_attn" in name or "mlp" in name:
            parameter.normal_(0.0, 2 / math.sqrt(parameter.shape[1]))
        elif "decoder_seanet" in name:
            parameter.mul_(0.5)
    latent = theirs.encoder(noise(4000)).latents
    for quantizer in (theirs.quantizer.semantic_residual_vector_quantizer, theirs.quantizer.acoustic_residual_vector_quantizer):
        z = latent if quantizer.input_proj is None else quantizer.input_proj(latent)
        for level, layer in enumerate(quantizer.layers):
            usage = torch.rand(CARD) * 10  # the entries are sums over what was assigned to them
            entries = torch.randn(CARD, z.shape[1]) * z.std((0, 2)) * 0.9**level + z.mean((0, 2)) * (level == 0)
            layer.codebook.cluster_usage.copy_(usage)
            layer.codebook.embed_sum.copy_(entries * usage[:, None])


def transformers_model(tmp: Path, **changes) -> Reference:
    from transformers import MimiConfig, MimiModel

    torch.manual_seed(0)
    theirs = MimiModel(MimiConfig(**SMALL | changes)).eval()
    enliven(theirs)
    theirs.save_pretrained(tmp)
    return Reference(tmp, load(tmp), theirs)


@pytest.fixture(scope="module")
def mimi(tmp_path_factory) -> Reference:
    return transformers_model(tmp_path_factory.mktemp("mimi"))


@pytest.fixture(scope="module")
def tiny() -> Mimi:
    torch.manual_seed(2)
    small = dict(n_q=3, card=16, code_dim=4, dim=8, n_filters=2, ratios=(4, 2), depth=1, heads=2, mlp=8, window=4)
    return Mimi.Config(**small).build().eval()


def assert_same(reference: Reference, audio: Tensor, n_q: int) -> Tensor:
    ours, theirs = reference.ours.encode(audio, n_q), reference.codes(audio, n_q)
    assert ours.dtype == torch.long and torch.equal(ours, theirs)
    expected = reference.audio(theirs)
    assert expected.std() > 0.05 and (reference.ours.decode(ours) - expected).abs().max() <= 1e-5
    assert reference.ours.decode(ours, audio.shape[-1]).shape == audio.shape
    return ours


@pytest.mark.parametrize("n_q", [1, 2, 3, 4, 5])
def test_ids_and_audio_are_those_of_the_reference_at_every_number_of_levels(mimi, n_q):
    codes = assert_same(mimi, noise(4007, batch=2), n_q)  # 202 steps of the Transformers, many windows
    assert codes.shape == (2, n_q, 101) and all(level.unique().numel() >= 12 for level in codes.unbind(1))  # the ids mean something


@pytest.mark.parametrize("samples", [1, 3, HOP // 2, HOP - 1, HOP, HOP + 1, HOP + HOP // 2 + 1, 1283, 12_345])
def test_ids_and_audio_are_those_of_the_reference_at_every_length(mimi, samples):
    assert_same(mimi, noise(samples), N_Q)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_semantic_quantizers": 2},
        {"codebook_dim": 16, "vector_quantization_hidden_dimension": 16},  # as wide as the latent: published without projections
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
        {"frame_rate": 300.0, "upsampling_ratios": [5, 4]},  # of 1200: four latent frames a code frame
        {"sliding_window": 1, "num_hidden_layers": 1},
    ],
)
def test_every_field_that_we_read_has_the_meaning_that_it_has_there(tmp_path, changes):
    reference = transformers_model(tmp_path, **changes)
    assert_same(reference, noise(2005), N_Q)
    assert_same(reference, noise(1999), 2)


@pytest.mark.parametrize("size", [1, 7, HOP - 1, HOP, HOP + 1, 333, None])
def test_a_stream_gives_the_ids_and_the_audio_of_the_whole_recording(mimi, size):
    dice = random.Random(0)
    for samples in (1, HOP, 611):
        audio = noise(samples, batch=2)
        coder, player = EncodeStream(mimi.ours, 4, batch=2), DecodeStream(mimi.ours, batch=2)
        codes, heard, at = [], [], 0
        while at < samples:
            n = size or dice.randint(1, 150)
            codes.append(coder.push(audio[..., at : at + n]))
            at = min(samples, at + n)
            assert sum(c.shape[-1] for c in codes) == at // HOP  # a frame comes as soon as it is whole
        codes.append(coder.flush())
        for chunk in codes:
            if chunk.shape[-1]:
                heard.append(player.push(chunk))
                assert heard[-1].shape[-1] == chunk.shape[-1] * HOP
        whole = mimi.ours.encode(audio, 4)
        assert torch.equal(torch.cat(codes, -1), whole)
        heard.append(player.flush())
        assert (torch.cat(heard, -1) - mimi.ours.decode(whole)).abs().max() <= 1e-5


def test_a_causal_row_in_a_padded_batch_is_the_row_alone(mimi):
    lengths = [12 * HOP, HOP, 7 * HOP + 11]
    batch = torch.zeros(3, 1, max(lengths))
    for i, n in enumerate(lengths):
        batch[i, :, :n] = noise(n)
    codes = mimi.ours.encode(batch)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    assert torch.equal(codes, mimi.theirs.encode(batch, padding_mask=mask[:, None]).audio_codes)
    assert mimi.theirs.get_audio_codes_mask(mask).sum(1).tolist() == [-(-n // HOP) for n in lengths]
    for i, n in enumerate(lengths):
        assert torch.equal(codes[i : i + 1, :, : n // HOP], mimi.ours.encode(noise(n))[..., : n // HOP])


def test_fewer_levels_are_a_prefix(mimi):
    audio = noise(2000)
    every = mimi.ours.encode(audio)
    assert every.shape[1] == N_Q and torch.equal(every[:, :2], mimi.ours.encode(audio, 2))


def test_the_acoustic_levels_code_the_latent_and_not_what_the_semantic_level_left_over(tiny):
    z = torch.randn(1, 8, 50)
    before = tiny.quantizer.encode(z)
    keep = tiny.quantizer.semantic.books.embed.clone()
    tiny.quantizer.semantic.books.embed.mul_(5.0)
    after = tiny.quantizer.encode(z)
    tiny.quantizer.semantic.books.embed.copy_(keep)
    assert not torch.equal(before[:, :1], after[:, :1]) and torch.equal(before[:, 1:], after[:, 1:])


def test_a_step_sees_its_window_and_nothing_else():
    torch.manual_seed(4)
    model = Windowed.Config(dim=8, depth=1, heads=2, mlp=16, window=5, scale=1.0).build().eval()
    x = torch.randn(1, 23, 8)
    with torch.no_grad():
        before = model(x)
        x[:, 9, 0] += 1
        moved = (model(x) - before).abs().amax((0, 2)) > 1e-6
    assert moved.nonzero().flatten().tolist() == [9, 10, 11, 12, 13]


def test_the_published_size_is_that_of_the_published_model():
    from transformers import MimiConfig, MimiModel

    with torch.device("meta"):
        ours, theirs = Mimi.Config().build(), MimiModel(MimiConfig())
    assert (ours.hop, ours.rate / ours.hop, ours.n_q, ours.card) == (1920, 12.5, 32, 2048)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    for model, name in ((ours, "embed"), (theirs, "embed_sum")):
        assert sum(buffer.numel() for key, buffer in model.named_buffers() if key.endswith(name)) == 32 * 2048 * 256


def test_the_report_tells_what_did_not_fit_and_strict_refuses_it(tmp_path):
    reference = transformers_model(tmp_path)
    whole = mimi_from_transformers(tmp_path).report
    assert whole.complete and len(whole.unused) == N_Q and len(whole.mapped) == len(reference.ours.state_dict()) - 2 + N_Q
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["quantizer.acoustic_residual_vector_quantizer.layers.1.codebook.cluster_usage"]
    tensors["encoder.layers.0.conv.bias"] = torch.zeros(5)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(SlmError, match="1 missing .*acoustic.layers.1.*1 unexpected .*layers.1.codebook.embed_sum.*1 of another shape"):
        load(tmp_path)
    report = mimi_from_transformers(tmp_path, strict=False).report
    assert report.missing == ["quantizer.acoustic.layers.1.codebook.embed"]
    assert report.unexpected == ["quantizer.acoustic_residual_vector_quantizer.layers.1.codebook.embed_sum"]
    assert report.reshaped == {"encoder.layers.0.conv.bias": ([5], [4])}


def test_a_truncated_file_is_one_sentence(tmp_path, mimi):
    refuses_every_cut(load, mimi.path, tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("compress", 4), ("pad_mode", "reflect"), ("num_filters", "x"), ("codebook_dim", 7), ("frame_rate", 1e9),
        ("num_key_value_heads", 1), ("num_attention_heads", 0), ("num_attention_heads", 3), ("rope_parameters", {"rope_type": "linear"}),
        ("upsample_groups", 1), ("sliding_window", 0), ("num_semantic_quantizers", 5),
    ],
)  # fmt: skip
def test_a_config_that_no_published_mimi_has_is_refused(tmp_path, key, value):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mimi"} | SMALL | {key: value}))
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(SlmError, match="config.json|heads|window|semantic|squeeze") as raised:
        load(tmp_path)
    assert "tensors" not in str(raised.value)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda m: m.encode(torch.zeros(1, 2, 640)), "2 channels but this codec hears 1"),
        (lambda m: m.encode(torch.zeros(1, 1, 0)), "0 samples"),
        (lambda m: m.encode(torch.zeros(640)), "floats"),
        (lambda m: m.encode(torch.full((1, 1, 640), float("nan"))), "NaN"),
        (lambda m: m.encode(torch.zeros(1, 1, 640), 4), "n_q is 4 but these codebooks have levels 1 to 3"),
        (lambda m: m.encode(torch.zeros(1, 1, 640), 0), "n_q is 0"),
        (lambda m: m.decode(torch.zeros(1, 4, 2, dtype=torch.long)), "4 levels"),
        (lambda m: m.decode(torch.zeros(1, 3, 2)), "whole numbers"),
        (lambda m: m.decode(torch.zeros(1, 3, 0, dtype=torch.long)), "0 frames"),
        (lambda m: m.decode(torch.tensor([[[0], [0], [16]]])), "code 16 of level 2, frame 0"),
        (lambda m: m.decode(torch.full((1, 3, 2), -1)), "code -1 of level 0"),
        (lambda m: m.decode(torch.zeros(1, 3, 2, dtype=torch.long), samples=33), "33"),
        (lambda m: EncodeStream(m, 4), "n_q is 4"),
        (lambda m: EncodeStream(m).push(torch.zeros(2, 1, 5)), "2 rows but this stream has 1"),
        (lambda m: EncodeStream(m).push(torch.zeros(1, 1, 0)), "0 samples"),
        (lambda m: twice(EncodeStream(m)), "flushed"),
        (lambda m: twice(DecodeStream(m)), "flushed"),
        (lambda m: DecodeStream(m).push(torch.full((1, 3, 2), 16)), "code 16"),
        (lambda m: DecodeStream(m).push(torch.zeros(2, 3, 2, dtype=torch.long)), "2 rows"),
        (lambda m: Mimi.Config(semantic=0).build(), "semantic is 0"),
        (lambda m: Mimi.Config(heads=7).build(), "heads, 7"),
        (lambda m: Mimi.Config(squeeze=1).build(), "squeeze is 1"),
    ],
)
def test_a_wrong_input_is_one_sentence(tiny, wrong, says):
    with pytest.raises(SlmError, match=says) as raised:
        wrong(tiny)
    assert "\n" not in str(raised.value)


def twice(stream: EncodeStream | DecodeStream) -> None:
    stream.flush()
    stream.flush()
