"""Units: clusters of what an encoder hears, collapsed, merged, and never applied to what they were not found on.

B rows, N samples, T frames, K units.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import slm_tokenizers
from slm.codes import decode_file, encode_file, read_codes
from slm.data.madeup import MadeUpSounds
from slm.errors import SlmError
from slm.train.loop import Train
from slm_tokenizers.semantic import unit_bpe
from slm_tokenizers.semantic.conformer import Conformer
from slm_tokenizers.semantic.encoder import SpeechEncoder
from slm_tokenizers.semantic.features import rectangle
from slm_tokenizers.semantic.labelled import Labelled
from slm_tokenizers.semantic.mfcc import Mfcc
from slm_tokenizers.semantic.runs import collapse, expand
from slm_tokenizers.semantic.unit_bpe import UnitBPE, learn
from slm_tokenizers.semantic.units import Units, cluster, nearest
from slm_tokenizers.stored import save

LENGTHS = (6400, 720, 5001)  # samples: 19, 2 and 15 frames
SOURCES = {
    "wav2vec2": SpeechEncoder.Config(widths=(8,) * 7, dim=16, depth=2, heads=2, hidden=16, positions=5, groups=2),
    "conformer": Conformer.Config(mels=10, dim=16, depth=2, heads=2, hidden=16, kernel=3, left=4, right=2),
    "mfcc": Mfcc.Config(),
}


def noise(samples: int) -> Tensor:
    return 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(samples))


def tones() -> Tensor:
    """[4,1,6400], of the kind that units are fitted on here."""
    return MadeUpSounds().build({}).at(7)["audio"]


def fitted(source, layer: int = 0, card: int = 12, seed: int = 0) -> Units:
    torch.manual_seed(seed)
    units = Units.Config(source, layer, card).build().eval()
    assert units.fit(MadeUpSounds().build({}), Train(steps=3))[0]["distance"] > 0
    return units


@pytest.fixture(scope="module", params=list(SOURCES))
def units(request) -> Units:
    return fitted(SOURCES[request.param], 0 if request.param == "mfcc" else 1)


def test_units_are_a_tokenizer(units):
    codes = units.encode(tones())
    frames = (6400 - units.source.field) // units.hop + 1
    assert codes.shape == (4, 1, frames) and codes.dtype == torch.long and frames == 19
    assert (units.n_q, units.card, units.rate, units.hop) == (1, 12, 16_000, 320)
    assert 0 <= codes.min() and codes.max() < 12 and codes.unique().numel() > 3
    assert not hasattr(units, "decode")


def test_a_unit_is_the_nearest_centroid(units):
    audio = tones()[:1]
    x = units.source.layer(audio, torch.tensor([6400]), units.config.layer).x[0]
    slow = [int(np.argmin([float(((f - c).double() ** 2).sum()) for c in units.centroids])) for f in x]
    assert units.encode(audio)[0, 0].tolist() == slow


def test_a_row_of_a_padded_batch_has_the_units_of_the_row_alone(units):
    rows = [row[:, :n] for row, n in zip(tones(), LENGTHS)]
    codes = units.encode(rows)
    for i, row in enumerate(rows):
        alone = units.encode(row[None])[0, 0]
        assert torch.equal(codes[i, 0, : len(alone)], alone) and (codes[i, 0, len(alone) :] == -1).all()


def test_units_come_back_from_disk_with_their_source(units, tmp_path):
    units.write(tmp_path)
    again = slm_tokenizers.load(tmp_path)
    assert isinstance(again, Units) and again.config == units.config
    assert torch.equal(again.encode(noise(8000)[None]), units.encode(noise(8000)[None]))


def test_units_of_a_recording_are_a_file_of_codes_and_no_audio_comes_of_them(units, tone_voice, tmp_path):
    units.write(tmp_path)
    done = encode_file(tone_voice, tmp_path / "codes.safetensors", str(tmp_path))
    samples = torch.from_numpy(soundfile.read(tone_voice, dtype="float32")[0])
    assert torch.equal(read_codes(done.path)[0], units.encode(samples[None, None])[0])
    with pytest.raises(SlmError, match="a Units, which makes codes but no audio of them"):
        decode_file(done.path, tmp_path / "out.wav")
    assert not (tmp_path / "out.wav").exists()


def test_fitting_is_the_same_each_time(units):
    again = Units.Config(units.config.source, units.config.layer, 12).build()
    again.source.load_state_dict(units.source.state_dict())
    again.fit(MadeUpSounds().build({}), Train(steps=3))
    assert torch.equal(again.centroids, units.centroids) and again.config.origin == units.config.origin
    again.fit(MadeUpSounds().build({}), Train(steps=3, seed=1))
    assert not torch.equal(again.centroids, units.centroids)


def test_clusters_refuse_any_other_source(tmp_path):
    units = fitted(SOURCES["wav2vec2"], 1)
    units.write(tmp_path)
    torch.manual_seed(9)
    other = SOURCES["wav2vec2"].build().eval()

    units.source = other
    with pytest.raises(SlmError, match="found on layer 1 of model .*, but they are asked about layer 1 of model"):
        units.encode(noise(8000)[None])

    tensors = load_file(tmp_path / "model.safetensors")
    weight = "source.encoder.layers.0.attention.k_proj.weight"
    save_file(tensors | {weight: tensors[weight] + 1e-4}, tmp_path / "model.safetensors")
    with pytest.raises(SlmError, match="found on layer 1"):
        slm_tokenizers.load(tmp_path).encode(noise(8000)[None])
    save_file(tensors, tmp_path / "model.safetensors")

    config = json.loads((tmp_path / "config.json").read_text())
    for changed in (
        {"layer": 2},
        {"origin": config["config"]["origin"] | {"rate": 25.0}},
        {"origin": config["config"]["origin"] | {"dim": 8}},
    ):
        edited = config | {"config": config["config"] | changed}
        (tmp_path / "config.json").write_text(json.dumps(edited))
        with pytest.raises(SlmError, match="but they are asked about layer"):
            slm_tokenizers.load(tmp_path).encode(noise(8000)[None])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda tmp: Units.Config(Mfcc.Config()).build().encode(noise(8000)[None]), "no clusters yet"),
        (lambda tmp: Units.Config(Mfcc.Config(), 1).build(), "layer is 1 but the source of these units has layers 0 to 0"),
        (lambda tmp: Units.Config(Mfcc.Config(), card=0).build(), "card is 0"),
        (lambda tmp: Units.Config().build(), "source is None"),
        (lambda tmp: Units.Config(str(tmp / "nowhere")).build(), "nowhere"),
        (lambda tmp: fitted(Mfcc.Config(), card=10_000), "frames cannot have 10000 clusters"),
        (lambda tmp: cluster(torch.full((9, 2), float("nan")), 3), "NaN"),
        (lambda tmp: fitted(Mfcc.Config()).encode(torch.zeros(1, 1, 399)), "399 samples"),
        (lambda tmp: Mfcc.Config().build().layer(noise(800)[None], torch.tensor([800]), 3), "MFCC have layer 0 only"),
        (lambda tmp: collapse(torch.zeros(2, 2)), r"one row \[T\]"),
        (lambda tmp: expand(torch.tensor([1]), torch.tensor([0])), "length 0"),
        (lambda tmp: expand(torch.tensor([1]), torch.tensor([1, 2])), "shapes"),
        (lambda tmp: UnitBPE(5, []).encode(torch.tensor([1, 5])), "id 5 at place 1 is outside 0 to 4"),
        (lambda tmp: UnitBPE(5, [(0, 1)]).decode(torch.tensor([6])), "id 6 at place 0 is outside 0 to 5"),
        (lambda tmp: UnitBPE(5, [(0, 5)]), "merge 0 joins 0 and 5"),
        (lambda tmp: UnitBPE(0, []), "units is 0"),
        (lambda tmp: learn([], 5, 4), "card is 4"),
        (lambda tmp: unit_bpe.load(tmp / "nothing.json"), "no merges"),
    ],
)
def test_a_mistake_is_one_sentence(tmp_path, wrong, says):
    with pytest.raises(SlmError, match=says) as raised:
        wrong(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_codec_is_no_source_of_units(tmp_path):
    from slm_tokenizers import codec

    codec.save(codec.Codec.Config(n_q=1, card=4, dim=4, enc_width=8, dec_width=8, dec_high_width=8).build(), tmp_path)
    with pytest.raises(SlmError, match="holds a Codec, whose layers cannot be heard"):
        Units.Config(str(tmp_path)).build()


def test_units_can_be_made_of_an_encoder_on_disk(tmp_path):
    encoder = SOURCES["wav2vec2"].build().eval()
    save(encoder, tmp_path / "encoder", exact=True)
    units = fitted(str(tmp_path / "encoder"), 2)
    units.write(tmp_path / "units")
    assert units.config.source == encoder.config  # the folder of the encoder is no longer needed
    again = slm_tokenizers.load(tmp_path / "units")
    assert all(torch.equal(p, q) for p, q in zip(again.source.parameters(), encoder.parameters()))


def test_units_can_be_made_of_an_encoder_of_transformers(tmp_path):
    from transformers import HubertConfig, HubertModel

    shape = dict(conv_dim=[8] * 7, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
    theirs = HubertModel(HubertConfig(**shape, num_conv_pos_embeddings=5, num_conv_pos_embedding_groups=2)).eval()
    theirs.save_pretrained(tmp_path)
    units, audio = fitted(str(tmp_path), 1), tones()
    with torch.no_grad():
        layer = theirs(audio[:, 0], output_hidden_states=True).hidden_states[1]
    assert torch.equal(units.encode(audio)[:, 0], nearest(layer, units.centroids))


def test_nearest_is_that_of_scikit_learn_even_beside_enormous_numbers():
    from sklearn.cluster import MiniBatchKMeans

    torch.manual_seed(0)
    x = torch.randn(500, 8)
    x[:, 3] += 3000.0
    centroids = cluster(x, 20)
    theirs = MiniBatchKMeans(20).fit(x[:40].double().numpy())
    theirs.cluster_centers_ = centroids.double().numpy()
    assert nearest(x, centroids).tolist() == theirs.predict(x.double().numpy()).tolist()
    assert nearest(x, centroids).unique().numel() == 20


def test_as_many_clusters_as_frames_are_the_frames():
    x = torch.tensor([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])
    assert sorted(cluster(x, 3).round().tolist()) == sorted(x.tolist())


def test_mfcc_are_those_of_kaldi_and_count_the_frames_of_a_50_hz_encoder():
    from torchaudio.compliance.kaldi import mfcc

    encoder = SOURCES["wav2vec2"].build()
    for samples in (400, 719, 720, 8000, 8079, 8080):
        frames = Mfcc.Config().build().layer(noise(samples)[None], torch.tensor([samples]))
        assert frames.x.shape == (1, int(encoder.features(*rectangle([noise(samples)])).count), 39)
        assert torch.equal(frames.x[0, :, :13], mfcc(noise(samples), use_energy=False)[::2])
    cepstra = mfcc(noise(8080), use_energy=False)
    assert torch.allclose(frames.x[0, :, 13:26], slope(cepstra)[::2], atol=1e-4)
    assert torch.allclose(frames.x[0, :, 26:], slope(slope(cepstra))[::2], atol=1e-4)


def slope(x: Tensor) -> Tensor:
    """x [L,13]: a difference over five cepstra, which the first and the last repeat (Young et al., The HTK Book, 5.9)."""
    x = torch.nn.functional.pad(x.T[None], (2, 2), mode="replicate")[0].T
    return sum(n * (x[2 + n : len(x) - 2 + n] - x[2 - n : len(x) - 2 - n]) for n in (1, 2)) / 10


def test_labelled_crops_have_a_unit_for_every_frame_of_the_encoder(tmp_path):
    config = Labelled(MadeUpSounds(), Units.Config(Mfcc.Config(), card=6), batches=3)
    batch = config.build({}).at(4)
    frames = SOURCES["wav2vec2"].build().features(*rectangle(batch["audio"]))
    assert batch["units"].shape == frames.x.shape[:2] and batch["units"].unique().numel() > 2
    assert torch.equal(config.build({}).at(4)["units"], batch["units"])
    units = Units.Config(Mfcc.Config(), card=6).build()
    units.fit(MadeUpSounds().build({}), Train(steps=3))
    units.write(tmp_path)
    assert torch.equal(Labelled(MadeUpSounds(), str(tmp_path)).build({}).at(4)["units"], batch["units"])


@pytest.mark.parametrize("row", [[], [3], [3, 3, 3], [1, 2, 1], [0, 0, 5, 5, 5, 0, 1, 1]])
def test_collapsed_units_can_be_expanded(row):
    units, runs = collapse(torch.tensor(row, dtype=torch.long))
    assert expand(units, runs).tolist() == row and (units[1:] != units[:-1]).all() and int(runs.sum()) == len(row)
    assert units.dtype == runs.dtype == torch.long


def speechlike(rows: int = 30, card: int = 20) -> list[Tensor]:
    """Rows in which some sequences come again and again."""
    draw = np.random.default_rng(0)
    words = [draw.integers(0, card, draw.integers(1, 6)) for _ in range(15)]
    return [torch.from_numpy(np.concatenate([words[w] for w in draw.integers(0, 15, 40)])) for _ in range(rows)]


@pytest.fixture(scope="module")
def merged() -> UnitBPE:
    return learn(speechlike(), 20, 60)


def slow(model: UnitBPE, row: list[int]) -> list[int]:
    """The merges one after the other, in the order in which they were learned."""
    for i, pair in enumerate(model.merges):
        out: list[int] = []
        while row:
            joined = tuple(row[:2]) == tuple(pair)
            out.append(model.units + i if joined else row[0])
            row = row[2 if joined else 1 :]
        row = out
    return row


def test_merges_are_exact_both_ways_and_shorten(merged):
    assert merged.card == 60
    for row in [*speechlike(3), torch.randint(20, (333,)), torch.arange(20), torch.tensor([], dtype=torch.long)]:
        ids = merged.encode(row)
        assert torch.equal(merged.decode(ids), row) and ids.tolist() == slow(merged, row.tolist())
    assert len(merged.encode(speechlike()[0])) < 0.6 * len(speechlike()[0])


def test_the_first_merge_is_the_most_frequent_pair(merged):
    pairs: dict[tuple, int] = {}
    for row in speechlike():
        for pair in zip(row[:-1].tolist(), row[1:].tolist()):
            pairs[pair] = pairs.get(pair, 0) + 1
    assert pairs[tuple(merged.merges[0])] == max(pairs.values())


def test_merges_come_back_from_disk_and_a_damaged_file_is_one_sentence(merged, tmp_path):
    merged.save(tmp_path / "merges.json")
    again = unit_bpe.load(tmp_path / "merges.json")
    assert torch.equal(again.encode(speechlike()[0]), merged.encode(speechlike()[0])) and again.card == 60
    whole = (tmp_path / "merges.json").read_text()
    for broken in ("", "[]", whole[: len(whole) // 2], '{"units": 5}'):
        (tmp_path / "merges.json").write_text(broken)
        with pytest.raises(SlmError, match="merges.json holds no merges"):
            unit_bpe.load(tmp_path / "merges.json")


def test_merges_over_thousands_of_units_keep_every_id_its_unit():
    rows = [torch.tensor([1999, 0, 1999, 0, 5, 1023]), torch.tensor([1999, 0, 1024])]
    model = learn(rows, 2000, 2001)
    assert model.merges == [(1999, 0)] and model.encode(rows[0]).tolist() == [2000, 2000, 5, 1023]
    assert model.encode(torch.arange(2000)).tolist() == list(range(2000))


def test_a_pair_that_came_once_is_no_merge():
    assert learn([torch.tensor([0, 1, 2, 3])], 4, 10).merges == []
    assert learn([torch.tensor([0, 1, 2, 0, 1])], 4, 10).merges == [(0, 1)]


def test_learning_refuses_a_unit_that_is_none():
    with pytest.raises(SlmError, match="id 20 at place 0"):
        learn([torch.tensor([20])], 20, 30)


def test_a_folder_without_its_weights_is_one_sentence(tmp_path: Path):
    fitted(Mfcc.Config()).write(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(SlmError, match="model.safetensors does not exist"):
        slm_tokenizers.load(tmp_path)
