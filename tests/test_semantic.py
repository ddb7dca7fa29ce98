"""Self-supervised encoders are the published ones, and learn as published: the numbers of transformers and torchaudio.

Every encoder here is written to disk by its reference and read back by `slm_tokenizers.load`. B rows, N samples, T frames.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from damaged import refuses_every_cut
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import slm_tokenizers
from slm.codes import encode_file
from slm.errors import SlmError
from slm_tokenizers.semantic.conformer import Conformer
from slm_tokenizers.semantic.contrastive import Contrastive
from slm_tokenizers.semantic.encoder import SpeechEncoder, large
from slm_tokenizers.semantic.features import Convolutions, rectangle
from slm_tokenizers.semantic.gumbel import GumbelQuantizer
from slm_tokenizers.semantic.importers import contrastive_from_transformers, encoder_from_transformers
from slm_tokenizers.semantic.joint import Joint
from slm_tokenizers.semantic.masked_units import MaskedUnits
from slm_tokenizers.semantic.masking import Masking, negatives
from slm_tokenizers.stored import save

CLOSE = 1e-5
BASE = dict(num_conv_pos_embeddings=8)
LARGE = dict(feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True, num_conv_pos_embeddings=9)
LENGTHS = (4801, 400, 3333, 721)  # samples: 14 (of a prime), 1, 10 and 2 (a sample over)


@dataclass
class Reference:
    """A published implementation with random weights, and our module after it read them from `path`."""

    path: Path
    theirs: nn.Module
    ours: nn.Module


def noise(samples: int) -> Tensor:
    return 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(samples))


@torch.no_grad()
def enliven(model: nn.Module) -> nn.Module:
    """As initialised, norms change nothing and biases are zero, so that leaving one out would go unnoticed."""
    for name, parameter in model.named_parameters():
        if name.endswith("norm.weight"):
            parameter.uniform_(0.5, 1.5)
        elif name.endswith("bias"):
            parameter.normal_(0.0, 0.1)
    return model


def tiny(kind: str, **more) -> nn.Module:
    import transformers

    config, model = {
        "wav2vec2": (transformers.Wav2Vec2Config, transformers.Wav2Vec2Model),
        "hubert": (transformers.HubertConfig, transformers.HubertModel),
        "pretraining": (transformers.Wav2Vec2Config, transformers.Wav2Vec2ForPreTraining),
        "ctc": (transformers.HubertConfig, transformers.HubertForCTC),
        "bert": (transformers.Wav2Vec2BertConfig, transformers.Wav2Vec2BertModel),
    }[kind]
    shape = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48)
    if kind != "bert":
        shape |= dict(conv_dim=[16] * 7, num_conv_pos_embedding_groups=4)
    torch.manual_seed(0)
    return enliven(model(config(**(shape | more)))).eval()


def reference(tmp: Path, kind: str, **more) -> Reference:
    theirs = tiny(kind, **more)
    theirs.save_pretrained(tmp)
    (tmp / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False}))
    return Reference(tmp, theirs, slm_tokenizers.load(tmp))


@pytest.fixture(scope="module", params=["wav2vec2-base", "wav2vec2-large", "hubert-base", "hubert-large"])
def speech(request, tmp_path_factory) -> Reference:
    kind, size = request.param.split("-")
    return reference(tmp_path_factory.mktemp(request.param), kind, **(LARGE if size == "large" else BASE))


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Reference:
    more = dict(conv_depthwise_kernel_size=5, left_max_position_embeddings=6, right_max_position_embeddings=3)
    return reference(tmp_path_factory.mktemp("bert"), "bert", **more)


def padded(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    """What transformers is given: audio [B,N] and its attention mask."""
    audio, lengths = rectangle(rows)
    return audio[:, 0], (torch.arange(audio.shape[-1]) < lengths[:, None]).long()


@pytest.mark.parametrize("samples", LENGTHS)
@torch.no_grad()
def test_every_layer_is_that_of_the_reference_at_every_length(speech, samples):
    audio = torch.stack([noise(samples), noise(samples + 1)[:, 1:]])
    theirs, ours = speech.theirs(audio[:, 0], output_hidden_states=True), speech.ours(audio)
    assert len(theirs.hidden_states) == len(ours.layers) == 4
    for expected, layer in zip((*theirs.hidden_states, theirs.last_hidden_state), (*ours.layers, ours.out)):
        assert expected.std() > 0.1 and (layer - expected).abs().max() <= CLOSE
    if hasattr(theirs, "extract_features"):
        assert (ours.features - theirs.extract_features).abs().max() <= CLOSE


@torch.no_grad()
def test_a_row_of_a_padded_batch_is_the_row_alone(speech):
    rows = [noise(n) for n in LENGTHS]
    ours = speech.ours([F.pad(row, (0, 0)) for row in rows])
    assert ours.count.tolist() == [14, 1, 10, 2]
    for i, row in enumerate(rows):
        alone = speech.theirs(row).last_hidden_state[0]
        assert len(alone) == ours.count[i] and (ours.out[i, : len(alone)] - alone).abs().max() <= CLOSE
    louder = [rows[2], *(10 * row for row in rows)]
    assert (speech.ours(louder).out[0, :10] - ours.out[2, :10]).abs().max() <= CLOSE


@torch.no_grad()
def test_a_padded_batch_is_that_of_the_reference_where_it_keeps_rows_apart(speech):
    rows = [noise(n) for n in LENGTHS]
    audio, seen = padded(rows)
    theirs, ours = speech.theirs(audio, attention_mask=seen).last_hidden_state, speech.ours(rows)
    apart = max(float((ours.out[i, :n] - theirs[i, :n]).abs().max()) for i, n in enumerate(ours.count))
    # the reference's group norm runs over the padding: there ours is compared row by row, above
    assert apart <= CLOSE if speech.ours.config.norm == "layer" else apart > 0.01


@torch.no_grad()
def test_what_lies_behind_a_row_is_never_heard(speech):
    audio, lengths = rectangle([noise(n) for n in LENGTHS])
    dirty = torch.where(torch.arange(audio.shape[-1]) < lengths[:, None, None], audio, torch.full_like(audio, 7.0))
    clean, other = (speech.ours.contextual(speech.ours.features(a, lengths)) for a in (audio, dirty))
    for i, n in enumerate(clean.count):
        assert (clean.out[i, :n] - other.out[i, :n]).abs().max() <= CLOSE


@torch.no_grad()
def test_hidden_frames_are_hidden_as_in_the_reference(speech):
    audio, mask = noise(4801)[None], torch.zeros(1, 14, dtype=torch.bool)
    mask[0, 3:8] = True
    theirs = speech.theirs(audio[:, 0], mask_time_indices=mask).last_hidden_state
    assert (speech.ours(audio, mask).out - theirs).abs().max() <= CLOSE
    assert (speech.ours(audio).out - theirs).abs().max() > 0.1


@torch.no_grad()
def test_recordings_are_levelled_as_by_the_feature_extractor(tmp_path):
    from transformers import Wav2Vec2FeatureExtractor

    theirs = tiny("wav2vec2", **LARGE)
    theirs.save_pretrained(tmp_path)
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    extractor.save_pretrained(tmp_path)
    ours, rows = encoder_from_transformers(tmp_path).model, [noise(n) + 0.3 for n in LENGTHS]
    assert ours.config.normalize
    batch = extractor([row[0].numpy() for row in rows], sampling_rate=16_000, padding=True, return_tensors="pt")
    expected, heard = theirs(**batch).last_hidden_state, ours(rows)
    assert max(float((heard.out[i, :n] - expected[i, :n]).abs().max()) for i, n in enumerate(heard.count)) <= CLOSE
    (tmp_path / "preprocessor_config.json").unlink()
    assert encoder_from_transformers(tmp_path).model.config.normalize  # its kind says so


@torch.no_grad()
def test_the_filterbank_has_the_numbers_of_the_feature_extractor(bert):
    from transformers import SeamlessM4TFeatureExtractor

    rows = [noise(n) for n in (8000, 16_161, 721, 12_347)]
    batch = SeamlessM4TFeatureExtractor()([row[0].numpy() for row in rows], sampling_rate=16_000, return_tensors="pt")
    ours = bert.ours.features(*rectangle(rows))
    for i, n in enumerate(ours.count.tolist()):
        # the reference ends an odd number of frames of 10 ms with half a vector, which its mask then hides
        assert n == int(batch["attention_mask"][i].sum()) == ((rows[i].shape[1] - 400) // 160 + 1) // 2
        assert (ours.x[i, :n] - batch["input_features"][i, :n]).abs().max() <= 2e-5


@torch.no_grad()
def test_every_conformer_layer_is_that_of_the_reference_and_rows_stay_apart(bert):
    rows = [noise(n) for n in (8000, 16_161, 721, 12_347)]
    features = bert.ours.features(*rectangle(rows))
    ours = bert.ours.contextual(features)
    theirs = bert.theirs(features.x, attention_mask=features.real.long(), output_hidden_states=True)
    assert len(theirs.hidden_states) == len(ours.layers) == 4 and ours.count.tolist() == [24, 49, 1, 37]
    for expected, layer in zip((*theirs.hidden_states, theirs.last_hidden_state), (*ours.layers, ours.out)):
        assert (layer - expected)[features.real].abs().max() <= CLOSE and expected.std() > 0.1
    for i, row in enumerate(rows):
        alone = bert.ours(row[None]).out[0]
        assert (ours.out[i, : len(alone)] - alone).abs().max() <= CLOSE


@torch.no_grad()
def test_the_conformer_hides_frames_as_the_reference_does(bert):
    features = bert.ours.features(noise(8000)[None], torch.tensor([8000]))
    mask = torch.arange(24)[None] % 5 == 0
    theirs = bert.theirs(features.x, mask_time_indices=mask).last_hidden_state
    assert (bert.ours.contextual(features, mask).out - theirs).abs().max() <= CLOSE


def test_the_published_sizes_are_those_of_the_published_models():
    def millions(config) -> float:
        with torch.device("meta"):
            return round(sum(p.numel() for p in config.build().parameters()) / 1e6, 2)

    assert millions(SpeechEncoder.Config()) == 94.37
    assert millions(large()) == 315.44
    assert millions(Contrastive.Config()) == 95.04
    assert Conformer.Config().dim == 1024 and SpeechEncoder.Config(widths=(8,) * 7, dim=16, depth=0, heads=2).build().field == 400


def test_a_head_is_left_over_and_old_names_of_weight_norm_are_read(tmp_path):
    theirs = tiny("ctc", **BASE)
    theirs.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    new = "parametrizations.weight.original"
    old = {name.replace(f"{new}0", "weight_g").replace(f"{new}1", "weight_v"): tensor for name, tensor in tensors.items()}
    assert len(set(old) - set(tensors)) == 2
    save_file(old, tmp_path / "model.safetensors")
    found = encoder_from_transformers(tmp_path)
    assert sorted(found.report.unused) == ["lm_head.bias", "lm_head.weight"] and found.report.complete
    assert len(found.report.mapped) == len(found.model.state_dict())
    audio = noise(2000)
    with torch.no_grad():
        assert (found.model(audio[None]).out - theirs.hubert(audio).last_hidden_state).abs().max() <= CLOSE


def test_a_model_that_nothing_is_hidden_from_has_no_vector_for_it(tmp_path):
    ours = reference(tmp_path, "wav2vec2", mask_time_prob=0.0, **BASE).ours
    with pytest.raises(SlmError, match="maskable"):
        ours(noise(2000)[None], torch.ones(1, 6, dtype=torch.bool))


def test_the_report_tells_what_did_not_fit_and_strict_refuses_it(tmp_path):
    reference(tmp_path, "wav2vec2", **BASE)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["encoder.layers.1.attention.k_proj.bias"]
    tensors["encoder.layer_norm.bias"] = torch.zeros(5)
    tensors["encoder.layers.9.layer_norm.bias"] = torch.zeros(5)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(SlmError, match="1 missing .*layers.1.*1 unexpected .*layers.9.*1 of another shape .*layer_norm.bias"):
        encoder_from_transformers(tmp_path)
    report = encoder_from_transformers(tmp_path, strict=False).report
    assert report.missing == ["encoder.layers.1.attention.k_proj.bias"]
    assert report.unexpected == ["encoder.layers.9.layer_norm.bias"]
    assert report.reshaped == {"encoder.layer_norm.bias": ([5], [32])}


def test_a_truncated_file_is_one_sentence(speech, tmp_path):
    refuses_every_cut(slm_tokenizers.load, speech.path, tmp_path)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"model_type": "mimi"}, "'mimi' but must be wav2vec2, hubert or wav2vec2-bert"),
        ({"model_type": "hubert", "conv_pos_batch_norm": True}, "conv_pos_batch_norm is True"),
        ({"model_type": "wav2vec2", "hidden_act": "relu"}, "hidden_act is 'relu' but only 'gelu'"),
        ({"model_type": "wav2vec2", "add_adapter": True}, "add_adapter"),
        ({"model_type": "wav2vec2-bert", "position_embeddings_type": "rotary"}, "only 'relative_key'"),
        ({"model_type": "wav2vec2-bert", "feature_projection_input_dim": 81}, "81"),
        ({"model_type": "wav2vec2", "hidden_size": "wide"}, "a field has a value that no wav2vec2 can have"),
    ],
)
def test_a_config_that_no_published_encoder_has_is_refused(tmp_path, config, says):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(SlmError, match=says) as raised:
        encoder_from_transformers(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda m: m(torch.zeros(1, 1, 399)), "399 samples but this encoder needs at least 400"),
        (lambda m: m([torch.zeros(1, 5000), torch.zeros(1, 9)]), "9 samples"),
        (lambda m: m(torch.zeros(1, 2, 500)), r"floats \[B, 1, N\]"),
        (lambda m: m(torch.full((1, 1, 500), float("nan"))), "NaN"),
        (lambda m: m.features(torch.zeros(1, 1, 500), torch.tensor([501])), "up to 500"),
        (lambda m: m.layer(noise(500)[None], torch.tensor([500]), 4), "layer 4 is asked for but this encoder has layers 0 to 3"),
        (lambda m: Convolutions((8,), (3, 3), (2,), False, "group"), "as many"),
        (lambda m: Convolutions((8,), (3,), (2,), False, "batch"), "norm is 'batch'"),
        (lambda m: SpeechEncoder.Config(heads=7).build(), "multiple of heads"),
        (lambda m: GumbelQuantizer.Config(dim=5).build(8), "dim is 5"),
        (lambda m: Joint.Config(below=24).build(), "below is 24"),
    ],
)
def test_a_wrong_input_is_one_sentence(speech, wrong, says):
    with pytest.raises(SlmError, match=says) as raised:
        wrong(speech.ours)
    assert "\n" not in str(raised.value)


@torch.no_grad()
def test_an_encoder_says_its_layers_rate_and_hop_and_makes_no_codes(speech, bert, tone_voice, tmp_path):
    for ours in (speech.ours, bert.ours):
        assert (ours.rate, ours.hop, ours.dim, ours.depth) == (16_000, 320, 32, 3) and not ours.training
        audio, lengths = rectangle([noise(n) for n in (8000, 721)])
        for index, whole in enumerate(ours([noise(8000), noise(721)]).layers):
            frames = ours.layer(audio, lengths, index)
            assert torch.equal(frames.x, whole) and frames.x.shape[-1] == ours.dim
    for folder in (speech.path, bert.path):
        with pytest.raises(SlmError, match="holds an encoder, a .*, that makes vectors and not codes.*Units") as raised:
            encode_file(tone_voice, tmp_path / "codes.safetensors", str(folder))
        assert "\n" not in str(raised.value) and not (tmp_path / "codes.safetensors").exists()


def test_less_than_a_vector_of_the_filterbank_is_one_sentence(bert):
    with pytest.raises(SlmError, match="559 samples but this encoder needs at least 560"):
        bert.ours(torch.zeros(1, 1, 559))


@torch.no_grad()
def test_an_encoder_comes_back_from_disk_to_the_last_bit(speech, bert, tmp_path):
    for i, ours in enumerate((speech.ours, bert.ours)):
        save(ours, tmp_path / str(i), exact=True)
        again = slm_tokenizers.load(tmp_path / str(i))
        assert again.config == ours.config and torch.equal(again(noise(3000)[None]).out, ours(noise(3000)[None]).out)


# Masks


def test_half_of_all_frames_are_hidden_with_the_published_numbers():
    torch.manual_seed(0)
    mask = Masking().draw(torch.full((200,), 500), 500)
    assert 0.47 < mask.float().mean() < 0.51


def test_the_same_seed_hides_the_same_frames_and_a_row_throws_its_own_dice():
    def draw(seed: int, count: list[int]) -> Tensor:
        torch.manual_seed(seed)
        return Masking(span=3).draw(torch.tensor(count), max(count))

    assert torch.equal(draw(1, [40, 20, 33]), draw(1, [40, 20, 33]))
    assert not torch.equal(draw(1, [40, 20, 33]), draw(2, [40, 20, 33]))
    assert torch.equal(draw(1, [40, 20, 33])[2, :33], draw(1, [11, 90, 33])[2, :33])


def test_every_row_has_a_span_and_padding_is_never_hidden():
    for seed in range(50):
        torch.manual_seed(seed)
        count = torch.tensor([11, 60, 12])
        mask = Masking(start=0.0).draw(count, 60)
        assert mask.sum(1).tolist() == [10, 10, 10] and not mask[0, 11:].any() and not mask[2, 12:].any()


def test_a_row_too_short_to_hide_a_span_is_one_sentence():
    with pytest.raises(SlmError, match="row 1 has 10 frames but hiding a span of 10 needs at least 11"):
        Masking().draw(torch.tensor([30, 10]), 30)
    with pytest.raises(SlmError, match="row 0 has 1 hidden frames"):
        negatives(torch.tensor([[True, False]]), 5)
    with pytest.raises(SlmError, match="span is 0"):
        Masking(span=0).draw(torch.tensor([30]), 30)


def test_negatives_are_other_hidden_frames_of_the_same_row_and_any_of_them():
    torch.manual_seed(0)
    mask = Masking(span=3).draw(torch.tensor([40, 20, 33]), 40)
    row = mask.nonzero()[:, 0]
    drawn = negatives(mask, 200)
    assert (row[drawn] == row[:, None]).all() and (drawn != torch.arange(len(row))[:, None]).all()
    assert all(set(drawn[i].tolist()) == set((row == r).nonzero()[:, 0].tolist()) - {i} for i, r in enumerate(row.tolist()))


# Objectives


def contrastive(tmp: Path, **more) -> tuple[nn.Module, Contrastive]:
    quiet = dict(hidden_dropout=0.0, activation_dropout=0.0, attention_dropout=0.0, layerdrop=0.0, final_dropout=0.0)
    theirs = tiny("pretraining", codevector_dim=12, proj_codevector_dim=20, num_negatives=7, **quiet, **more)
    theirs.save_pretrained(tmp)
    return theirs, contrastive_from_transformers(tmp).model


def same_gradients(theirs: nn.Module, ours: Contrastive, scale: float) -> None:
    """Every parameter's gradient, ours times `scale`, relative to the largest entry."""
    names = {name.replace("wav2vec2.", "encoder."): p for name, p in theirs.named_parameters()}
    checked = 0
    for name, p in ours.named_parameters():
        expected = names[name].grad
        if expected is None:
            assert p.grad is None or not p.grad.any(), name
            continue
        assert (p.grad * scale - expected).abs().max() <= 1e-4 * max(1e-2, float(expected.abs().max())), name
        checked += bool(expected.any())
    assert checked > 20


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", ["base", "large"])
def test_the_contrastive_loss_and_its_gradients_are_those_of_the_reference(tmp_path, monkeypatch, size, training):
    """Training draws the codes: the same dice are given to both. Evaluation has few codes, so that negatives coincide."""
    more = LARGE if size == "large" else BASE
    theirs, ours = contrastive(tmp_path, num_codevectors_per_group=320 if training else 4, **more)
    theirs.train(training), ours.train(training)
    ours.encoder.config.normalize = False
    lengths = (9000, 6001, 7777) if size == "large" else (7777, 7777)  # the reference's group norm hears padding
    rows = [noise(n + i)[:, i:] for i, n in enumerate(lengths)]
    torch.manual_seed(11)  # dice
    features = ours.encoder.features(*rectangle(rows))
    mask = Masking(span=4, least=2).draw(features.count, features.x.shape[1])
    others = negatives(mask, 7)
    groups, card = ours.quantizer.config.groups, ours.quantizer.config.card
    dice = -torch.empty(*mask.shape, groups, card).exponential_().log()

    def told(logits: Tensor, tau: float, hard: bool) -> Tensor:
        soft = ((logits + dice.view_as(logits)) / tau).softmax(-1)
        return F.one_hot(soft.argmax(-1), soft.shape[-1]) - soft.detach() + soft

    monkeypatch.setattr(F, "gumbel_softmax", told)
    sampled = torch.zeros(*mask.shape, 7, dtype=torch.long)
    sampled[mask] = mask.flatten().nonzero()[:, 0][others]
    audio, seen = padded(rows)
    out = theirs(audio, attention_mask=seen, mask_time_indices=mask, sampled_negative_indices=sampled)
    losses = ours.losses(features, mask, others, dice[mask])
    hidden = int(mask.sum())
    assert torch.allclose(losses["contrastive"] * hidden, out.contrastive_loss, rtol=1e-5)
    assert torch.allclose(losses["diversity"] * hidden, 0.1 * out.diversity_loss, rtol=1e-5)
    chosen = ours.quantizer(ours.encoder.contextual(features).features[mask], noise=dice[mask])
    assert torch.allclose(chosen.perplexity, out.codevector_perplexity, rtol=1e-5)
    same = (chosen.ids[others] == chosen.ids[:, None]).all(-1)
    assert not same.any() if training else same.float().mean() > 0.02
    out.loss.backward()
    (losses["contrastive"] + losses["diversity"]).backward()
    same_gradients(theirs, ours, hidden)


