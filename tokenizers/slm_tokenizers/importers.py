"""Reads EnCodec's weights as others saved them: a state dict of the `encodec` package, or a folder of transformers.

Both become the transformers names first. Two things differ from our modules: weight norm may go by its old names
(weight_g, weight_v), and each of the Q codebooks [C,D] is a tensor of its own, with the statistics of its training beside it.
"""

import json
import pickle
import re
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from slm.errors import SlmError
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
class Report:
    """What became of each tensor. Names are the model's, with quantizer.layers.Q.codebook.embed for level Q of the codebooks."""

    mapped: dict[str, str] = field(default_factory=dict)  # name -> name in the file
    unused: list[str] = field(default_factory=list)  # in the file, needed only to go on training the codebooks
    missing: list[str] = field(default_factory=list)  # in the model, not in the file
    unexpected: list[str] = field(default_factory=list)  # in the file, not in the model; named as in the file
    reshaped: dict[str, tuple[list[int], list[int]]] = field(default_factory=dict)  # name -> shape in the file, shape needed; not loaded

    @property
    def complete(self) -> bool:
        return not (self.missing or self.unexpected or self.reshaped)

    def __str__(self) -> str:
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": list(self.reshaped)}
        return ", ".join(f"{len(names)} {kind} (such as {names[0]})" for kind, names in kinds.items() if names) or "all fit"


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
    theirs = {rename(name, TH_NAMES + OLD_WEIGHT_NORM): (name, tensor) for name, tensor in read_th(Path(path)).items()}
    model = (config or published_config(theirs, path)).build()
    return Imported(model, fill(model, theirs, path, strict))


def encodec_from_transformers(folder: str | Path, strict: bool = True) -> Imported:
    """A folder with config.json and model.safetensors, as `EncodecModel.save_pretrained` leaves it. Errors as above."""
    folder = Path(folder)
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise SlmError(f"{folder}: model.safetensors is missing (pickled weights such as pytorch_model.bin are not read)")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = transformers_config(config, folder).build()
    theirs = {rename(name, OLD_WEIGHT_NORM): (name, tensor) for name, tensor in read_safetensors(weights).items()}
    return Imported(model, fill(model, theirs, weights, strict))


def read_th(path: Path) -> dict[str, Tensor]:
    """The tensors of a torch file by name, on the CPU; SlmError if it is damaged or holds anything but tensors."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise SlmError(f"{path}: not a file of tensors that torch can read (damaged, another format, or pickled objects)") from error
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise SlmError(f"{path}: a state dict of tensors is needed, this holds something else")
    return {str(name): tensor for name, tensor in state.items()}


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, on the CPU; SlmError if it is truncated or not one."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise SlmError(f"{path}: not a whole safetensors file ({error})") from error


def rename(name: str, rules: list[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def published_config(theirs: dict[str, tuple[str, Tensor]], path: str | Path) -> Encodec.Config:
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
    fixed = FIXED | {"codebook_dim": config.get("hidden_size", 128)}
    for key, value in fixed.items():
        if config.get(key, value) not in (value, None):
            raise SlmError(f"{folder}/config.json: {key} is {config[key]!r} but only {value!r} is supported")
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


@torch.no_grad()
def fill(model: Encodec, theirs: dict[str, tuple[str, Tensor]], path: str | Path, strict: bool) -> Report:
    """Copies into the model what fits it. In strict mode SlmError, before anything is copied, unless all does."""
    # These tensors share the storage of the parameters, each codebook being a view of one level.
    ours = model.state_dict()
    ours |= {f"quantizer.layers.{q}.codebook.embed": embed for q, embed in enumerate(ours.pop("quantizer.embed"))}
    report = Report()
    for name, (original, tensor) in theirs.items():
        if name not in ours:
            (report.unused if STATISTICS.fullmatch(name) else report.unexpected).append(original)
        elif tensor.shape != ours[name].shape:
            report.reshaped[name] = (list(tensor.shape), list(ours[name].shape))
        else:
            report.mapped[name] = original
    report.missing = [name for name in ours if name not in theirs]
    if strict and not report.complete:
        raise SlmError(f"{path}: the tensors do not fit this EnCodec: {report}")
    for name in report.mapped:
        ours[name].copy_(theirs[name][1])
    return report
