"""Language models that transformers saved give its numbers here: logits and gradients, at once, in chunks and step by step.

Each is tiny and random, written to disk by transformers and read back by `slm.backbone.load`. Then: more ids, and LoRA.

B batch   S steps   V ids
"""

import json
import shutil
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from damaged import refuses, refuses_every_cut
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from slm.backbone import load, lora
from slm.backbone.hybrid import Hybrid
from slm.backbone.importers import targets
from slm.backbone.language_model import LanguageModel
from slm.backbone.mamba2 import Mamba2
from slm.backbone.rwkv import RWKV
from slm.backbone.transformer import Transformer
from slm.config import from_dict, to_dict
from slm.errors import SlmError
from slm.nn.rope import Rope, Stretch

CARD, STEPS = 23, 1100
LLAMA = dict(vocab_size=CARD, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
STRETCHED = dict(
    rope_type="llama3", rope_theta=500.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64
)
SIZES = {
    "llama": LLAMA | dict(head_dim=6, rms_norm_eps=1e-5, rope_parameters=STRETCHED),
    "qwen2": LLAMA | dict(tie_word_embeddings=True, rope_parameters=dict(rope_type="default", rope_theta=300.0)),
    "qwen3": LLAMA | dict(head_dim=8, num_key_value_heads=1),
    "mamba2": dict(
        vocab_size=CARD, hidden_size=16, num_hidden_layers=2, num_heads=8, head_dim=4, state_size=4, n_groups=2, chunk_size=32,
        conv_kernel=3, tie_word_embeddings=True,
    ),
    "rwkv": dict(vocab_size=CARD, hidden_size=16, intermediate_size=24, num_hidden_layers=3, rescale_every=2),
}  # fmt: skip


@dataclass
class Pair:
    """transformers' model, and ours after it read what the other wrote to `path`."""

    path: Path
    theirs: nn.Module
    ours: LanguageModel


def close(a: Tensor, b: Tensor, atol: float = 1e-4) -> None:
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


def ids(batch: int, steps: int, card: int = CARD) -> Tensor:
    return torch.randint(card, (batch, steps), generator=torch.Generator().manual_seed(steps))


def build(kind: str, **changes) -> nn.Module:
    """Weights large enough that every path matters; decays and time steps stay in their published ranges."""
    import transformers

    name = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "mamba2": "Mamba2", "rwkv": "Rwkv"}[kind]
    torch.manual_seed(0)
    theirs = getattr(transformers, f"{name}ForCausalLM")(getattr(transformers, f"{name}Config")(**SIZES[kind] | changes))
    for name, parameter in theirs.named_parameters():
        if "norm" in name or ".ln" in name:
            nn.init.uniform_(parameter, 0.5, 1.5)
        elif name.endswith("bias") and "dt_" not in name:
            nn.init.normal_(parameter, std=0.3)
        elif parameter.dim() >= 2 and "time_mix" not in name:
            nn.init.normal_(parameter, std=0.3)
    return theirs


def pair(kind: str, path: Path, **changes) -> Pair:
    theirs = build(kind, **changes)
    theirs.save_pretrained(path)  # before eval(): when it evaluates, its RWKV halves weights in place
    return Pair(path, theirs.eval(), load(path))


@pytest.fixture(scope="module", params=SIZES)
def both(request, tmp_path_factory) -> Pair:
    return pair(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory) -> Pair:
    return pair("qwen3", tmp_path_factory.mktemp("qwen3"))


@pytest.fixture
def lm() -> LanguageModel:
    torch.manual_seed(0)
    model = LanguageModel.Config(CARD, Transformer.Config(16, 2, 4), tied=True).build().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model


