"""Reads SpeechTokenizer's weights as its authors saved them: config.json beside a .pt state dict.

The names are those of the `encodec` package. The file also holds the projection into its teacher's features, which is needed
only for teaching, and the statistics of the codebooks' training.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from slm.errors import SlmError
from slm.reading import Report, fill, read_config, read_torch, renamed, state_dict
from slm_tokenizers.importers import OLD_WEIGHT_NORM, TH_NAMES
from slm_tokenizers.speechtokenizer import SpeechTokenizer

WEIGHTS = "SpeechTokenizer.pt"
ACTIVATIONS = ("ELU", "Snake")
TEACHING = re.compile(r"transform\.(weight|bias)|quantizer\.layers\.\d+\.codebook\.(inited|cluster_size|embed_avg)")


@dataclass
class Imported:
    model: SpeechTokenizer
    report: Report


def is_speechtokenizer(config: dict) -> bool:
    """Is this config.json one of SpeechTokenizer? It has no model_type, but nothing else names a teacher's width beside strides."""
    return {"strides", "semantic_dimension", "lstm_layers"} <= config.keys()


def speechtokenizer_from_folder(folder: str | Path, strict: bool = True) -> Imported:
    """A folder with config.json and SpeechTokenizer.pt, or one other .pt file. Only tensors are read, pickled objects are refused.

    SlmError if a file is missing, damaged or does not fit; with strict=False the report tells what did not.
    """
    folder = Path(folder)
    weights = weights_file(folder)
    model = config_of(read_config(folder), folder / "config.json").build()
    theirs = renamed(state_dict(read_torch(weights), weights), TH_NAMES + OLD_WEIGHT_NORM)
    return Imported(model, fill(targets(model), theirs, weights, "SpeechTokenizer", strict, TEACHING))


def weights_file(folder: Path) -> Path:
    found = sorted(folder.glob("*.pt"))
    if folder / WEIGHTS in found:
        return folder / WEIGHTS
    if len(found) != 1:
        raise SlmError(f"{folder}: {WEIGHTS}, or exactly one other .pt file, is needed beside config.json but there are {len(found)}")
    return found[0]


def config_of(config: dict, where: Path) -> SpeechTokenizer.Config:
    """Our Config of theirs; SlmError if a field is missing, or says what this model does not do."""
    if config.get("activation", "ELU") not in ACTIVATIONS:
        raise SlmError(f"{where}: activation is {config['activation']!r} but only {' and '.join(map(repr, ACTIVATIONS))} are supported")
    try:
        return SpeechTokenizer.Config(
            rate=int(config["sample_rate"]),
            n_q=int(config["n_q"]),
            card=int(config["codebook_size"]),
            dim=int(config["dimension"]),
            n_filters=int(config["n_filters"]),
            ratios=tuple(int(ratio) for ratio in config["strides"]),
            residuals=int(config["n_residual_layers"]),
            residual_kernel=int(config["residual_kernel_size"]),
            dilation=int(config["dilation_base"]),
            lstm=int(config["lstm_layers"]),
            bidirectional=bool(config["bidirectional"]),
            snake=config.get("activation") == "Snake",
        )
    except (TypeError, ValueError, LookupError) as error:
        raise SlmError(f"{where}: a field is missing or has a value that SpeechTokenizer cannot have ({error})") from error


def targets(model: SpeechTokenizer) -> dict[str, Tensor]:
    """The model's tensors by name, each codebook being a view of one level; they share the storage of the parameters."""
    ours = model.state_dict()
    embed = ours.pop("quantizer.embed")
    return ours | {f"quantizer.layers.{q}.codebook.embed": level for q, level in enumerate(embed)}
