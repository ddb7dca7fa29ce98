"""Reads Mimi's weights from a folder of transformers.

Two things differ from our modules: the names inside the Transformers and the quantiser, and each of the Q codebooks [C,D],
which a file holds as the moving sums of its training: an entry is the sum of what was assigned to it over how much that was.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from slm.errors import SlmError
from slm.reading import Named, Report, fill, read_config, read_safetensors, renamed, require, weights_file
from slm_tokenizers.mimi import Mimi

LEAST = 1e-5  # as published: an entry that nothing was assigned to is divided by this

NAMES = [
    (r"\.self_attn\.([qkv])_proj\.", r".\1."),
    (r"\.self_attn\.o_proj\.", ".out."),
    (r"\.mlp\.fc1\.", ".up."),
    (r"\.mlp\.fc2\.", ".down."),
    (r"\.input_layernorm\.", ".norm1."),
    (r"\.post_attention_layernorm\.", ".norm2."),
    (r"\.self_attn_layer_scale\.scale$", ".scale1"),
    (r"\.mlp_layer_scale\.scale$", ".scale2"),
    (r"^quantizer\.(semantic|acoustic)_residual_vector_quantizer\.", r"quantizer.\1."),
    (r"^(quantizer\.\w+)\.input_proj\.", r"\1.inward."),
    (r"^(quantizer\.\w+)\.output_proj\.", r"\1.outward."),
]
STATISTICS = re.compile(r"quantizer\.\w+\.layers\.\d+\.codebook\.initialized")

# What the published Mimi never varies and our module therefore does not offer.
FIXED = {
    "audio_channels": 1, "num_residual_layers": 1, "kernel_size": 7, "last_kernel_size": 3, "residual_kernel_size": 3,
    "dilation_growth_rate": 2, "compress": 2, "trim_right_ratio": 1.0, "pad_mode": "constant", "use_causal_conv": True,
    "use_conv_shortcut": False, "attention_bias": False, "hidden_act": "gelu",
}  # fmt: skip


@dataclass
class Imported:
    model: Mimi
    report: Report


def mimi_from_transformers(folder: str | Path, strict: bool = True) -> Imported:
    """A folder with config.json and model.safetensors, as `MimiModel.save_pretrained` leaves it.

    SlmError if a file is missing or damaged, or does not fit; with strict=False the report tells what did not.
    """
    folder = Path(folder)
    weights = weights_file(folder)
    model = transformers_config(read_config(folder), folder).build()
    theirs = with_entries(renamed(read_safetensors(weights), NAMES))
    return Imported(model, fill(targets(model), theirs, weights, "Mimi", strict, STATISTICS))


def targets(model: Mimi) -> dict[str, Tensor]:
    """The model's tensors by name, each codebook being a view of one level; they share the storage of the parameters."""
    ours = model.state_dict()
    for part in ("quantizer.semantic", "quantizer.acoustic"):
        ours |= {f"{part}.layers.{q}.codebook.embed": level for q, level in enumerate(ours.pop(f"{part}.books.embed"))}
    return ours


def with_entries(theirs: Named) -> Named:
    """Each embed_sum [C,D] and cluster_usage [C] as the embed that they make; one without the other is left as it is."""
    made = dict(theirs)
    for name, (sum_name, total) in theirs.items():
        stem = name.removesuffix("embed_sum")
        if stem == name or stem + "cluster_usage" not in theirs:
            continue
        usage_name, usage = theirs[stem + "cluster_usage"]
        if usage.shape != total.shape[:1]:
            continue
        del made[stem + "embed_sum"], made[stem + "cluster_usage"]
        made[stem + "embed"] = (f"{sum_name}, {usage_name}", total.float() / usage.float().clamp(min=LEAST)[:, None])
    return made


def transformers_config(config: dict, folder: Path) -> Mimi.Config:
    """Our Config of a transformers config.json; SlmError if a field says what the published Mimi does not."""
    where = f"{folder}/config.json"
    try:
        ours = Mimi.Config(
            rate=int(config.get("sampling_rate", 24_000)),
            n_q=int(config.get("num_quantizers", 32)),
            semantic=int(config.get("num_semantic_quantizers", 1)),
            card=int(config.get("codebook_size", 2048)),
            code_dim=int(config.get("vector_quantization_hidden_dimension", 256)),
            dim=int(config.get("hidden_size", 512)),
            n_filters=int(config.get("num_filters", 64)),
            ratios=tuple(int(ratio) for ratio in config.get("upsampling_ratios") or (8, 6, 5, 4)),
            depth=int(config.get("num_hidden_layers", 8)),
            heads=int(config.get("num_attention_heads", 8)),
            mlp=int(config.get("intermediate_size", 2048)),
            window=int(config.get("sliding_window", 250)),
            eps=float(config.get("norm_eps", 1e-5)),
        )
        ours.squeeze = squeeze(config, ours.rate, math.prod(ours.ratios))
        rope = dict(config.get("rope_parameters") or {})
        ours.base = float(rope.get("rope_theta", config.get("rope_theta", 10_000.0)))
        widths = {"num_key_value_heads": ours.heads, "head_dim": ours.dim // ours.heads}
    except (TypeError, ValueError, ArithmeticError) as error:
        raise SlmError(f"{where}: a field has a value that Mimi cannot have ({error})") from error
    require(config, FIXED | widths | {"codebook_dim": ours.code_dim, "upsample_groups": ours.dim}, where)
    require(rope, {"rope_type": "default"}, where)
    return ours


def squeeze(config: dict, rate: int, hop: int) -> int:
    """Latent frames a code frame. Older files give the frame rate, newer ones leave it out and mean two."""
    frame_rate = config.get("frame_rate") or config.get("_frame_rate")
    return 2 if frame_rate is None else int(math.ceil(rate / hop) / float(frame_rate))
