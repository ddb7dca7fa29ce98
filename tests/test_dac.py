"""DAC is the published DAC: the same ids and the same audio as transformers, and as the tree of layers of the original package.

Every model here is written to disk in its reference's own layout and read back by `slm_tokenizers.load`.
B batch, Q levels, T frames.
"""

import json
import math
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import pytest
import torch
from damaged import refuses_a_pickle, refuses_every_cut
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils import weight_norm

from slm.errors import SlmError
from slm_tokenizers import load
from slm_tokenizers.dac import DAC, khz16, khz24
from slm_tokenizers.importers_dac import dac_from_pth, dac_from_transformers

N_Q, CARD, RATIOS = 4, 64, (5, 4, 2)
HOP, SHORT = 40, 8  # with an odd ratio the published decoder ends 8 samples early
SIZES = dict(
    encoder_dim=8, encoder_rates=list(RATIOS[::-1]), decoder_dim=32, decoder_rates=list(RATIOS), n_codebooks=N_Q, codebook_size=CARD
)

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")


@dataclass
class Reference:
    """A published implementation with random weights, and our module after it read them from `path`."""

    path: Path
    ours: DAC
    codes: Callable[[Tensor, int], Tensor]
    audio: Callable[[Tensor], Tensor]


def noise(samples: int, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(samples)
    return torch.randn(batch, 1, samples, generator=generator) * torch.linspace(0.05, 0.5, samples)


def whole(audio: Tensor) -> Tensor:
    """What both references do first, here by the feature extractor of transformers."""
    from transformers import DacFeatureExtractor

    rows = DacFeatureExtractor(hop_length=HOP, sampling_rate=16_000)(list(audio[:, 0].numpy()), sampling_rate=16_000)
    return torch.stack([torch.as_tensor(row) for row in rows["input_values"]])


@torch.no_grad()
def enliven(theirs: nn.Module) -> None:
    """As initialised, the biases and frequencies do nothing and every frame has the same ids."""
    for name, parameter in theirs.named_parameters():
        if name.endswith("alpha"):
            parameter.uniform_(0.5, 2.0)
        elif name.endswith("bias"):
            parameter.normal_(0.0, 0.02)
        elif parameter.dim() == 3 and not name.endswith("weight_v"):
            parameter.normal_(0.0, 1.0 / math.sqrt(parameter[0].numel())) if name.endswith("weight") else parameter.uniform_(0.5, 1.0)


def transformers_model(tmp: Path) -> Reference:
    from transformers import DacConfig, DacModel

    torch.manual_seed(0)
    config = DacConfig(encoder_hidden_size=8, downsampling_ratios=RATIOS[::-1], decoder_hidden_size=32, n_codebooks=N_Q, codebook_size=CARD)
    theirs = DacModel(config).eval()
    enliven(theirs)
    theirs.save_pretrained(tmp)
    return Reference(
        tmp,
        load(tmp),
        torch.no_grad()(lambda audio, n_q: theirs.encode(whole(audio), n_q).audio_codes),
        torch.no_grad()(lambda codes: theirs.decode(audio_codes=codes).audio_values[:, None]),
    )


class Snake(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.sin(self.alpha * x) ** 2 / (self.alpha + 1e-9)


class Block(nn.Module):
    def __init__(self, *layers: nn.Module, skip: bool = False):
        super().__init__()
        self.block, self.skip = nn.Sequential(*layers), skip

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) + (x if self.skip else 0)


def conv(*args: int, kind: type = nn.Conv1d, **kwargs: int) -> nn.Module:
    return weight_norm(kind(*args, **kwargs))


def unit(w: int, d: int) -> Block:
    return Block(Snake(w), conv(w, w, 7, dilation=d, padding=3 * d), Snake(w), conv(w, w, 1), skip=True)


class Level(nn.Module):
    def __init__(self, dim: int):
        super().__init__()
        self.in_proj, self.out_proj, self.codebook = conv(dim, 8, 1), conv(8, dim, 1), nn.Embedding(CARD, 8)

    def forward(self, z: Tensor) -> Tensor:
        low = nn.functional.normalize(self.in_proj(z).transpose(1, 2), dim=-1)
        return torch.cdist(low, nn.functional.normalize(self.codebook.weight)[None]).argmin(-1)

    def back(self, codes: Tensor) -> Tensor:
        return self.out_proj(self.codebook(codes).transpose(1, 2))


class Package(nn.Module):
    """The tree of layers of descript-audio-codec 1.0.0, which gives a .pth its names."""

    def __init__(self, dim: int):
        super().__init__()
        w = SIZES["encoder_dim"]
        layers = [conv(1, w, 7, padding=3)]
        for r in RATIOS[::-1]:
            down = conv(w, 2 * w, 2 * r, stride=r, padding=math.ceil(r / 2))
            layers += [Block(unit(w, 1), unit(w, 3), unit(w, 9), Snake(w), down)]
            w *= 2
        self.encoder = Block(*layers, Snake(w), conv(w, dim, 3, padding=1))
        self.quantizer = nn.Module()
        self.quantizer.quantizers = nn.ModuleList(Level(dim) for _ in range(N_Q))
        w = SIZES["decoder_dim"]
        layers = [conv(dim, w, 7, padding=3)]
        for r in RATIOS:
            up = conv(w, w // 2, 2 * r, kind=nn.ConvTranspose1d, stride=r, padding=math.ceil(r / 2))
            w //= 2
            layers += [Block(Snake(2 * w), up, unit(w, 1), unit(w, 3), unit(w, 9))]
        self.decoder = nn.Module()
        self.decoder.model = nn.Sequential(*layers, Snake(w), conv(w, 1, 7, padding=3), nn.Tanh())

    @torch.no_grad()
    def encode(self, audio: Tensor, n_q: int) -> Tensor:
        residual, codes = self.encoder(nn.functional.pad(audio, (0, -audio.shape[-1] % HOP))), []
        for level in self.quantizer.quantizers[:n_q]:
            codes.append(level(residual))
            residual = residual - level.back(codes[-1])
        return torch.stack(codes, 1)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        return self.decoder.model(sum(level.back(ids) for level, ids in zip(self.quantizer.quantizers, codes.unbind(1))))


def package_model(tmp: Path, dim: int = 64) -> Reference:
    torch.manual_seed(1)
    theirs = Package(dim).eval()
    enliven(theirs)
    arguments = SIZES | {"latent_dim": dim, "codebook_dim": 8, "quantizer_dropout": 0.5, "sample_rate": 16_000}
    torch.save({"state_dict": theirs.state_dict(), "metadata": {"kwargs": arguments}}, tmp / "weights.pth")
    return Reference(tmp / "weights.pth", load(tmp / "weights.pth"), theirs.encode, theirs.decode)


@pytest.fixture(scope="module", params=["transformers", "package"])
def dac(request, tmp_path_factory) -> Reference:
    tmp = tmp_path_factory.mktemp("dac")
    return transformers_model(tmp) if request.param == "transformers" else package_model(tmp)


@pytest.fixture(scope="module")
def tiny() -> DAC:
    torch.manual_seed(2)
    return DAC.Config(n_q=3, card=16, encoder_filters=4, decoder_filters=8, ratios=(4, 2)).build().eval()


def assert_same(reference: Reference, audio: Tensor, n_q: int) -> Tensor:
    samples = audio.shape[-1]
    ours, theirs = reference.ours.encode(audio, n_q), reference.codes(audio, n_q)
    assert ours.dtype == torch.long and torch.equal(ours, theirs)
    expected, heard = reference.audio(theirs), reference.ours.decode(ours, samples)
    assert heard.shape == (len(audio), 1, samples)
    there = min(samples, expected.shape[-1])
    assert expected.std() > 0.01 and (heard[..., :there] - expected[..., :there]).abs().max() <= 1e-4
    assert not heard[..., there:].any()
    return ours


@pytest.mark.parametrize("n_q", [1, 2, 3, 4])
def test_ids_and_audio_are_those_of_the_reference_at_every_number_of_levels(dac, n_q):
    codes = assert_same(dac, noise(4007, batch=2), n_q)
    assert codes.shape == (2, n_q, 101) and all(level.unique().numel() >= 12 for level in codes.unbind(1))  # the ids mean something


@pytest.mark.parametrize("samples", [1, HOP - 1, HOP, HOP + 1, 2 * HOP - 1, 1283, 12_345])
def test_ids_and_audio_are_those_of_the_reference_at_every_length(dac, samples):
    assert_same(dac, noise(samples), N_Q)


def test_a_padded_batch_is_that_of_the_reference_and_the_row_alone_far_from_its_end(dac):
    lengths = [3001, 2003, 2999]
    batch = torch.zeros(3, 1, max(lengths))
    for i, n in enumerate(lengths):
        batch[i, :, :n] = noise(n)
    codes = assert_same(dac, batch, N_Q)
    for i, n in enumerate(lengths):
        far = n // HOP - 20  # frames: no layer hears that far
        assert torch.equal(codes[i : i + 1, :, :far], dac.ours.encode(noise(n))[..., :far])


def test_a_latent_narrower_than_the_encoder_is_read_as_the_16_kbps_model_has_it(tmp_path):
    reference = package_model(tmp_path, dim=20)
    assert reference.ours.config.dim == 20
    assert_same(reference, noise(1000), N_Q)


def test_as_many_samples_return_as_came_in_and_the_decoders_missing_ones_are_silent(dac):
    assert (dac.ours.hop, dac.ours.n_q, dac.ours.card, dac.ours.rate) == (HOP, N_Q, CARD, 16_000)
    codes = dac.ours.encode(noise(3 * HOP))
    audio = dac.ours.decode(codes)
    assert audio.shape == (1, 1, 3 * HOP) and dac.audio(codes).shape[-1] == 3 * HOP - SHORT
    assert not audio[..., -SHORT:].any() and audio[..., :-SHORT].all()


def test_fewer_levels_are_a_prefix(dac):
    audio = noise(2000)
    every = dac.ours.encode(audio)
    assert torch.equal(every[:, :2], dac.ours.encode(audio, 2)) and torch.equal(every, dac.ours.encode(audio, N_Q))


def test_autocast_does_not_change_how_a_latent_is_coded(tiny):
    torch.manual_seed(3)
    z = torch.randn(1, 16, 200)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = tiny.quantizer.encode(z)
    assert torch.equal(inside, tiny.quantizer.encode(z)) and inside.unique().numel() == 16


def test_the_published_models_have_their_published_size_and_rate():
    with torch.device("meta"):
        sizes = [sum(p.numel() for p in config.build().parameters()) / 1e6 for config in (DAC.Config(), khz24(), khz16())]
    assert [round(size, 1) for size in sizes] == [76.6, 74.7, 74.1]
    assert [config.rate / math.prod(config.ratios) for config in (khz24(), khz16())] == [75, 50]


def test_the_report_tells_what_did_not_fit_and_strict_refuses_it(tmp_path):
    reference = transformers_model(tmp_path)
    whole = dac_from_transformers(tmp_path).report
    assert whole.complete and set(whole.mapped) == set(reference.ours.state_dict()) and not whole.unused
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["quantizer.quantizers.2.codebook.weight"]
    tensors["encoder.conv1.bias"] = torch.zeros(5)
    tensors["encoder.conv9.bias"] = torch.zeros(5)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(SlmError, match="1 missing .*quantizers.2.*1 unexpected .*conv9.*1 of another shape .*encoder.conv1.bias"):
        load(tmp_path)
    report = dac_from_transformers(tmp_path, strict=False).report
    assert report.missing == ["quantizer.quantizers.2.codebook.weight"]
    assert report.unexpected == ["encoder.conv9.bias"]
    assert report.reshaped == {"encoder.conv1.bias": ([5], [8])}


def test_half_of_a_weight_norm_is_reported_and_not_guessed(tmp_path):
    path = package_model(tmp_path).path
    held = torch.load(path, weights_only=True)
    del held["state_dict"]["encoder.block.1.block.4.weight_g"]
    torch.save(held, path)
    with pytest.raises(SlmError, match="1 missing .*encoder.block.0.conv1.weight.*1 unexpected .*encoder.block.1.block.4.weight_v"):
        dac_from_pth(path)


def test_a_truncated_file_is_one_sentence(tmp_path, dac):
    refuses_every_cut(load, dac.path, tmp_path)


@pytest.mark.parametrize("write", [pickle.dump, torch.save])
def test_a_pickle_is_refused_and_never_run(tmp_path, write):
    refuses_a_pickle(load, tmp_path / "weights.pth", write, lambda harm: {"state_dict": harm, "metadata": {}})


@pytest.mark.parametrize(
    ("held", "says"),
    [
        ({"state_dict": {}, "metadata": {}}, "arguments"),
        ({"state_dict": {}, "metadata": None}, "arguments"),
        ({"state_dict": [1], "metadata": {"kwargs": SIZES}}, "state dict of tensors"),
        ({"state_dict": {}, "metadata": {"kwargs": SIZES}}, "missing"),
        ({"state_dict": {}, "metadata": {"kwargs": SIZES | {"encoder_rates": "x"}}}, "cannot have"),
        ({"state_dict": {}, "metadata": {"kwargs": SIZES | {"encoder_rates": [5, 4, 2]}}}, "upsampling_ratios"),
        ({"state_dict": {}, "metadata": {"kwargs": SIZES | {"n_codebooks": 0}}}, "n_q is 0"),
    ],
)
def test_another_pth_is_one_sentence(tmp_path, held, says):
    torch.save(held, tmp_path / "weights.pth")
    with pytest.raises(SlmError, match=says):
        load(tmp_path / "weights.pth")


@pytest.mark.parametrize(("key", "value"), [("downsampling_ratios", []), ("downsampling_ratios", [1, 4]), ("upsampling_ratios", [3, 3]),
                                           ("codebook_dim", [8, 8]), ("decoder_hidden_size", 12), ("sampling_rate", "x")])  # fmt: skip
def test_a_config_that_no_dac_has_is_refused(tmp_path, key, value):
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "dac", "encoder_hidden_size": 2, "decoder_hidden_size": 16, key: value})
    )
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(SlmError, match="ratios|decoder_filters|config.json"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda m: m.encode(torch.zeros(1, 2, 640)), "2 channels but this codec hears 1"),
        (lambda m: m.encode(torch.zeros(1, 1, 0)), "0 samples"),
        (lambda m: m.encode(torch.zeros(640)), "floats"),
        (lambda m: m.encode(torch.zeros(1, 1, 640, dtype=torch.int16)), "floats"),
        (lambda m: m.encode(torch.full((1, 1, 640), float("nan"))), "NaN"),
        (lambda m: m.encode(torch.zeros(1, 1, 640), 4), "n_q is 4 but these codebooks have levels 1 to 3"),
        (lambda m: m.encode(torch.zeros(1, 1, 640), 0), "n_q is 0"),
        (lambda m: m.decode(torch.zeros(1, 4, 2, dtype=torch.long)), "4 levels"),
        (lambda m: m.decode(torch.zeros(1, 3, 2)), "whole numbers"),
        (lambda m: m.decode(torch.zeros(1, 3, 0, dtype=torch.long)), "0 frames"),
        (lambda m: m.decode(torch.full((1, 3, 2), 16)), "code 16 of level 0, frame 0"),
        (lambda m: m.decode(torch.full((1, 3, 2), -1)), "code -1"),
        (lambda m: m.decode(torch.zeros(1, 3, 2, dtype=torch.long), samples=17), "17"),
        (lambda m: DAC.Config(ratios=(4, 1)).build(), "ratios"),
        (lambda m: DAC.Config(decoder_filters=12).build(), "decoder_filters"),
        (lambda m: DAC.Config(card=0).build(), "card is 0"),
    ],
)  # fmt: skip
def test_a_wrong_input_is_one_sentence(tiny, wrong, says):
    with pytest.raises(SlmError, match=says) as raised:
        wrong(tiny)
    assert "\n" not in str(raised.value)