@torch.no_grad()
@pytest.mark.parametrize(
    "chunk, prefix, steps", [(STEPS, 0, STEPS), (1, 0, 90), (1, 1040, STEPS), (7, 0, 400), (64, 3, STEPS), (1000, 0, STEPS)]
)
def test_logits_are_those_of_transformers_at_once_and_in_chunks(both: Pair, chunk: int, prefix: int, steps: int) -> None:
    x = ids(2, STEPS)
    if not hasattr(both, "logits"):
        both.logits = both.theirs(x).logits
        close(both.ours(x)[0], both.logits)
        assert both.logits.std() > 0.2 and both.ours(x)[1] is None
    state, pieces = both.ours.start(2), []
    for piece in [x[:, :prefix]] * (prefix > 0) + list(x[:, prefix:steps].split(chunk, 1)):
        y, state = both.ours(piece, state)
        pieces.append(y)
    close(torch.cat(pieces, 1), both.logits[:, :steps])


@torch.no_grad()
def test_a_ragged_batch_is_each_row_alone_whatever_its_padding_says(both: Pair) -> None:
    rows, state = ids(3, 60), both.ours.start(3)
    first, second = torch.tensor([40, 0, 13]), torch.tensor([20, 31, 47])
    x = torch.full((3, 40), -7)
    y = torch.full((3, 47), 10**9)
    for b in range(3):
        x[b, : first[b]] = rows[b, : first[b]]
        y[b, : second[b]] = rows[b, first[b] : first[b] + second[b]]
    one, state = both.ours(x, state, lengths=first)
    two, state = both.ours(y, state, lengths=second)
    for b in range(3):
        want = both.theirs(rows[b : b + 1, : first[b] + second[b]]).logits[0]
        close(torch.cat([one[b, : first[b]], two[b, : second[b]]]), want)
        close(both.ours(x, lengths=first)[0][b, : first[b]], want[: first[b]])


def loss(logits: Tensor, x: Tensor) -> Tensor:
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), x[:, 1:].flatten())


def gradients(model: LanguageModel, x: Tensor) -> dict[str, Tensor]:
    """Of the loss, named as the parts of joined layers are."""
    held = deepcopy(model)
    held.load_state_dict(
        dict(zip(dict(model.named_parameters()), torch.autograd.grad(loss(model(x)[0], x), list(model.parameters())), strict=True))
    )
    return targets(held)


def test_gradients_are_those_of_transformers_and_of_float64(both: Pair) -> None:
    x = ids(2, 37)
    both.theirs.train()  # without dropout; its RWKV has its weights as they were only then
    loss(both.theirs(x).logits, x).backward()
    wanted = {name: parameter.grad for name, parameter in both.theirs.named_parameters()}
    both.theirs.eval()
    ours, exact = gradients(both.ours, x), gradients(deepcopy(both.ours).double(), x)
    assert ours.keys() == both.ours.report.mapped.keys() and len(ours) == len(wanted)
    for name, there in both.ours.report.mapped.items():
        assert wanted[there].abs().max() > 1e-6
        close(ours[name], wanted[there])
        close(ours[name].double(), exact[name])


def test_the_report_names_every_tensor_and_the_config_builds_the_same_model(both: Pair) -> None:
    report, stored = both.ours.report, load_file(both.path / "model.safetensors")
    assert report.complete and sorted(report.mapped.values()) == sorted(stored) and not report.unused
    assert not both.ours.training and both.ours.card == CARD and both.ours.dim == 16
    again = from_dict(json.loads(json.dumps(to_dict(both.ours.config)))).build().eval()
    again.load_state_dict(both.ours.state_dict())
    assert torch.equal(again(ids(1, 9))[0], both.ours(ids(1, 9))[0])


@torch.no_grad()
@pytest.mark.parametrize("kind", ["llama", "mamba2", "rwkv"])
def test_a_model_in_several_files_is_the_model_in_one(kind: str, tmp_path: Path) -> None:
    theirs = build(kind)
    theirs.save_pretrained(tmp_path / "whole", max_shard_size="6KB")
    files = sorted((tmp_path / "whole").glob("*.safetensors"))
    assert len(files) > 1
    ours = load(tmp_path / "whole")
    close(ours(ids(1, 30))[0], theirs.eval()(ids(1, 30)).logits)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    refuses_every_cut(lambda path: load(path.parent), files[1], tmp_path / "cut")
    refuses(load, tmp_path / "cut", "is missing, where model.safetensors.index.json")