def test_the_ids_of_the_quantiser_are_those_of_the_reference(tmp_path):
    theirs, ours = contrastive(tmp_path, **BASE)
    x = torch.randn(3, 20, 16)
    with torch.no_grad():
        vectors, perplexity = theirs.quantizer(x)
        chosen = ours.quantizer(x.flatten(0, 1))
    assert torch.equal(chosen.vectors.view(3, 20, -1), vectors) and torch.allclose(chosen.perplexity, perplexity)
    assert torch.equal(chosen.ids, theirs.quantizer.weight_proj(x).view(60, 2, -1).argmax(-1)) and chosen.ids.unique().numel() > 20


def test_the_temperature_falls_to_its_end():
    config = GumbelQuantizer.Config()
    assert config.temperature(0) == 2.0 and config.temperature(100_000) == pytest.approx(2 * 0.999995**100_000)
    assert config.temperature(10**6) == 0.5


def objectives() -> dict[str, nn.Module]:
    """Every pre-training stage, tiny, without dropout."""
    torch.manual_seed(0)
    encoder = SpeechEncoder.Config(widths=(8,) * 7, dim=16, depth=2, heads=2, hidden=16, positions=5, groups=2, dropout=0.0, layerdrop=0.0)
    conformer = Conformer.Config(mels=10, dim=16, depth=2, heads=2, hidden=16, kernel=3, left=4, right=2)
    masking, quantizer = Masking(span=3, least=2), GumbelQuantizer.Config(groups=1, card=6, dim=8)
    stages = {
        "contrastive": Contrastive.Config(encoder, quantizer, masking, dim=8, negatives=5, penalty=0.0),
        "masked_units": MaskedUnits.Config(encoder, card=9, dim=8, masking=masking, alpha=0.7, penalty=0.0),
        "joint": Joint.Config(conformer, quantizer, masking, below=1, negatives=5),
    }
    return {name: config.build() for name, config in stages.items()}


