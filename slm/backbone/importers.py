"""What transformers calls the parts of a language model, and what its config.json says of them.

Mamba-2 and RWKV differ from our modules in the names at the top only. Of the Llama family, queries, keys and values are three
layers there and one here, and so are the two upper layers of the perceptron: a name of theirs means some rows of ours.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from slm.backbone.language_model import LanguageModel
from slm.backbone.mamba2 import Mamba2
from slm.backbone.rwkv import RWKV
from slm.backbone.transformer import Transformer
from slm.errors import SlmError
from slm.nn.rope import Stretch
from slm.reading import Named, require

TOP = [
    (r"^(embed_tokens|embeddings)\.", "tables.0.embed."),
    (r"^(lm_head|head)\.", "tables.0.head."),
    (r"^(layers|norm|norm_f)\.", r"backbone.\1."),
]
LLAMA = [
    (r"^model\.", ""),
    *TOP,
    (r"\.self_attn\.", ".attention."),
    (r"\.([qkv])_proj\.", r".\1."),
    (r"\.o_proj\.", ".out."),
    (r"\.mlp\.(gate|up|down)_proj\.", r".\1."),
    (r"\.input_layernorm\.", ".norm1."),
    (r"\.post_attention_layernorm\.", ".norm2."),
]
NAMES = {
    "llama": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "mamba2": [(r"^backbone\.", ""), *TOP],
    "rwkv": [(r"^rwkv\.", ""), (r"^blocks\.", "layers."), (r"^ln_out\.", "norm."), *TOP],
}
UNUSED = re.compile(r".*\.rotary_emb\.inv_freq")  # in old files; a matter of the config

# What our modules do not vary, by model_type.
FIXED_LLAMA = {
    "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "use_sliding_window": False, "partial_rotary_factor": 1.0,
}  # fmt: skip
FIXED_MAMBA2 = {
    "hidden_act": "silu", "use_bias": False, "use_conv_bias": True, "layer_norm_epsilon": 1e-5, "rms_norm": True,
    "norm_before_gate": False,
}  # fmt: skip
FIXED_RWKV = {"layer_norm_epsilon": 1e-5}


def targets(model: LanguageModel) -> dict[str, Tensor]:
    """The model's tensors by name, each part of a joined layer by its own; they share the storage of the parameters."""
    ours = model.state_dict()
    if not isinstance(model.backbone, Transformer):
        return ours
    for i, layer in enumerate(model.backbone.layers):
        stem, a = f"backbone.layers.{i}.", layer.attention
        rows = [a.heads * a.head_dim, a.kv_heads * a.head_dim, a.kv_heads * a.head_dim]
        for kind in ("weight", "bias") if a.qkv.bias is not None else ("weight",):
            joined = ours.pop(f"{stem}attention.qkv.{kind}").split(rows)
            ours |= {f"{stem}attention.{part}.{kind}": tensor for part, tensor in zip("qkv", joined, strict=True)}
        ours[f"{stem}gate.weight"], ours[f"{stem}up.weight"] = ours.pop(f"{stem}gate_up.weight").chunk(2)
    return ours


def described(config: dict, theirs: Named, folder: Path) -> LanguageModel.Config:
    """Our Config of a config.json of a kind in NAMES. SlmError if a field is missing, or says what our modules cannot do."""
    where = f"{folder}/config.json"
    parts = {"mamba2": mamba2, "rwkv": rwkv}
    backbone = parts.get(config["model_type"], llama)(config, where)
    return LanguageModel.Config(size(config, "vocab_size", where), backbone, tied(config, theirs, where))


def tied(config: dict, theirs: Named, where: str) -> bool:
    """Whether scores are taken with the embedding: as the config says, or else if the file holds no head."""
    embed, head = theirs.get("tables.0.embed.weight"), theirs.get("tables.0.head.weight")
    said = config.get("tie_word_embeddings")
    if said not in (None, True, False):
        raise SlmError(f"{where}: tie_word_embeddings is {said!r} but must be true or false")
    if said and embed and head:
        if not embed[1].equal(head[1]):
            raise SlmError(f"{where}: tie_word_embeddings is true, but {head[0]} and {embed[0]} differ")
        del theirs["tables.0.head.weight"]  # older files hold both
    return head is None if said is None else said


