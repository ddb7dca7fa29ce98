"""Reads self-supervised encoders from folders of transformers: wav2vec 2.0, HuBERT and w2v-BERT 2.0.

Our modules have the names of transformers, except that a model with a head has its encoder behind a prefix, and that weight
norm may go by its old names (weight_g, weight_v). Heads are left over, but for that of wav2vec 2.0's pre-training.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from slm.errors import SlmError
from slm.reading import Report, fill, read_config, read_safetensors, renamed, require, weights_file
from slm_tokenizers.semantic.conformer import Conformer
from slm_tokenizers.semantic.contrastive import Contrastive
from slm_tokenizers.semantic.encoder import SpeechEncoder
from slm_tokenizers.semantic.gumbel import GumbelQuantizer

WEIGHT_NORM = [(r"\.weight_g$", ".parametrizations.weight.original0"), (r"\.weight_v$", ".parametrizations.weight.original1")]
KINDS = ("wav2vec2", "hubert", "wav2vec2-bert")  # model_type
PREFIX = [(r"^(wav2vec2|hubert|wav2vec2_bert)\.", "")]
HEADS = re.compile(r"(lm_head|quantizer|project_hid|project_q|classifier|projector|layer_weights|tdnn|feature_extractor\.2|objective)\b.*")

# What published models never vary and our modules therefore do not offer.
FIXED = {
    "hidden_act": "gelu", "feat_extract_activation": "gelu", "layer_norm_eps": 1e-5, "add_adapter": False,
    "conv_pos_batch_norm": False, "adapter_attn_dim": None,
}  # fmt: skip
FIXED_BERT = {
    "hidden_act": "swish", "layer_norm_eps": 1e-5, "add_adapter": False, "position_embeddings_type": "relative_key",
    "use_intermediate_ffn_before_adapter": False,
}  # fmt: skip


@dataclass
class Imported:
    model: nn.Module
    report: Report


def encoder_from_transformers(folder: str | Path, strict: bool = True) -> Imported:
    """A folder with config.json and model.safetensors, as `save_pretrained` leaves it, with or without a head.

    SlmError if it is something else, or does not fit; with strict=False the report tells what did not.
    """
    folder = Path(folder)
    model = encoder_config(read_config(folder), folder).build().eval()
    weights = weights_file(folder)
    theirs = renamed(read_safetensors(weights), PREFIX + WEIGHT_NORM)
    return Imported(model, fill(model.state_dict(), theirs, weights, "encoder", strict, HEADS))


def contrastive_from_transformers(folder: str | Path, strict: bool = True) -> Imported:
    """The folder of a Wav2Vec2ForPreTraining, with all that its training needs. Errors as above."""
    folder = Path(folder)
    config = read_config(folder)
    model = contrastive_config(config, folder).build().eval()
    weights = weights_file(folder)
    theirs = renamed(read_safetensors(weights), [(r"^wav2vec2\.", "encoder."), *WEIGHT_NORM])
    ours = {name: tensor for name, tensor in model.state_dict().items() if name != "updates"}
    return Imported(model, fill(ours, theirs, weights, "wav2vec 2.0", strict))


def encoder_config(config: dict, folder: Path) -> SpeechEncoder.Config | Conformer.Config:
    kind = config.get("model_type")
    if kind not in KINDS:
        raise SlmError(f"{folder}/config.json: model_type is {kind!r} but must be wav2vec2, hubert or wav2vec2-bert")
    try:
        return conformer_config(config, folder) if kind == "wav2vec2-bert" else speech_config(config, folder)
    except (TypeError, ValueError, LookupError) as error:
        raise SlmError(f"{folder}/config.json: a field has a value that no {kind} can have ({error})") from error


def speech_config(config: dict, folder: Path) -> SpeechEncoder.Config:
    require(config, FIXED, f"{folder}/config.json")
    norm = str(config.get("feat_extract_norm", "group"))
    return SpeechEncoder.Config(
        widths=whole(config, "conv_dim", (512,) * 7),
        kernels=whole(config, "conv_kernel", (10, 3, 3, 3, 3, 2, 2)),
        strides=whole(config, "conv_stride", (5, 2, 2, 2, 2, 2, 2)),
        bias=bool(config.get("conv_bias", False)),
        norm=norm,
        project_norm=bool(config.get("feat_proj_layer_norm", True)),
        normalize=normalized(folder, norm == "layer"),
        dim=int(config.get("hidden_size", 768)),
        depth=int(config.get("num_hidden_layers", 12)),
        heads=int(config.get("num_attention_heads", 12)),
        hidden=int(config.get("intermediate_size", 3072)),
        pre_norm=bool(config.get("do_stable_layer_norm", False)),
        positions=int(config.get("num_conv_pos_embeddings", 128)),
        groups=int(config.get("num_conv_pos_embedding_groups", 16)),
        maskable=maskable(config),
        dropout=float(config.get("hidden_dropout", 0.1)),
        layerdrop=float(config.get("layerdrop", 0.1)),
    )


def conformer_config(config: dict, folder: Path) -> Conformer.Config:
    require(config, FIXED_BERT, f"{folder}/config.json")
    width = int(config.get("feature_projection_input_dim", 160))
    if width % 2:
        raise SlmError(f"{folder}/config.json: feature_projection_input_dim is {width} but must be two frames of mel bands")
    return Conformer.Config(
        mels=width // 2,
        dim=int(config.get("hidden_size", 1024)),
        depth=int(config.get("num_hidden_layers", 24)),
        heads=int(config.get("num_attention_heads", 16)),
        hidden=int(config.get("intermediate_size", 4096)),
        kernel=int(config.get("conv_depthwise_kernel_size", 31)),
        left=int(config.get("left_max_position_embeddings", 64)),
        right=int(config.get("right_max_position_embeddings", 8)),
        maskable=maskable(config),
        dropout=float(config.get("hidden_dropout", 0.0)),
        layerdrop=float(config.get("layerdrop", 0.1)),
    )


def contrastive_config(config: dict, folder: Path) -> Contrastive.Config:
    encoder = encoder_config(config, folder)
    if not isinstance(encoder, SpeechEncoder.Config):
        raise SlmError(f"{folder}/config.json: model_type is {config['model_type']!r} but wav2vec2 is needed here")
    try:
        quantizer = GumbelQuantizer.Config(
            groups=int(config.get("num_codevector_groups", 2)),
            card=int(config.get("num_codevectors_per_group", 320)),
            dim=int(config.get("codevector_dim", 256)),
        )
        return Contrastive.Config(
            encoder,
            quantizer,
            dim=int(config.get("proj_codevector_dim", 256)),
            negatives=int(config.get("num_negatives", 100)),
            temperature=float(config.get("contrastive_logits_temperature", 0.1)),
            diversity=float(config.get("diversity_loss_weight", 0.1)),
        )
    except (TypeError, ValueError) as error:
        raise SlmError(f"{folder}/config.json: a field has a value that no wav2vec2 can have ({error})") from error


def whole(config: dict, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(n) for n in config.get(key, default))


def maskable(config: dict) -> bool:
    """transformers leaves the vector of hidden frames out of models that it would never mask."""
    return float(config.get("mask_time_prob", 0.05)) > 0 or float(config.get("mask_feature_prob", 0.0)) > 0


def normalized(folder: Path, default: bool) -> bool:
    """Whether the model wants recordings of mean 0 and variance 1: its preprocessor says, or else its kind does."""
    import json

    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return default
    try:
        return bool(json.loads(file.read_text(encoding="utf-8")).get("do_normalize", True))
    except (OSError, ValueError, AttributeError) as error:
        raise SlmError(f"{file}: not readable as a JSON object ({' '.join(str(error).split())})") from error
