"""The Transformer's options: the numbers of Llama, GPT-2 (with a memory), BERT and Bloom in transformers; prefixes, windows, caches.

B batch   S steps   D width   M steps of a memory
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from slm.backbone.state import batch, load, save, unbatch
from slm.backbone.transformer import Transformer
from slm.errors import SlmError

DIM, HEADS = 32, 4


def lively(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for name, parameter in module.named_parameters():
        nn.init.normal_(parameter, mean=float("norm" in name.lower() or "ln_" in name) * name.endswith("weight"), std=0.3)
    return module.eval()


def close(a: Tensor, b: Tensor, atol: float = 1e-4) -> None:
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


def in_chunks(model: nn.Module, state: object, x: Tensor, chunk: int) -> Tensor:
    pieces = []
    for piece in x.split(chunk, 1):
        y, state = model(piece, state)
        pieces.append(y)
    return torch.cat(pieces, 1)


def llama() -> tuple[nn.Module, Transformer]:
    from transformers import LlamaConfig, LlamaModel

    sizes = {"hidden_size": DIM, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": HEADS, "num_key_value_heads": 2}
    reference = lively(LlamaModel(LlamaConfig(vocab_size=11, rms_norm_eps=1e-5, **sizes)))
    ours, weights = Transformer.Config(DIM, 2, HEADS, kv_heads=2, mlp=64).build().eval(), {}
    for i, b in enumerate(reference.layers):
        attention, mlp = b.self_attn, b.mlp
        weights |= {f"layers.{i}.{name}": weight for name, weight in {
            "norm1.weight": b.input_layernorm.weight,
            "norm2.weight": b.post_attention_layernorm.weight,
            "attention.qkv.weight": torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]),
            "attention.out.weight": attention.o_proj.weight,
            "gate_up.weight": torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]),
            "down.weight": mlp.down_proj.weight,
        }.items()}  # fmt: skip
    ours.load_state_dict(weights | {"norm.weight": reference.norm.weight})
    return reference, ours


def gpt2(memory: bool = False) -> tuple[nn.Module, Transformer]:
    from transformers import GPT2Config, GPT2Model

    config = GPT2Config(n_positions=50, n_embd=DIM, n_layer=2, n_head=HEADS, add_cross_attention=memory, vocab_size=11)
    reference = lively(GPT2Model(config))
    ours = Transformer.Config(DIM, 2, HEADS, form="gpt2", positions="learned", longest=50, memory=DIM * memory).build().eval()
    names = {
        "ln_1": "norm1", "ln_2": "norm2", "ln_cross_attn": "norm3", "attn.c_attn": "attention.qkv", "attn.c_proj": "attention.out",
        "crossattention.q_attn": "cross.q", "crossattention.c_attn": "cross.kv", "crossattention.c_proj": "cross.out",
        "mlp.c_fc": "up", "mlp.c_proj": "down",
    }  # fmt: skip
    weights = {"positions.table.weight": reference.wpe.weight}
    for name, weight in reference.state_dict().items():
        if name.startswith("ln_f"):
            weights[name.replace("ln_f", "norm")] = weight
        elif name.startswith("h."):
            _, layer, rest = name.split(".", 2)
            part, leaf = rest.rsplit(".", 1)
            weights[f"layers.{layer}.{names[part]}.{leaf}"] = weight.t() if weight.dim() == 2 else weight
    ours.load_state_dict(weights)
    return reference, ours


@torch.no_grad()
@pytest.mark.parametrize("chunk", [1, 7, 45])
def test_transformer_is_the_reference_llama(chunk: int) -> None:
    reference, ours = llama()
    x = torch.randn(2, 45, DIM)
    want = reference(inputs_embeds=x).last_hidden_state
    close(ours(x)[0], want)
    close(in_chunks(ours, ours.start(2), x, chunk), want)


@torch.no_grad()
@pytest.mark.parametrize("chunk", [1, 7, 45])
def test_transformer_is_the_reference_gpt2(chunk: int) -> None:
    reference, ours = gpt2()
    x = torch.randn(2, 45, DIM)
    want = reference(inputs_embeds=x).last_hidden_state
    close(ours(x)[0], want)
    close(in_chunks(ours, ours.start(2), x, chunk), want)


@torch.no_grad()
@pytest.mark.parametrize("chunk", [1, 7, 45])
def test_a_transformer_with_a_memory_is_the_reference_gpt2(chunk: int) -> None:
    reference, ours = gpt2(memory=True)
    x, memory, lengths = torch.randn(2, 45, DIM), torch.randn(2, 13, DIM), torch.tensor([13, 6])
    mask = (torch.arange(13) < lengths[:, None]).long()
    want = reference(inputs_embeds=x, encoder_hidden_states=memory, encoder_attention_mask=mask).last_hidden_state
    memory[1, 6:] = 100  # loud padding: a leak cannot hide
    close(ours(x, memory=memory, memory_lengths=lengths)[0], want)
    close(in_chunks(ours, ours.start(2, memory=memory, memory_lengths=lengths), x, chunk), want)


@torch.no_grad()
def test_a_bidirectional_transformer_is_the_reference_bert() -> None:
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": DIM, "num_hidden_layers": 2, "num_attention_heads": HEADS, "intermediate_size": 48}
    reference = lively(BertModel(BertConfig(vocab_size=11, max_position_embeddings=40, **sizes), add_pooling_layer=False))
    ours = Transformer.Config(DIM, 2, HEADS, mlp=48, causal=False, form="bert", positions="learned", longest=40).build().eval()
    embeddings, weights = reference.embeddings, {}
    for i, b in enumerate(reference.encoder.layer):
        own = b.attention.self
        for leaf in ("weight", "bias"):
            weights |= {f"layers.{i}.{name}.{leaf}": getattr(layer, leaf) for name, layer in {
                "norm1": b.attention.output.LayerNorm, "norm2": b.output.LayerNorm, "attention.out": b.attention.output.dense,
                "up": b.intermediate.dense, "down": b.output.dense}.items()}  # fmt: skip
            weights[f"layers.{i}.attention.qkv.{leaf}"] = torch.cat([getattr(part, leaf) for part in (own.query, own.key, own.value)])
            weights[f"norm.{leaf}"] = getattr(embeddings.LayerNorm, leaf)
    ours.load_state_dict(weights | {"positions.table.weight": embeddings.position_embeddings.weight})
    x, lengths = torch.randn(2, 33, DIM), torch.tensor([33, 12])
    want = reference(inputs_embeds=x, attention_mask=(torch.arange(33) < lengths[:, None]).long()).last_hidden_state
    y, _ = ours(x + embeddings.token_type_embeddings.weight[0], lengths=lengths)
    close(y[0], want[0])
    close(y[1, :12], want[1, :12])


@torch.no_grad()
@pytest.mark.parametrize("heads", [4, 6])
def test_a_transformer_with_alibi_is_the_reference_bloom(heads: int) -> None:
    from transformers import BloomConfig, BloomModel

    dim = 8 * heads
    reference = lively(BloomModel(BloomConfig(vocab_size=11, hidden_size=dim, n_layer=2, n_head=heads)))
    ours = Transformer.Config(dim, 2, heads, form="gpt2", positions="alibi").build().eval()
    names = {"input_layernorm": "norm1", "post_attention_layernorm": "norm2", "self_attention.query_key_value": "attention.qkv",
             "self_attention.dense": "attention.out", "mlp.dense_h_to_4h": "up", "mlp.dense_4h_to_h": "down"}  # fmt: skip
    weights = {}
    for name, weight in reference.state_dict().items():
        if name.startswith("ln_f"):
            weights[name.replace("ln_f", "norm")] = weight
        elif name.startswith("h."):
            _, layer, rest = name.split(".", 2)
            part, leaf = rest.rsplit(".", 1)
            if part.endswith("query_key_value"):  # theirs are head by head
                weight = weight.unflatten(0, (heads, 3, 8)).transpose(0, 1).flatten(0, 2)
            weights[f"layers.{layer}.{names[part]}.{leaf}"] = weight
    ours.load_state_dict(weights)
    x = torch.randn(2, 45, dim)
    want = reference(inputs_embeds=x).last_hidden_state
    x = reference.word_embeddings_layernorm(x)
    close(ours(x)[0], want)
    close(in_chunks(ours, ours.start(2), x, 7), want)
    close(in_chunks(ours, ours.start(2), x, 1), want)


@torch.no_grad()
@pytest.mark.parametrize("positions", ["rope", "alibi", "relative"])
def test_a_bidirectional_transformer_sees_both_ways_and_no_padding(positions: str) -> None:
    model = lively(Transformer.Config(DIM, 2, HEADS, causal=False, positions=positions).build())
    x, lengths = torch.randn(2, 30, DIM), torch.tensor([30, 12])
    y, state = model(x, lengths=lengths)
    close(y[1, :12], model(x[1:, :12])[0][0])
    assert state is None and y.isfinite().all()
    changed = x.clone()
    changed[:, -1] += 1
    assert (model(changed)[0][:, 0] - model(x)[0][:, 0]).abs().max() > 1e-3
    with pytest.raises(SlmError, match="future"):
        model.start(1)


@pytest.mark.parametrize("positions, window", [("rope", None), ("rope", 5), ("relative", None)])
def test_a_bidirectional_transformer_keeps_packed_documents_apart(positions: str, window: int | None) -> None:
    model = lively(Transformer.Config(DIM, 2, HEADS, causal=False, positions=positions, window=window).build())
    documents = torch.tensor([7] * 5 + [2] + [3] * 34 + [7] * 35).expand(2, -1)
    x = torch.randn(2, 75, DIM, requires_grad=True)
    y, _ = model(x, documents=documents, lengths=torch.tensor([75, 30]))  # a document that is padding and nothing else
    close(y[0, 40:75], model(x[:1, 40:75])[0][0])
    close(y[1, 6:30], model(x[1:, 6:30])[0][0])
    assert y.isfinite().all() and torch.autograd.grad(y.sum(), x)[0].isfinite().all()


@torch.no_grad()
def test_a_condition_starts_silent_and_may_change_by_the_step() -> None:
    torch.manual_seed(0)
    plain = Transformer.Config(DIM, 2, HEADS).build()
    model = Transformer.Config(DIM, 2, HEADS, adaptive=6).build()
    model.load_state_dict(plain.state_dict(), strict=False)
    x, cond = torch.randn(2, 9, DIM), torch.randn(2, 6)
    close(model(x, cond=cond)[0], plain(x)[0], atol=1e-6)
    lively(model)
    y, _ = model(x, cond=cond)
    close(y, model(x, cond=cond[:, None].expand(-1, 9, -1))[0])
    assert (y - model(x, cond=cond.flip(0))[0]).abs().max() > 1e-2
    with pytest.raises(SlmError, match="conditioning"):
        model(x)


@pytest.mark.parametrize("positions", ["rope", "alibi"])
def test_a_prefix_sees_itself_both_ways_and_nothing_else_changes(positions: str) -> None:
    model = lively(Transformer.Config(DIM, 1, HEADS, positions=positions).build())
    x, prefix = torch.randn(3, 12, DIM, requires_grad=True), torch.tensor([0, 5, 12])
    y, _ = model(x, prefix=prefix)
    for t in range(12):
        (grad,) = torch.autograd.grad((y[:, t] * torch.randn(3, DIM)).sum(), x, retain_graph=True)
        seen = (grad.abs().amax(-1) > 0).long()
        assert torch.equal(seen, (torch.arange(12) <= torch.where(t < prefix, prefix - 1, t)[:, None]).long())
    both_ways = Transformer.Config(DIM, 1, HEADS, causal=False, positions=positions).build().eval()
    both_ways.load_state_dict(model.state_dict())
    close(y[0], model(x)[0][0])
    close(y[2], both_ways(x)[0][2])


@torch.no_grad()
def test_a_prefix_in_the_first_call_of_a_ragged_state_is_the_prefix_at_once() -> None:
    model = lively(Transformer.Config(DIM, 2, HEADS).build())
    x, lengths, prefix = torch.randn(2, 30, DIM), torch.tensor([20, 11]), torch.tensor([9, 11])
    first, state = model(x[:, :20], model.start(2), lengths=lengths, prefix=prefix)
    second, _ = model(x[:, 20:], state)
    for row, (n, p) in enumerate(zip(lengths.tolist(), prefix)):
        whole = torch.cat([x[row, :n], x[row, 20:]])
        close(torch.cat([first[row, :n], second[row]]), model(whole[None], prefix=p[None])[0][0])
    with pytest.raises(SlmError, match="first call"):
        model(x, state, prefix=prefix)
    with pytest.raises(SlmError, match="prefix"):
        model(x, documents=torch.zeros(2, 30).long(), prefix=prefix)


@torch.no_grad()
def test_a_window_as_long_as_the_row_is_no_window() -> None:
    model = lively(Transformer.Config(DIM, 2, HEADS).build())
    narrow = lively(Transformer.Config(DIM, 2, HEADS, window=20).build())
    x = torch.randn(2, 25, DIM)
    close(narrow(x[:, :20])[0], model(x[:, :20])[0])
    assert (narrow(x)[0] - model(x)[0])[:, 20:].abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("capacity", [1, 40])
def test_room_made_in_advance_changes_no_bit_and_is_kept(capacity: int) -> None:
    model = lively(Transformer.Config(DIM, 2, HEADS, kv_heads=2).build())
    x, usual = torch.randn(2, 33, DIM), model.start(2)
    state = model.start(2, capacity=capacity)
    room = state.keys[0].data_ptr()
    for piece in x.split([9, 1, 1, 20, 1, 1], 1):
        y, state = model(piece, state)
        want, usual = model(piece, usual)
        assert torch.equal(y, want)
    assert (state.keys[0].data_ptr() == room) == (capacity >= 33)


@torch.no_grad()
def test_a_memory_is_kept_once_and_its_padding_is_silent(tmp_path: Path) -> None:
    model = lively(Transformer.Config(DIM, 2, HEADS, kv_heads=2, memory=6).build())
    x, memory, lengths = torch.randn(3, 8, DIM), torch.randn(3, 10, 6), torch.tensor([10, 4, 0])
    state = model.start(3, memory=memory, memory_lengths=lengths)
    kept = state.memory
    y, state = model(x[:, :5], state)
    assert state.memory is kept
    save(state, tmp_path / "state.safetensors")
    states = unbatch(load(tmp_path / "state.safetensors", model.start(1, memory=memory[:1])))
    _, alone = model(x[1:2, :3], model.start(1, memory=memory[1:2, :4]))  # another length of memory, and of steps seen
    z, _ = model(torch.cat([x[:, 5:], x[1:2, 3:6]]), batch([*states, alone]))
    for row, n in enumerate((10, 4)):
        want, _ = model(x[row : row + 1], memory=memory[row : row + 1, :n])
        close(torch.cat([y[row], z[row]]), want[0])
    close(z[3], model(x[1:2], memory=memory[1:2, :4])[0][0, 3:6])
    silent, other = (model(x[2:], memory=m, memory_lengths=torch.tensor([0]))[0] for m in (memory[2:], memory[:1]))
    assert torch.equal(silent, other)
    for call in (lambda: model(x), lambda: model.start(3), lambda: model(x, state, memory=memory)):
        with pytest.raises(SlmError, match="memory"):
            call()


@pytest.mark.parametrize("wrong", [{"window": 0}, {"heads": 3}, {"kv_heads": 3}, {"form": "bert", "adaptive": 4}])
def test_an_impossible_transformer_is_refused(wrong: dict) -> None:
    with pytest.raises(SlmError):
        Transformer.Config(**{"dim": DIM, "heads": HEADS, **wrong}).build()


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_torch_s_own_attention_has_the_same_gradients_through_a_cache(kv_heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lively(Transformer.Config(DIM, 2, HEADS, kv_heads=kv_heads).build())
    x, weight = torch.randn(2, 20, DIM, requires_grad=True), torch.randn(2, 20, DIM)
    want = torch.autograd.grad((model(x)[0] * weight).sum(), [x, *model.parameters()])
    monkeypatch.setattr("slm.nn.attention.LARGEST", 0)  # it keeps the cache's buffers for its gradients, where products keep copies
    got = torch.autograd.grad((in_chunks(model, model.start(2), x, 7) * weight).sum(), [x, *model.parameters()])
    for a, b in zip(got, want, strict=True):
        close(a, b, atol=1e-4 * b.abs().max().item())
