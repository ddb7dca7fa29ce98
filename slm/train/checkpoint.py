"""Checkpoints: safetensors and JSON in a folder that appears whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from slm.errors import SlmError

KEEP = 2


def latest(out: Path) -> Path | None:
    """The newest complete checkpoint below `out`, or None."""
    found = sorted(Path(out).glob("checkpoints/step-*[0-9]"), key=lambda p: int(p.name.split("-")[1]))
    return found[-1] if found else None


def save(out: Path, step: int, module: nn.Module, optimisers: dict, average, config) -> Path:
    from safetensors.torch import save_file

    home = Path(out) / "checkpoints"
    target, part = home / f"step-{step}", home / f"step-{step}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_file(_own(module.state_dict()), part / "model.safetensors")
    for name, optim in optimisers.items():
        save_file(_own(_flat(optim.state_dict()["state"])), part / f"optimiser-{name}.safetensors")
    seen = 0
    if average:
        save_file(_own(average.state(module)), part / "average.safetensors")
        seen = average.seen
    (part / "state.json").write_text(json.dumps({"step": step, "averaged": seen, "train": asdict(config)}, indent=1))
    shutil.rmtree(target, ignore_errors=True)
    os.replace(part, target)
    for old in sorted(home.glob("step-*[0-9]"), key=lambda p: int(p.name.split("-")[1]))[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def restore(folder: Path, module: nn.Module, optimisers: dict, average, config) -> int:
    """Load everything `save` wrote and return the step to go on with."""
    state = json.loads((folder / "state.json").read_text())
    if (was := state["train"]["seed"]) != config.seed:
        raise SlmError(f"{folder} was trained with seed {was}, not {config.seed}; resume with the same seed.")
    load_into(module, folder / "model.safetensors")
    for name, optim in optimisers.items():
        own = optim.state_dict()
        flat = read(folder / f"optimiser-{name}.safetensors")
        restored: dict[int, dict[str, Tensor]] = {}
        for key, value in flat.items():
            index, field = key.split(".")
            restored.setdefault(int(index), {})[field] = value
        optim.load_state_dict({"state": restored, "param_groups": own["param_groups"]})
    if average and (folder / "average.safetensors").exists():
        values = read(folder / "average.safetensors")
        average.values = {k: values[k].clone() for k in average.values}
        average.seen = state["averaged"]
    return state["step"]


def read(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file; a missing or damaged one is one sentence."""
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError:
        raise SlmError(f"{path} does not exist; the checkpoint is incomplete.") from None
    except Exception as e:
        raise SlmError(f"{path} is damaged or not a safetensors file ({e}).") from None


def load_into(module: nn.Module, path: Path) -> None:
    """Fill the module from a file; missing, unexpected or misshapen tensors are an error."""
    check(module, read(path), str(path))


def check(module: nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    own = module.state_dict()
    missing, extra = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    shaped = sorted(k for k in own.keys() & tensors.keys() if own[k].shape != tensors[k].shape)
    if missing or extra or shaped:
        name = (missing + extra + shaped)[0]
        raise SlmError(
            f"{where} does not fit this model: {len(missing)} tensors missing, {len(extra)} unexpected, "
            f"{len(shaped)} of another shape (first: {name})."
        )
    module.load_state_dict({k: v.to(own[k].dtype) for k, v in tensors.items()})


def _flat(state: dict) -> dict[str, Tensor]:
    return {f"{i}.{k}": torch.as_tensor(v) for i, fields in state.items() for k, v in fields.items()}


def _own(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
