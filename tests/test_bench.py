"""`slm bench` measures what it says, and what became fast for it still gives the published numbers.

No test here asserts a time. B batch, C entries of a codebook, D width of a latent, N vectors, Q levels, T frames.
"""

import json
import sys

import pytest
import torch
from typer.testing import CliRunner

from slm.bench.codecs import phases, random_encodec, same_ids
from slm.bench.run import Contestant, Limits, Phase, Race, bench, least, run
from slm.cli import app
from slm.errors import SlmError
from slm_tokenizers import seanet
from slm_tokenizers.encodec import Encodec
from slm_tokenizers.quantize.residual import Codebooks
from slm_tokenizers.quantize.search import nearest, search, smallest, squares
from slm_tokenizers.soundstream import SoundStream

NOT_CAUSAL = Encodec.Config(n_filters=3, dim=6, causal=False, norm="time_group_norm", channels=2)
LIMITS = Limits(fp32=100.0, bf16=200.0, cache=50.0, memory=10.0)


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> dict:
    path = tmp_path_factory.mktemp("bench") / "new" / "bench.json"
    result = CliRunner().invoke(app, ["bench", "--small", "--repeats", "2", "--json", str(path)], prog_name="slm")
    assert result.exit_code == 0 and "EnCodec" in result.stdout and str(path) in result.stdout, result.output
    assert [file.name for file in path.parent.iterdir()] == ["bench.json"]
    return json.loads(path.read_text())


def test_the_command_measures_everything_it_promises(measured):
    assert measured["threads"] == 1 and measured["repeats"] == 2 and measured["clock"] == "processor"
    assert all(value > 0 for value in measured["limits"].values()) and set(measured["limits"]) == {"fp32", "bf16", "cache", "memory"}
    races = {}
    for result in measured["results"]:
        races.setdefault(result["race"], []).append(result)
    assert len(races) == 4
    for results in races.values():
        assert results[0]["contestant"] == "slm" and results[0]["ratio"] == 1.0
        assert {"encodec"} < {r["contestant"] for r in results}
        for r in results:
            assert 0 < r["wall"][0] <= r["wall"][1] <= r["wall"][2] and len(r["processor"]) == 3 and 0 < r["of_limit"]
            assert r["ratio"] == pytest.approx(r["processor"][1] / results[0]["processor"][1])
            assert r["real_time"] is None if r["seconds"] is None else r["real_time"] == pytest.approx(0.2 / r["processor"][1])


def test_all_implementations_agree(measured):
    others = [r for r in measured["results"] if r["contestant"] in ("encodec", "transformers", "vector_quantize_pytorch")]
    assert len(others) == 8
    for result in others:
        assert result["agreement"] == "ids identical" or (result["agreement"].startswith("within") and "decode" in result["race"]), result


def test_who_disagrees_is_told():
    assert same_ids(torch.tensor([[1, 2]]), torch.tensor([[1, 3]])) == "50.00% of the ids"
    race = Race("r", None, [Phase(1.0, 1.0)], [Contestant("slm", lambda: 1), Contestant("b", lambda: 2)], lambda a, b: f"{a} is not {b}")
    assert run(race, LIMITS, 1, 1)[1].agreement == "1 is not 2"


def test_contestants_take_turns():
    order = []
    racers = [Contestant(name, lambda name=name: order.append(name)) for name in "ab"]
    run(Race("r", None, [], [*racers, Contestant("c", None, "not installed")], lambda a, b: ""), LIMITS, 2, 1, turn=0.0)
    assert order == ["a", "b"] * 4  # to compare, to see how long it takes, and twice on the clock


def test_a_package_that_is_missing_is_a_word_in_the_table(monkeypatch):
    monkeypatch.setitem(sys.modules, "vector_quantize_pytorch", None)
    _, results = bench(["rvq"], repeats=1, threads=1, small=True)
    absent = [r for r in results if r.contestant == "vector_quantize_pytorch"]
    assert [r.why for r in absent] == ["not installed"] * 2 and not any(r.wall for r in absent)


def test_something_unknown_is_one_sentence():
    with pytest.raises(SlmError, match="'mp3' is not something to measure; there is encodec, rvq"):
        bench(["mp3"], repeats=1, threads=1)


def test_the_limit_adds_phases_each_bound_by_what_is_slower():
    assert least([Phase(2e11, 1e9), Phase(1e9, 5e11)], LIMITS, "fp32") == pytest.approx(2 + 10)
    assert least([Phase(2e11, 1e9), Phase(1e9, 5e11)], LIMITS, "bf16") == pytest.approx(1 + 5)


def test_the_work_is_that_of_torchs_own_counter():
    """Which does not count an LSTM: one per layer and step is added by hand."""
    from torch.utils.flop_counter import FlopCounterMode

    model = Encodec.Config(n_filters=4, dim=8, n_q=2).build()
    with FlopCounterMode(display=False) as counter, torch.enable_grad():  # with gradients, every convolution is the plain one
        model.encoder(torch.randn(1, 1, 3200))
    lstm = 2 * 2 * 2 * 4 * 64 * 64 * 10  # two operations, two layers, two matrices of four gates, width 64, ten frames
    assert sum(phase.flops for phase in phases(model.encoder.layers, 3200)) == counter.get_total_flops() + lstm