@torch.no_grad()
def test_weights_kept_in_bfloat16_are_read_into_float32(tmp_path: Path) -> None:
    theirs = build("llama").bfloat16()
    theirs.save_pretrained(tmp_path)
    ours = load(tmp_path)
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float32}
    close(ours(ids(1, 30))[0], type(theirs).from_pretrained(tmp_path, dtype=torch.float32).eval()(ids(1, 30)).logits)
    logits, _ = ours.bfloat16()(ids(1, 30))
    assert logits.dtype == torch.float32


@torch.no_grad()
def test_a_stretched_rope_leaves_fast_angles_and_slows_the_slow_ones() -> None:
    plain, stretched = Rope(8, 500.0), Rope(8, 500.0, Stretch(4.0, 1.0, 4.0, 64))
    (a, _), (b, _) = plain.at(0, 2, torch.zeros(1)), stretched.at(0, 2, torch.zeros(1))
    pace = torch.stack([a[1, 0, :4].acos(), b[1, 0, :4].acos()])
    close(pace[0, :1], pace[1, :1], 1e-6)
    close(pace[0, 3:] / 4, pace[1, 3:], 1e-4)


@torch.no_grad()
@pytest.mark.parametrize("init", ["mean", "zero", "normal"])
def test_growing_changes_no_bit_of_what_was_there(both: Pair, init: str) -> None:
    lm, x = deepcopy(both.ours), ids(2, 41)
    calls = (x, x[:1, :3], x[:1, :1])  # of few rows, a product with more columns has other last bits
    before = [lm(call)[0] for call in calls]
    assert lm.grow(7, init) == range(CARD, CARD + 7) and lm.card == CARD + 7
    after = [lm(call)[0] for call in calls]
    for a, b in zip(after, before, strict=True):
        assert a.shape[-1] == CARD + 7 and torch.equal(a[..., :CARD], b)
    lm.grow(3)
    for parameter in lm.tables[2].parameters():
        nn.init.normal_(parameter)
    state, pieces = lm.start(2), []
    for piece in torch.cat([x, x + 7], 1).split(20, 1):
        y, state = lm(piece, state)
        pieces.append(y)
    for call, a in zip(calls, after, strict=True):
        assert torch.equal(lm(call)[0][..., : CARD + 7], a)
    close(torch.cat(pieces, 1), lm(torch.cat([x, x + 7], 1))[0])
    again = from_dict(to_dict(lm.config)).build().eval()
    again.load_state_dict(lm.state_dict())
    assert torch.equal(again(x)[0], lm(x)[0])
    with pytest.raises(SlmError, match=rf"the id {CARD + 10} is outside the vocabulary, 0 .. {CARD + 9}"):
        lm(x * 0 + CARD + 10)


@torch.no_grad()
@pytest.mark.parametrize("tied", [True, False])
def test_new_ids_start_as_they_say(tied: bool) -> None:
    lm = LanguageModel.Config(200, Transformer.Config(16, 1, 2), tied=tied).build()
    for parameter in lm.parameters():
        nn.init.normal_(parameter, mean=1.0, std=2.0)
    for init in ("mean", "zero", "normal"):
        lm.grow(300, init)
    logits = lm(ids(1, 20))[0]
    mean, zero, normal = logits[..., 200:500], logits[..., 500:800], logits[..., 800:]
    close(mean, logits[..., :200].mean(-1, keepdim=True).expand_as(mean), atol=1e-3)
    share = logits[..., :500].softmax(-1)[..., 200:].sum(-1)
    assert (share <= 300 / 500 + 1e-6).all()  # what the mean promises
    assert not zero.any() and normal.std(-1).min() > 0.5 * logits[..., :200].std(-1).min()
    for kind in ("embed", "head")[: 1 + (not tied)]:
        vectors = getattr(lm.tables[3], kind).weight
        assert abs(vectors.mean() - 1) < 0.15 and abs(vectors.std() - 2) < 0.15
    with pytest.raises(SlmError, match="'mean', 'zero' or 'normal', not 'ones'"):
        lm.grow(1, "ones")
    with pytest.raises(SlmError, match="at least 1 id, not by 0"):
        lm.grow(0)