def llama(config: dict, where: str) -> Transformer.Config:
    """Llama (Touvron et al., 2023), or Qwen2 and Qwen3 (Yang et al., 2024, 2025), which are Llama with biases and with norms."""
    require(config, FIXED_LLAMA, where)
    layers = config.get("layer_types")
    if layers is not None and (not isinstance(layers, list) or any(kind != "full_attention" for kind in layers)):
        raise SlmError(f"{where}: layer_types is {layers!r} but only 'full_attention' is supported")
    dim, heads = size(config, "hidden_size", where), size(config, "num_attention_heads", where)
    base, stretch = rope(config, where)
    return Transformer.Config(
        dim=dim,
        depth=size(config, "num_hidden_layers", where),
        heads=heads,
        kv_heads=size(config, "num_key_value_heads", where, heads),
        mlp=size(config, "intermediate_size", where),
        head_dim=size(config, "head_dim", where, 128 if config["model_type"] == "qwen3" else dim // heads),
        base=base,
        stretch=stretch,
        qkv_bias=config["model_type"] == "qwen2",
        qk_norm=config["model_type"] == "qwen3",
        eps=number(config, "rms_norm_eps", where, 1e-6),
    )


def rope(config: dict, where: str) -> tuple[float, Stretch | None]:
    """The base of rotary positions, and how they are stretched; newer files keep both in one object."""
    said = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(said, dict):
        raise SlmError(f"{where}: rope_parameters is {said!r} but must be an object")
    base = number(said, "rope_theta", where, number(config, "rope_theta", where, 10_000.0))
    kind = said.get("rope_type", said.get("type", "default"))
    require(said, {"partial_rotary_factor": 1.0}, where)
    if kind == "default":
        return base, None
    if kind != "llama3":
        raise SlmError(f"{where}: rope_type is {kind!r} but only 'default' and 'llama3' are supported")
    trained = size(said, "original_max_position_embeddings", where, config.get("max_position_embeddings"))
    low, high = number(said, "low_freq_factor", where), number(said, "high_freq_factor", where)
    if low >= high:
        raise SlmError(f"{where}: low_freq_factor is {low} but must be less than high_freq_factor, {high}")
    return base, Stretch(number(said, "factor", where), low, high, trained)


def mamba2(config: dict, where: str) -> Mamba2.Config:
    require(config, FIXED_MAMBA2, where)
    limit = config.get("time_step_limit")
    if limit not in (None, [0.0, float("inf")], [0.0, {"__float__": "Infinity"}]):  # older files, newer ones
        raise SlmError(f"{where}: time_step_limit is {limit!r} but only [0.0, Infinity] is supported")
    dim, headdim, expand = size(config, "hidden_size", where), size(config, "head_dim", where), size(config, "expand", where, 2)
    heads = size(config, "num_heads", where)
    if heads * headdim != expand * dim:
        raise SlmError(f"{where}: num_heads is {heads} but must be expand * hidden_size / head_dim = {expand * dim / headdim}")
    return Mamba2.Config(
        dim=dim,
        depth=size(config, "num_hidden_layers", where),
        headdim=headdim,
        d_state=size(config, "state_size", where),
        expand=expand,
        groups=size(config, "n_groups", where, 8),
        d_conv=size(config, "conv_kernel", where, 4),
    )


def rwkv(config: dict, where: str) -> RWKV.Config:
    """RWKV-4. transformers halves weights in place when it evaluates: what it saves after that is another model, there as here."""
    dim = size(config, "hidden_size", where)
    require(config, FIXED_RWKV | {"attention_hidden_size": dim}, where)
    return RWKV.Config(dim, size(config, "num_hidden_layers", where), size(config, "intermediate_size", where, 4 * dim))


def size(config: dict, key: str, where: str, default: Any = None) -> int:
    """A field that counts something; `default` where it is absent or null."""
    value = default if config.get(key) is None else config[key]
    if type(value) is not int or value < 1:
        raise SlmError(f"{where}: {key} is {value!r} but must be a whole number of at least 1")
    return value


def number(config: dict, key: str, where: str, default: Any = None) -> float:
    """A positive field; `default` where it is absent or null."""
    value = default if config.get(key) is None else config[key]
    if type(value) not in (int, float) or not 0 < value < float("inf"):
        raise SlmError(f"{where}: {key} is {value!r} but must be a positive number")
    return float(value)