@pytest.mark.parametrize("frames", [1, 2, 9])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("config", [NOT_CAUSAL, Encodec.Config(n_filters=3, dim=6, shortcut=False), SoundStream.Config(n_filters=3, dim=6)])
def test_without_gradients_the_network_gives_the_same_values(config, batch, frames):
    torch.manual_seed(0)
    shape = config.shape()
    encoder, decoder = seanet.Encoder(shape).double(), seanet.Decoder(shape).double()
    audio, z = torch.randn(batch, shape.channels, frames * 320 - 17).double(), torch.randn(batch, 6, frames).double()
    plain, sound = encoder(audio).detach(), decoder(z).detach()
    heard, made = audio.clone(), z.clone()
    with torch.no_grad():
        assert torch.allclose(encoder(audio), plain, atol=1e-12, rtol=0) and torch.allclose(decoder(z), sound, atol=1e-12, rtol=0)
    assert torch.equal(audio, heard) and torch.equal(z, made)  # nothing is written into what was given


@pytest.mark.parametrize(("width", "out", "stride", "dilation"), [(1, 3, 1, 1), (4, 1, 1, 2), (1, 1, 2, 1), (5, 7, 3, 1)])
def test_a_quick_convolution_is_that_of_torch(width, out, stride, dilation):
    torch.manual_seed(1)
    x, weight, bias = torch.randn(2, width, 31).double(), torch.randn(out, width, 4).double(), torch.randn(out).double()
    plain = torch.nn.functional.conv1d(x, weight, bias, stride, dilation=dilation)
    for order in (x, x.transpose(1, 2).contiguous().transpose(1, 2)):
        assert torch.allclose(seanet.convolve(order, weight, bias, stride, dilation), plain, atol=1e-12)
    across = torch.randn(width, out, 2 * stride).double()
    plain = torch.nn.functional.conv_transpose1d(x, across, bias, stride)
    assert torch.allclose(seanet.spread(x, seanet.side_by_side(across, stride), bias, stride), plain, atol=1e-12)


def test_new_weights_are_heard_however_they_come():
    torch.manual_seed(5)
    decoder, z = seanet.Decoder(Encodec.Config(n_filters=2, dim=4).shape()), torch.randn(1, 4, 9)
    one, two = (seanet.Decoder(Encodec.Config(n_filters=2, dim=4).shape()).state_dict() for _ in range(2))

    @torch.no_grad()
    def write():
        for parameter in decoder.parameters():
            parameter.mul_(1.5)

    for change in (write, lambda: decoder.load_state_dict(one), lambda: decoder.load_state_dict(two, assign=True), decoder.double):
        with torch.no_grad():
            before = decoder(z)
        change()
        z = z.to(next(decoder.parameters()).dtype)
        with torch.no_grad():
            after = decoder(z)
        assert torch.allclose(after, decoder(z), atol=1e-5) and (change == decoder.double or (after - before).abs().max() > 0)
    with torch.inference_mode():
        inside = seanet.Decoder(Encodec.Config(n_filters=2, dim=4).shape())
        before = inside(z.float())
        for parameter in inside.parameters():
            parameter.mul_(1.5)
        assert (inside(z.float()) - before).abs().max() > 1e-4


def test_the_smallest_is_the_first_of_equals_and_a_nan_is_found_as_by_torch():
    torch.manual_seed(2)
    scores = torch.randint(0, 40, (500, 64)).float()
    scores[7, 30] = float("nan")
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        out = torch.empty(500, dtype=torch.long)
        smallest(scores.to(dtype), out)
        first = torch.tensor([30 if i == 7 else int((row == row.min()).nonzero()[0]) for i, row in enumerate(scores)])
        assert torch.equal(out, first)


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_the_search_has_the_ids_of_the_formula_on_many_vectors(scale):
    """At 300 the formula rounds away most differences, so that ties decide; equal entries are among them."""
    torch.manual_seed(3)
    book, x = torch.randn(1, 256, 16), torch.randn(40_000, 16) * scale
    book[:, 77] = book[:, 5]
    found = torch.empty(1, len(x), dtype=torch.long)
    search(x, book, squares(book), found)
    assert torch.equal(found[0], nearest(x, book[0])) and found.unique().numel() > 200 and not (found == 77).any()


def test_search_and_formula_agree_when_numpy_is_not_used():
    books, z = Codebooks(2, 32, 8), torch.randn(1, 8, 50)
    ids = books.encode(z)
    assert books.to(torch.bfloat16).encode(z).shape == ids.shape


def test_a_fast_copy_is_near_and_leaves_the_model_as_it_was():
    torch.manual_seed(4)
    with torch.no_grad():
        model = random_encodec(4)
    audio = torch.randn(1, 1, 6400) * 0.1
    codes = model.encode(audio, 6.0)
    fast = model.fast()
    assert torch.equal(model.encode(audio, 6.0), codes) and model.precision == torch.float32
    near, sound = fast.encode(audio, 6.0), fast.decode(codes)
    assert sound.dtype == torch.float32 and near.dtype == torch.long and (near[:, 0] == codes[:, 0]).float().mean() > 0.7
    exact = model.decode(codes)
    error = (sound - exact).pow(2).mean() / exact.pow(2).mean()
    assert 0 < error < 1e-3  # 30 dB, and bfloat16 it was
    for make in (fast.stream_encoder, fast.stream_decoder):
        with pytest.raises(SlmError, match="cannot be streamed"):
            make()
