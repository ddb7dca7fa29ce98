"""Backbones: ours beside those of transformers, with the same random weights.

Mamba-2 at the shapes of 130M: one layer over a long input, and the whole model an id at a time. The Transformer, in its Llama form, an
id at a time at two sizes. An id at a time means greedily, from id 0; 50 ids are a second of audio. The limit of a long input is the
speed of products of matrices, that of single ids the speed at which weights are read from memory. What the others need is imported
here alone, and where it is missing the table says so.

B batch, D width, S steps, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from slm.backbone.mamba2 import Mamba2
from slm.backbone.quantize import float16, int8
from slm.backbone.steps import columns, product, steps
from slm.backbone.transformer import Transformer
from slm.bench.run import Contestant, Phase, Race

RATE = 50  # ids a second of audio
FLOAT = 4  # bytes


class LM(nn.Module):
    """A backbone between an embedding and a head."""

    def __init__(self, backbone: Mamba2 | Transformer, vocabulary: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, backbone.dim)
        self.backbone = backbone
        self.head = nn.Linear(backbone.dim, vocabulary, bias=False)


class Steps:
    """A model an id at a time: ids [1] -> logits [1,V]. With `in_place`, there is one state, written again and again (steps.py)."""

    def __init__(self, model: LM, in_place: bool, capacity: int = 64) -> None:
        self.model, backbone = model, model.backbone
        self.step, self.head = steps(backbone) if in_place else None, product(model.head)
        self.state = backbone.start(1, capacity=capacity) if isinstance(backbone, Transformer) else backbone.start(1)

    def __call__(self, ids: Tensor) -> Tensor:
        x = self.model.embed(ids)  # [1,D]
        if self.step is not None:
            return self.head(self.step(x, self.state))
        hidden, self.state = self.model.backbone(x[:, None], self.state)
        return self.head(hidden[:, 0])


def mamba2(small: bool = False) -> list[Race]:
    config = Mamba2.Config(32, 2, headdim=16, d_state=8) if small else Mamba2.Config(768, 24, headdim=64, d_state=128)
    lengths, count = ((70,), 4) if small else ((1024, 2048, 8192), 16)
    return [prefill(config, steps) for steps in lengths] + [mamba2_decode(config, 11 if small else 50_288, count)]


def transformer(small: bool = False) -> list[Race]:
    if small:
        return [llama_decode(Transformer.Config(32, 2, 4), 11, 4)]
    return [llama_decode(Transformer.Config(512, 8, 8), 4096, 32), llama_decode(Transformer.Config(768, 12, 12), 16_384, 32)]


def prefill(config: Mamba2.Config, steps: int) -> Race:
    """One layer and the norm behind it, and the state after them: of the reference, a whole model would take minutes."""
    torch.manual_seed(0)
    ours = replace(config, depth=1).build().eval()
    half, x = copy.deepcopy(ours).bfloat16(), torch.randn(1, steps, config.dim)
    racers = [
        Contestant("slm", lambda: ours(x, ours.start(1))[0]),
        Contestant("slm, bf16", lambda: half(x.bfloat16(), half.start(1))[0].float(), precision="bf16"),
        present("transformers", lambda: reference_prefill(ours, x)),
    ]
    mixer = ours.layers[0].mixer
    weights = mixer.in_proj.weight.numel() + mixer.out_proj.weight.numel()
    recurrence = 4.0 * steps * mixer.inner * config.d_state  # the least that writing and reading the state takes
    work = [Phase(2.0 * steps * weights, weights * FLOAT), Phase(recurrence, 0.0)]
    return Race(f"Mamba-2 130M, one layer, {steps} steps", None, work, racers, near)


def reference_prefill(ours: Mamba2, x: Tensor) -> Callable[[], Tensor]:
    from transformers import Mamba2Model

    theirs = Mamba2Model(reference_config(ours.config, 1, 256)).eval()
    theirs.load_state_dict(ours.state_dict(), strict=False)
    return lambda: theirs(inputs_embeds=x, use_cache=True).last_hidden_state


def reference_config(config: Mamba2.Config, vocabulary: int, chunk: int) -> Any:
    from transformers import Mamba2Config

    return Mamba2Config(
        vocab_size=vocabulary, hidden_size=config.dim, num_hidden_layers=config.depth, head_dim=config.headdim, state_size=config.d_state,
        num_heads=config.expand * config.dim // config.headdim, expand=config.expand, conv_kernel=config.d_conv, n_groups=config.groups,
        chunk_size=chunk, layer_norm_epsilon=1e-5, residual_in_fp32=False, tie_word_embeddings=False,
        bos_token_id=None, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip


def mamba2_decode(config: Mamba2.Config, vocabulary: int, count: int) -> Race:
    torch.manual_seed(0)
    model = LM(config.build(), vocabulary).eval()
    racers = [*our_steps(model, count), present("transformers", lambda: reference_decode(model, count))]
    return Race(f"Mamba-2 130M, its two tables apart, {count} ids", count / RATE, reading(model, count), racers, near)


def reference_decode(model: LM, count: int) -> Callable[[], Tensor]:
    """Its chunks are of 8 steps here, or it would take the one id it begins with for 256."""
    from transformers import Mamba2ForCausalLM

    theirs = Mamba2ForCausalLM(reference_config(model.backbone.config, len(model.embed.weight), 8)).eval()
    theirs.backbone.load_state_dict(model.backbone.state_dict() | {"embeddings.weight": model.embed.weight})
    theirs.lm_head.load_state_dict(model.head.state_dict())
    return generated(theirs, count, None)


def llama_decode(config: Transformer.Config, vocabulary: int, count: int) -> Race:
    torch.manual_seed(0)
    model = LM(config.build(), vocabulary).eval()
    racers = [
        *our_steps(model, count),
        present("transformers, dynamic cache", lambda: llama(model, count, "dynamic")),
        present("transformers, static cache", lambda: llama(model, count, "static")),
    ]
    return Race(f"Transformer {millions(model)}, {count} ids", count / RATE, reading(model, count), racers, near)


def our_steps(model: LM, count: int) -> list[Contestant]:
    """What we have for steps, the fastest in float32 first, and the state that is made anew by `forward`."""
    racers = [
        Contestant("slm", greedily(columns(copy.deepcopy(model)), count, True)),
        Contestant("slm, a new state a step", greedily(model, count, False)),
        Contestant("slm, bf16", greedily(copy.deepcopy(model).bfloat16(), count, True), precision="bf16"),
        Contestant("slm, int8", greedily(int8(copy.deepcopy(model)), count, True), precision="int8"),
    ]
    if "fbgemm" in torch.backends.quantized.supported_engines:
        half = float16(copy.deepcopy(model))
        racers.append(Contestant("slm, weights in fp16", greedily(half, count, True), precision="bf16"))  # as many bytes as bf16
    return racers


def llama(model: LM, count: int, cache: str) -> Callable[[], Tensor]:
    from transformers import LlamaConfig, LlamaForCausalLM

    c, layers = model.backbone.config, model.backbone.layers
    theirs = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(model.embed.weight), hidden_size=c.dim, intermediate_size=layers[0].down.in_features, num_hidden_layers=c.depth,
        num_attention_heads=c.heads, num_key_value_heads=c.kv_heads or c.heads, rms_norm_eps=1e-5, tie_word_embeddings=False,
        bos_token_id=None, eos_token_id=None, pad_token_id=0,
    )).eval()  # fmt: skip
    theirs.model.embed_tokens.weight.copy_(model.embed.weight)
    theirs.model.norm.weight.copy_(model.backbone.norm.weight)
    theirs.lm_head.weight.copy_(model.head.weight)
    for mine, other in zip(layers, theirs.model.layers, strict=True):
        own, mlp = other.self_attn, other.mlp
        copy_rows(mine.attention.qkv.weight, own.q_proj, own.k_proj, own.v_proj)
        copy_rows(mine.gate_up.weight, mlp.gate_proj, mlp.up_proj)
        for weight, layer in ((mine.attention.out.weight, own.o_proj), (mine.down.weight, mlp.down_proj)):
            layer.weight.copy_(weight)
        other.input_layernorm.weight.copy_(mine.norm1.weight)
        other.post_attention_layernorm.weight.copy_(mine.norm2.weight)
    return generated(theirs, count, cache)


def copy_rows(weight: Tensor, *layers: nn.Linear) -> None:
    for rows, layer in zip(weight.split([layer.out_features for layer in layers]), layers):
        layer.weight.copy_(rows)


def generated(model: nn.Module, count: int, cache: str | None) -> Callable[[], Tensor]:
    """Its own loop, not compiled, from id 0 -> logits [count,V]."""
    prompt, asked = torch.zeros(1, 1, dtype=torch.long), {} if cache is None else {"cache_implementation": cache}
    asked |= {"attention_mask": torch.ones_like(prompt), "max_new_tokens": count, "do_sample": False, "disable_compile": True}
    asked |= {"return_dict_in_generate": True, "output_logits": True}
    return lambda: torch.cat(model.generate(prompt, **asked).logits)


def greedily(model: LM, count: int, in_place: bool) -> Callable[[], Tensor]:
    """Each id the likeliest after the one before -> logits [count,V] in float32."""

    def run() -> Tensor:
        said, ids, found = Steps(model, in_place, count), torch.zeros(1, dtype=torch.long), []
        for _ in range(count):
            found.append(said(ids))
            ids = found[-1].argmax(-1)
        return torch.cat(found).float()

    return run


def present(name: str, make: Callable[[], Callable[[], Any]]) -> Contestant:
    """A contestant that is absent because its package is."""
    try:
        return Contestant(name, make())
    except ImportError:
        return Contestant(name, None, "not installed")


def reading(model: LM, count: int) -> list[Phase]:
    """Every weight of a product is read from memory for each id."""
    weights = sum(layer.weight.numel() for layer in model.modules() if isinstance(layer, nn.Linear))
    return [Phase(2.0 * weights, weights * FLOAT, far=True)] * count


def near(ours: Tensor, theirs: Tensor) -> str:
    """[...,S,D]: the largest difference, or its root mean square as a part of ours; ids that fork are compared up to there."""
    if ours.shape != theirs.shape:
        return f"no: shape {list(theirs.shape)}"
    steps, told = len(ours), ""
    if ours.dim() == 2:
        same = (ours.argmax(-1) == theirs.argmax(-1)).long().cumprod(0).sum().item()
        steps, told = min(same + 1, steps), f"{same} of {len(ours)} ids, "
    ours, apart = ours[:steps], (ours - theirs)[:steps]
    away = apart.abs().max().item()
    return told + (f"within {away:.0e}" if away <= 1e-4 else f"error {(apart.norm() / ours.norm()).item():.1%}")


def millions(model: nn.Module) -> str:
    return f"{sum(p.numel() for p in model.parameters()) / 1e6:.0f}M"
