"""Tensors as others saved them, read from disk and copied into our modules, with an account of what became of each.

It reads safetensors and torch files, never pickled objects, and knows nothing of any model: an importer brings the names in
a file to those of our module, and `fill` copies what fits.
"""

import json
import pickle
import re
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from slm.errors import SlmError

Named = dict[str, tuple[str, Tensor]]  # our name -> name in the file, tensor
Rules = list[tuple[str, str]]  # regular expression, replacement

NOTHING = re.compile(r"(?!)")


@dataclass
class Report:
    """What became of each tensor. Names are the model's, with one name for each level where codebooks share a tensor."""

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


def read_torch(path: Path) -> object:
    """What a torch file holds, on the CPU; SlmError if it is damaged or holds objects that are not plain data."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise SlmError(f"{path}: not a file of tensors that torch can read (damaged, another format, or pickled objects)") from error


def state_dict(held: object, path: str | Path) -> dict[str, Tensor]:
    """Tensors by name, as a torch file held them; SlmError if it is anything else."""
    if not isinstance(held, dict) or not all(isinstance(tensor, Tensor) for tensor in held.values()):
        raise SlmError(f"{path}: a state dict of tensors is needed, this holds something else")
    return {str(name): tensor for name, tensor in held.items()}


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, on the CPU; SlmError if it is truncated or not one."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise SlmError(f"{path}: not a whole safetensors file ({error})") from error


def weights_file(folder: Path) -> Path:
    """The one file of weights in a folder of transformers; SlmError if it is missing."""
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise SlmError(f"{folder}: model.safetensors is missing (pickled weights such as pytorch_model.bin are not read)")
    return weights


def read_config(folder: Path) -> dict:
    """The object in `folder`/config.json; SlmError if it is missing, not JSON, or not an object."""
    file = folder / "config.json"
    if not file.is_file():
        raise SlmError(f"{folder}: no tokenizer here, config.json is missing")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SlmError(f"{file}: not readable as JSON ({' '.join(str(error).split())})") from error
    if not isinstance(config, dict):
        raise SlmError(f"{file}: a JSON object is needed, this is a {type(config).__name__}")
    return config


def require(config: dict, fixed: dict, where: str | Path) -> None:
    """SlmError if a field of `config` says something else than `fixed`; one that is absent or null says what is fixed."""
    for key, value in fixed.items():
        if config.get(key, value) not in (value, None):
            raise SlmError(f"{where}: {key} is {config[key]!r} but only {value!r} is supported")


def rename(name: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def renamed(tensors: dict[str, Tensor], rules: Rules) -> Named:
    return {rename(name, rules): (name, tensor) for name, tensor in tensors.items()}


@torch.no_grad()
def fill(ours: dict[str, Tensor], theirs: Named, path: str | Path, what: str, strict: bool, unused: re.Pattern = NOTHING) -> Report:
    """Copies into `ours` what fits; names that `unused` matches may be left over.

    In strict mode SlmError, before anything is copied, unless all fits; `what` names the model in that sentence.
    """
    report = Report()
    for name, (original, tensor) in theirs.items():
        if name not in ours:
            (report.unused if unused.fullmatch(name) else report.unexpected).append(original)
        elif tensor.shape != ours[name].shape:
            report.reshaped[name] = (list(tensor.shape), list(ours[name].shape))
        else:
            report.mapped[name] = original
    report.missing = [name for name in ours if name not in theirs]
    if strict and not report.complete:
        raise SlmError(f"{path}: the tensors do not fit this {what}: {report}")
    for name in report.mapped:
        ours[name].copy_(theirs[name][1])
    return report