def test_new_ids_are_learnt_in_the_place_where_they_were_heard_and_said(lm: LanguageModel) -> None:
    lm.grow(5)
    x = torch.tensor([[1, CARD + 2, 3, CARD + 4]])
    F.cross_entropy(lm(x)[0][0, :-1], x[0, 1:]).backward()
    heard = lm.tables[1].embed.weight.grad.abs().sum(1)
    assert (heard > 0).all() and lm.tables[0].embed.weight.grad[[1, 3]].abs().sum(1).min() > 0
    lm.grow(3, "normal")
    assert torch.equal(lm.hear(torch.arange(lm.card)[None])[0], torch.cat([table.embed.weight for table in lm.tables]))


NAMES = {"llama": ["attention.qkv", "down"], "mamba2": ["in_proj", "out_proj"], "rwkv": ["attention.key", "feed_forward.value"]}


@torch.no_grad()
@pytest.mark.parametrize("kind", NAMES)
def test_lora_starts_silent_is_undone_by_scale_0_merges_and_outlives_its_process(kind: str, tmp_path: Path) -> None:
    base, x = pair(kind, tmp_path / "base").ours, ids(2, 33)
    want, lm = base(x)[0], deepcopy(base)
    paths = lora.add(lm, NAMES[kind], rank=3, alpha=6.0)
    assert len(paths) == 2 * len(lm.backbone.layers) and torch.equal(lm(x)[0], want)
    lm.grow(4)
    for parameter in lora.learnt(lm).values():
        nn.init.normal_(parameter, std=0.2)
    adapted, _ = lm(x)
    assert (adapted[..., :CARD] - want).abs().max() > 0.1
    lora.scale(lm, 0.0)
    assert torch.equal(lm(x)[0][..., :CARD], want)
    held = deepcopy(lm)
    for _, part in lora.wrapped(held):
        part.up.fill_(torch.inf)  # scale 0 is exact whatever was learnt
    assert torch.equal(held(x)[0][..., :CARD], want)
    lora.scale(lm, 2.0)
    lora.save(lm, tmp_path / "adapter.safetensors")
    assert (tmp_path / "adapter.safetensors").stat().st_size < (tmp_path / "base/model.safetensors").stat().st_size
    assert torch.equal(lora.load(deepcopy(base), tmp_path / "adapter.safetensors")(x)[0], adapted)
    names = set(deepcopy(lm).state_dict())
    close(lora.merge(lm)(x)[0], adapted, atol=1e-5)
    assert set(lm.state_dict()) < {name.replace(".base", "") for name in names} and not list(lora.wrapped(lm))


