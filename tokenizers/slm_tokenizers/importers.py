"""Reads EnCodec's weights as others saved them: a state dict of the `encodec` package, or a folder of transformers.

Both become the transformers names first. Two things differ from our modules: weight norm may go by its old names
(weight_g, weight_v), and each of the Q codebooks [C,D] is a tensor of its own, with the statistics of its training beside it.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from slm.errors import SlmError
from slm.reading import (
    Named,
    Report,
    fill,
    read_config,
    read_safetensors,
    read_torch,
    renamed,
    require,
    state_dict,
    weights_file,
)
from slm_tokenizers.encodec import Encodec, stereo_48khz

TH_NAMES = [
    (r"\.model\.", ".layers."),
    (r"\.(conv|convtr)\.\1\.", ".conv."),
    (r"\.(conv|convtr)\.norm\.", ".norm."),
    (r"quantizer\.vq\.layers\.(\d+)\._codebook\.", r"quantizer.layers.\1.codebook."),
]
OLD_WEIGHT_NORM = [(r"\.weight_g$", ".parametrizations.weight.original0"), (r"\.weight_v$", ".parametrizations.weight.original1")]
STATISTICS = re.compile(r"quantizer\.layers\.\d+\.codebook\.(inited|cluster_size|embed_avg)")

# What a published EnCodec never varies and our module therefore does not offer.
FIXED = {
    "num_residual_layers": 1, "num_lstm_layers": 2, "kernel_size": 7, "last_kernel_size": 7, "residual_kernel_size": 3,
    "dilation_growth_rate": 2, "compress": 2, "trim_right_ratio": 1.0, "pad_mode": "reflect",
}  # fmt: skip


@dataclass
class Imported:
    model: Encodec
    report: Report


def encodec_from_th(path: str | Path, config: Encodec.Config | None = None, strict: bool = True) -> Imported:
    """A .th state dict of the `encodec` package.

    The file names no sample rate: unless `config` is given, weight norm means the published 24 kHz model and group norm
    the 48 kHz one, in any width and with any codebooks. Only tensors are read, pickled objects are refused.
    SlmError if the file is something else, or does not fit; with strict=False the report tells what did not.
    """
    return encodec_from_held(read_torch(Path(path)), path, config, strict)


def encodec_from_held(held: object, path: str | Path, config: Encodec.Config | None = None, strict: bool = True) -> Imported:
    """As `encodec_from_th`, of what `read_torch` returned."""
    theirs = renamed(state_dict(held, path), TH_NAMES + OLD_WEIGHT_NORM)
    model = (config or published_config(theirs, path)).build()
    return Imported(model, fill(targets(model), theirs, path, "EnCodec", strict, STATISTICS))


def encodec_from_transformers(folder: str | Path, strict: bool = True) -> Imported:
    """A folder with config.json and model.safetensors, as `EncodecModel.save_pretrained` leaves it. Errors as above."""
    folder = Path(folder)
    weights = weights_file(folder)
    model = transformers_config(read_config(folder), folder).build()
    theirs = renamed(read_safetensors(weights), OLD_WEIGHT_NORM)
    return Imported(model, fill(targets(model), theirs, weights, "EnCodec", strict, STATISTICS))


def targets(model: Encodec) -> dict[str, Tensor]:
    """The model's tensors by name, each codebook being a view of one level; they share the storage of the parameters."""
    ours = model.state_dict()
    embed = ours.pop("quantizer.embed")
    return ours | {f"quantizer.layers.{q}.codebook.embed": level for q, level in enumerate(embed)}


def published_config(theirs: Named, path: str | Path) -> Encodec.Config:
    """Which published model this is, by its norm, with the widths read off the shapes of its tensors."""
    grouped = "encoder.layers.0.norm.weight" in theirs
    first = "encoder.layers.0.conv.weight" if grouped else "encoder.layers.0.conv.parametrizations.weight.original1"
    book = "quantizer.layers.0.codebook.embed"
    if first not in theirs or book not in theirs or theirs[first][1].dim() != 3 or theirs[book][1].dim() != 2:
        raise SlmError(f"{path}: tensors, but not those of an EnCodec saved by the encodec package")
    config = stereo_48khz() if grouped else Encodec.Config()
    config.n_filters, config.channels = theirs[first][1].shape[:2]
    config.card, config.dim = theirs[book][1].shape
    config.n_q = sum(name.endswith(".codebook.embed") for name in theirs)
    return config


def transformers_config(config: dict, folder: Path) -> Encodec.Config:
    """Our Config of a transformers config.json; SlmError if a field says what no published EnCodec does."""
    require(config, FIXED | {"codebook_dim": config.get("hidden_size", 128)}, folder / "config.json")
    try:
        ours = Encodec.Config(
            rate=int(config.get("sampling_rate", 24_000)),
            channels=int(config.get("audio_channels", 1)),
            card=int(config.get("codebook_size", 1024)),
            dim=int(config.get("hidden_size", 128)),
            n_filters=int(config.get("num_filters", 32)),
            ratios=tuple(int(ratio) for ratio in config.get("upsampling_ratios", (8, 5, 4, 2))),
            causal=bool(config.get("use_causal_conv", True)),
            norm=str(config.get("norm_type", "weight_norm")),
            shortcut=bool(config.get("use_conv_shortcut", True)),
            normalize=bool(config.get("normalize", False)),
            chunk_seconds=None if config.get("chunk_length_s") is None else float(config["chunk_length_s"]),
            overlap=0.01 if config.get("overlap") is None else float(config["overlap"]),
            bandwidths=tuple(float(kbps) for kbps in config.get("target_bandwidths", (1.5, 3.0, 6.0, 12.0, 24.0))),
        )
        ours.n_q = ours.levels_of(ours.bandwidths[-1])  # transformers takes the last, not the largest
    except (TypeError, ValueError, LookupError, ArithmeticError) as error:
        raise SlmError(f"{folder}/config.json: a field has a value that EnCodec cannot have ({error})") from error
    return ours