def batch_of(lengths: tuple[int, ...], stage: nn.Module) -> dict:
    rows = [noise(n) for n in lengths]
    count = torch.tensor([(n - stage.encoder.field) // stage.encoder.hop + 1 for n in lengths])
    units = [torch.arange(n) * 7 % 9 for n in count]
    return {"audio": rows, "units": nn.utils.rnn.pad_sequence(units, batch_first=True, padding_value=-1)}


@pytest.mark.parametrize("name", ["contrastive", "masked_units", "joint"])
def test_a_loss_is_a_function_of_the_seed_and_every_parameter_learns(name):
    stage = objectives()[name].train()
    batch = batch_of((5000, 7000), stage)

    def total(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return sum(stage.loss(batch).values())

    before = stage.state_dict().get("updates", torch.tensor(0)).clone()
    first = total(3)
    first.backward()
    assert [n for n, p in stage.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    if "updates" in stage.state_dict():
        assert int(stage.updates) == int(before) + 1
        stage.updates.zero_()
    assert torch.equal(total(3), first) and not torch.equal(total(4), first)


@pytest.mark.parametrize("name", ["contrastive", "masked_units", "joint"])
@torch.no_grad()
def test_a_row_is_worth_the_same_in_any_batch(name):
    """The loss of a batch is the mean over the hidden frames of its rows, each as if alone."""
    stage = objectives()[name].eval()
    batch = batch_of((5000, 3001, 7000), stage)
    features = stage.encoder.features(*rectangle(batch["audio"]))
    torch.manual_seed(1)
    mask = stage.config.masking.draw(features.count, features.x.shape[1])
    key = {"contrastive": ["contrastive"], "masked_units": ["hidden"], "joint": ["contrastive", "masked"]}[name]

    def losses(features, mask, others, units) -> Tensor:
        found = stage.losses(features, mask, units) if name == "masked_units" else stage.losses(features, mask, others)
        return torch.stack([found[k] for k in key])

    others = negatives(mask, 5)
    whole, parts, first = losses(features, mask, others, batch["units"]), 0, 0
    for i, row in enumerate(batch["audio"]):
        alone = stage.encoder.features(*rectangle([row]))
        frames, hidden = alone.x.shape[1], int(mask[i].sum())
        mine = others[first : first + hidden] - first
        parts = parts + hidden * losses(alone, mask[i : i + 1, :frames], mine, batch["units"][i : i + 1, :frames])
        first += hidden
    assert torch.allclose(whole * int(mask.sum()), parts, rtol=1e-4)


@pytest.mark.parametrize("kind", ["contrastive", "joint"])
def test_layer_drop_leaves_layers_out_while_training_and_never_later(kind):
    encoder = objectives()[kind].encoder
    encoder.encoder.layerdrop = 1.0
    audio = noise(5000)[None]
    layers = encoder.train()(audio).layers
    assert len(layers) == 3 and all(torch.equal(layer, layers[0]) for layer in layers)
    layers = encoder.eval()(audio).layers
    assert not torch.equal(layers[1], layers[0]) and not torch.equal(layers[2], layers[1])


@pytest.mark.parametrize("name", ["contrastive", "masked_units"])
@torch.no_grad()
def test_the_penalty_is_on_the_frames_of_the_rows_and_not_on_what_lies_behind_them(name):
    stage = objectives()[name].eval()
    stage.config.penalty = 3.0
    batch = batch_of((5000, 3001, 7000), stage)
    alone = torch.cat([stage.encoder.features(*rectangle([row])).rows for row in batch["audio"]])
    assert torch.allclose(stage.loss(batch)["penalty"], 3 * alone.square().mean(), rtol=1e-5)


@torch.no_grad()
def test_a_frame_without_a_unit_counts_nowhere():
    stage = objectives()["masked_units"].eval()
    batch = batch_of((7000, 7000), stage)
    units = batch["units"].masked_fill(torch.arange(batch["units"].shape[1]) % 4 == 1, -1)
    features = stage.encoder.features(*rectangle(batch["audio"]))
    mask = torch.arange(features.x.shape[1]).expand(2, -1) % 3 == 0
    x = stage.encoder.contextual(features, mask).out
    losses = stage.losses(features, mask, units)
    for name, weight, where in (("hidden", 0.7, mask), ("shown", 0.3, ~mask)):
        expected = F.cross_entropy(stage.scores(x[where]), units[where], ignore_index=-1)
        assert torch.allclose(losses[name], weight * expected, rtol=1e-5) and (units[where] < 0).any()


def test_the_lower_layers_of_w2v_bert_contrast_and_the_upper_ones_say_ids():
    """Each loss spelled out once more; what is said of the ids teaches the quantiser nothing."""
    stage = objectives()["joint"].eval()
    features = stage.encoder.features(*rectangle(batch_of((5000, 7000), stage)["audio"]))
    mask = torch.arange(features.x.shape[1]) % 3 == 0
    mask = mask & features.real
    others = negatives(mask, 5)
    losses = stage.losses(features, mask, others)
    heard = stage.encoder.contextual(features, mask)
    chosen = stage.quantizer(heard.features[mask])
    ids = chosen.ids[:, 0]
    assert ids.unique().numel() > 2
    assert torch.allclose(losses["masked"], F.cross_entropy(stage.head(heard.out[mask]), ids), rtol=1e-5)
    assert torch.allclose(losses["diversity"], 0.1 * (1 - chosen.perplexity / 6), rtol=1e-5)
    said, rows = F.normalize(stage.project_hid(heard.layers[1][mask]), dim=-1), []
    right = F.normalize(chosen.vectors, dim=-1)
    for i, wrong in enumerate(others):
        rivals = [right[j] for j in wrong if ids[j] != ids[i]]
        rows.append(-(torch.stack([right[i], *rivals]) @ said[i] / 0.1).log_softmax(0)[0])
    assert torch.allclose(losses["contrastive"], torch.stack(rows).mean(), rtol=1e-4)
    losses["masked"].backward()
    assert stage.head.weight.grad.any() and stage.quantizer.codevectors.grad is None and stage.quantizer.weight_proj.weight.grad is None


def test_the_loss_of_masked_units_is_that_of_torchaudio():
    from torchaudio.models.wav2vec2.components import LogitGenerator

    stage = objectives()["masked_units"].eval()
    batch = batch_of((7000, 7000), stage)
    features = stage.encoder.features(*rectangle(batch["audio"]))
    mask = torch.arange(features.x.shape[1]).expand(2, -1) % 3 == 0
    losses = stage.losses(features, mask, batch["units"])
    theirs = LogitGenerator(16, 9, 8, skip_masked=False, skip_nomask=False)
    theirs.load_state_dict({"label_embeddings": stage.embed, **{f"final_proj.{k}": v for k, v in stage.final_proj.state_dict().items()}})
    x = stage.encoder.contextual(features, mask).out.detach()
    hidden, shown = theirs(x, batch["units"], mask, ~mask)
    expected = [F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long)) for logits in (hidden, shown)]
    assert torch.allclose(losses["hidden"], 0.7 * expected[0], rtol=1e-5)
    assert torch.allclose(losses["shown"], 0.3 * expected[1], rtol=1e-5)
    (losses["hidden"] + losses["shown"]).backward()
    (0.7 * expected[0] + 0.3 * expected[1]).backward()
    assert torch.allclose(stage.embed.grad, theirs.label_embeddings.grad, atol=1e-5)


def test_units_that_do_not_fit_are_one_sentence():
    stage = objectives()["masked_units"]
    batch = batch_of((5000, 7000), stage)
    with pytest.raises(SlmError, match=r"units have the shape \[2, 20\] but the encoder hears frames \[2, 21\]"):
        stage.loss(batch | {"units": batch["units"][:, :-1]})
    with pytest.raises(SlmError, match="unit 9 is outside 0 to 8"):
        stage.loss(batch | {"units": batch["units"] + 1})
    with pytest.raises(SlmError, match="row 1 has 1 frames"):
        stage.loss({"audio": [noise(5000), noise(400)], "units": batch["units"]})


def test_masked_units_can_be_learned():
    """Tones, each with its own unit: hidden ones are told from their neighbours."""
    torch.manual_seed(0)
    stage = objectives()["masked_units"].train()
    units = torch.tensor([2, 5, 7]).repeat_interleave(8)[None].expand(6, -1)
    time = torch.arange(24 * 320 + 80) / 16_000
    pitch = (200.0 * (1 + units.float()))[:, torch.arange(len(time)).clamp(max=24 * 320 - 1) // 320]
    audio = (0.3 * torch.sin(2 * torch.pi * pitch * time))[:, None]
    optimiser = torch.optim.Adam(stage.parameters(), lr=5e-3)
    history = []
    for _ in range(40):
        loss = stage.loss({"audio": audio, "units": units})["hidden"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(float(loss.detach()))
    assert sum(history[-5:]) < 0.5 * sum(history[:5])


def test_a_second_round_goes_on_from_the_first(tmp_path):
    torch.manual_seed(0)
    small = SpeechEncoder.Config(widths=(8,) * 7, dim=8, depth=1, heads=2, hidden=16, positions=9, groups=2)
    first = MaskedUnits.Config(small, card=4, dim=4).build()
    first.write(tmp_path / "first")
    second = MaskedUnits.Config(str(tmp_path / "first"), card=7, dim=4).build()
    assert second.encoder.training and all(weight.requires_grad for weight in second.encoder.parameters())
    for (name, a), b in zip(first.encoder.state_dict().items(), second.encoder.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert MaskedUnits.Config(small, card=7).build().encoder.state_dict().keys() == second.encoder.state_dict().keys()


def test_a_second_round_needs_an_encoder_to_go_on_from(tmp_path):
    from slm_tokenizers import stored
    from slm_tokenizers.codec import tiny

    stored.save(tiny().build(), tmp_path / "codec")
    with pytest.raises(SlmError, match="holds a Codec"):
        MaskedUnits.Config(str(tmp_path / "codec")).build()
    with pytest.raises(SlmError, match="missing or damaged"):
        MaskedUnits.Config(str(tmp_path / "nothing")).build()