@pytest.mark.parametrize("grow_first", [True, False])
def test_only_lora_and_grown_ids_learn(lm: LanguageModel, grow_first: bool) -> None:
    if grow_first:
        lm.grow(4)
    lora.add(lm, ["attention.qkv", "attention.out"], rank=2, dropout=0.5)
    if not grow_first:
        lm.grow(4)
    before = {name: parameter.detach().clone() for name, parameter in lm.named_parameters()}
    optimizer = torch.optim.SGD([p for p in lm.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):  # in the first step `up` is 0, and so is the gradient of `down`
        x = ids(2, 12, CARD + 4)
        loss(lm.train()(x)[0], x).backward()
        optimizer.step()
    moved = {name for name, parameter in lm.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == set(lora.learnt(lm)) and len(moved) == 2 * 4 + 1


def test_what_lora_cannot_do_is_said(lm: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(SlmError, match="no linear layer is called 'q_proj'; there are down, gate_up, out, qkv"):
        lora.add(lm, ["qkv", "q_proj"])
    with pytest.raises(SlmError, match="rank = 0"):
        lora.add(lm, ["qkv"], rank=0)
    with pytest.raises(SlmError, match="nothing was added"):
        lora.save(lm, tmp_path / "none")
    path, plain, other = tmp_path / "adapter.safetensors", deepcopy(lm), LanguageModel.Config(CARD, Mamba2.Config(16, 1, 8)).build()
    lora.add(lm, ["qkv"])
    with pytest.raises(SlmError, match="no linear layer is called 'qkv'"):
        lora.add(lm, ["qkv"])
    lora.save(lm, path)
    wide = LanguageModel.Config(CARD, Transformer.Config(32, 2, 4), tied=True).build()
    for model in (other, wide, lm):
        refuses(lambda path: lora.load(model, path), path, "adapter of another model")
    lm.grow(3)
    lora.save(lm, path)
    refuses(lambda path: lora.load(other.backbone, path), path, "adapter of another model")
    (tmp_path / "cut").mkdir()
    refuses_every_cut(lambda path: lora.load(plain, path), path, tmp_path / "cut")


def test_a_folder_cut_short_or_without_a_file_is_refused_by_name(qwen3: Pair, tmp_path: Path) -> None:
    refuses_every_cut(load, qwen3.path, tmp_path)
    refuses(load, tmp_path / "nowhere", "no language model here, config.json is missing")


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"model_type": "falcon_h1"}, "model_type is 'falcon_h1' but must be llama, qwen2, qwen3, mamba2 or rwkv"),
        ({"model_type": None}, "model_type is None"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"attention_bias": True}, "attention_bias"),
        ({"num_hidden_layers": 3}, "11 missing"),
        ({"num_hidden_layers": 1}, "11 unexpected"),
        ({"num_hidden_layers": "two"}, "num_hidden_layers is 'two' but must be a whole number"),
        ({"hidden_size": -16}, "hidden_size is -16"),
        ({"vocab_size": 24}, "2 of another shape"),
        ({"head_dim": 5}, "head_dim = 5 must be even"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps is 'small'"),
        ({"tie_word_embeddings": True}, "differ"),
        ({"tie_word_embeddings": 7}, "true or false"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding_attention"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type is 'yarn'"),
        ({"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor|original_max"),
        ({"rope_parameters": 7}, "must be an object"),
    ],
)
def test_a_config_that_means_another_model_is_refused_by_its_field(qwen3: Pair, tmp_path: Path, changes: dict, says: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").symlink_to(qwen3.path / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(json.loads((qwen3.path / "config.json").read_text()) | changes))
    refuses(load, folder, says)


@pytest.mark.parametrize(
    "kind, changes, says",
    [
        ("mamba2", {"time_step_limit": [0.001, 0.1]}, "time_step_limit"),
        ("mamba2", {"num_heads": 4}, "num_heads is 4 but must be"),
        ("mamba2", {"use_bias": True}, "use_bias"),
        ("rwkv", {"attention_hidden_size": 32}, "attention_hidden_size is 32"),
        ("rwkv", {"layer_norm_epsilon": 1e-3}, "layer_norm_epsilon"),
    ],
)
def test_a_recurrent_config_that_means_another_model_is_refused_too(tmp_path: Path, kind: str, changes: dict, says: str) -> None:
    build(kind).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    refuses(load, tmp_path, says)


def test_older_files_that_hold_a_tied_head_or_their_own_rope_are_read(tmp_path: Path) -> None:
    lm = pair("qwen2", tmp_path).ours
    weights = load_file(tmp_path / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(2)
    save_file(weights, tmp_path / "model.safetensors")
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    file.write_text(json.dumps(config))
    again = load(tmp_path)
    assert again.report.unused == ["model.layers.0.self_attn.rotary_emb.inv_freq"] and again.tables[0].head is None
    assert torch.equal(again(ids(1, 9))[0], lm(ids(1, 9))[0])


def test_what_does_not_fit_is_told_where_that_is_allowed(qwen3: Pair, tmp_path: Path) -> None:
    weights = load_file(qwen3.path / "model.safetensors")
    del weights["model.norm.weight"]
    weights["model.extra"] = torch.zeros(3)
    weights["lm_head.weight"] = torch.zeros(5, 16)
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((qwen3.path / "config.json").read_text())
    refuses(load, tmp_path, "1 missing .such as backbone.norm.weight., 1 unexpected .such as model.extra., 1 of another shape")
    report = load(tmp_path, strict=False).report
    assert report.missing == ["backbone.norm.weight"] and report.unexpected == ["model.extra"]
    assert report.reshaped == {"tables.0.head.weight": ([5, 16], [CARD, 16])}


@pytest.mark.parametrize(
    "index", ["[]", "{", '{"weight_map": 3}', '{"weight_map": {"a": "../model.safetensors"}}', '{"weight_map": {"a": 3}}']
)
def test_an_index_leads_to_no_other_folder(qwen3: Pair, tmp_path: Path, index: str) -> None:
    shutil.copy(qwen3.path / "model.safetensors", tmp_path)
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copy(qwen3.path / "config.json", folder)
    (folder / "model.safetensors.index.json").write_text(index)
    refuses(load, folder, "index.json")


@torch.no_grad()
def test_an_id_outside_the_vocabulary_is_named_with_its_place(lm: LanguageModel) -> None:
    x = ids(3, 9)
    x[1, 4], x[2, 0] = CARD, -1
    with pytest.raises(SlmError, match=f"row 1, step 4: the id {CARD} is outside the vocabulary, 0 .. {CARD - 1}"):
        lm(x)
    with pytest.raises(SlmError, match="row 2, step 0: the id -1"):
        lm(x, lengths=torch.tensor([9, 4, 1]))
    for wrong in (x.float(), x[0], x > 3):
        with pytest.raises(SlmError, match="whole numbers"):
            lm(wrong)


@torch.no_grad()
def test_the_state_of_another_model_is_refused(lm: LanguageModel) -> None:
    parts = [
        Transformer.Config(16, 2, 4),
        Mamba2.Config(16, 2, 8),
        RWKV.Config(16, 2),
        Hybrid.Config([RWKV.Config(16, 1), Mamba2.Config(16, 1, 8)]),
    ]
    models = [LanguageModel.Config(CARD, part).build() for part in [*parts, Transformer.Config(32, 2, 8), Transformer.Config(16, 3, 4)]]
    for model in models:
        for other in models:
            if model is not other:
                with pytest.raises(SlmError, match="state is that of another model"):
                    model(ids(2, 3), other.start(2))
        with pytest.raises(SlmError, match="holds 3 rows, but 2 rows"):
            model(ids(2, 3), model.start(3))
        logits, _ = model(ids(2, 3), model(ids(2, 70), model.start(2))[1])
        assert logits.isfinite().all() and logits.shape == (2, 3, CARD)
    with pytest.raises(SlmError, match="another model"):
        lm(ids(2, 3), (1, 2))


def test_an_impossible_language_model_is_refused() -> None:
    with pytest.raises(SlmError, match="must be causal"):
        LanguageModel.Config(5, Transformer.Config(16, 1, 2, causal=False)).build()
    for wrong in (LanguageModel.Config(0), replace(LanguageModel.Config(), grown=(3, 0))):
        with pytest.raises(SlmError, match="at least 1"):
            wrong.build()
