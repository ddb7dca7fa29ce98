"""A folder that transformers' `save_pretrained` left in, a language model out: Llama, Qwen2, Qwen3, Mamba-2 or RWKV-4.

The folder holds config.json and model.safetensors, or several such files and model.safetensors.index.json, which says what
lies where. Pickled weights are not read. How each kind goes by other names there is in importers.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from slm.errors import SlmError

if TYPE_CHECKING:
    from torch import Tensor

    from slm.backbone.language_model import LanguageModel

KINDS = ("llama", "qwen2", "qwen3", "mamba2", "rwkv")  # model_type
INDEX = "model.safetensors.index.json"


def load(folder: str | Path, strict: bool = True) -> LanguageModel:
    """The language model in `folder`, float32, on the CPU, in evaluation mode; `report` tells what became of each tensor.

    SlmError if nothing is there, if it is of another kind, if a file is missing or damaged, or if the tensors do not fit;
    with strict=False what does not fit keeps its random start, and the report names it.
    """
    from slm.backbone.importers import NAMES, UNUSED, described, targets
    from slm.reading import fill, read_config, renamed

    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise SlmError(f"{folder}: no language model here, config.json is missing")
    config = read_config(folder)
    kind = config.get("model_type")
    if kind not in KINDS:
        raise SlmError(f"{folder}/config.json: model_type is {kind!r} but must be {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    weights, tensors = read_weights(folder)
    theirs = renamed(tensors, NAMES[kind])
    model = described(config, theirs, folder).build()
    model.report = fill(targets(model), theirs, weights, f"{kind} language model", strict, UNUSED)
    return model.eval()


def read_weights(folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """The file that names all tensors of `folder`, and the tensors. SlmError: one is missing or not whole."""
    from slm.reading import read_safetensors, weights_file

    index = folder / INDEX
    if (folder / "model.safetensors").is_file() or not index.is_file():
        weights = weights_file(folder)
        return weights, read_safetensors(weights)
    tensors: dict[str, Tensor] = {}
    for shard in shards(index):
        if not (folder / shard).is_file():
            raise SlmError(f"{folder}: {shard} is missing, where {INDEX} says that a part of the weights lies")
        tensors |= read_safetensors(folder / shard)
    return index, tensors


def shards(index: Path) -> list[str]:
    """The names of the files that an index speaks of, each beside it and named once."""
    try:
        files = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise SlmError(f"{index}: not an index of weights ({' '.join(str(error).split())})") from error
    for file in files:
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            raise SlmError(f"{index}: {file!r} is not the name of a safetensors file in the same folder")
    return sorted(set(files))
