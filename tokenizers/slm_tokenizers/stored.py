"""A tokenizer of ours as a folder: config.json says its class and config, model.safetensors holds its weights.

Parameters are stored in bfloat16 and buffers, such as codebooks, as they are; `rounded` brings a model to what is stored,
so that its codes are those of the model that is loaded later. Encoders and units are stored exactly: a unit near the border of
two clusters would not survive rounding, and the fingerprint of an encoder would be another.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

from slm.errors import SlmError


@torch.no_grad()
def rounded(tokenizer: nn.Module) -> nn.Module:
    """The same module, its parameters rounded to what `save` writes."""
    for parameter in tokenizer.parameters():
        parameter.copy_(parameter.bfloat16())
    return tokenizer


def save(tokenizer: nn.Module, folder: str | Path, exact: bool = False) -> None:
    """Write config.json and model.safetensors of a module that has a `config`, each whole or not at all; `exact` rounds nothing."""
    from safetensors.torch import save as to_bytes

    from slm.config import to_dict
    from slm.data.replacing import replacing

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    cls = type(tokenizer)
    described = {"class": f"{cls.__module__}.{cls.__qualname__}", "config": to_dict(tokenizer.config)}
    learned = set() if exact else {name for name, _ in tokenizer.named_parameters()}
    state = tokenizer.state_dict()
    weights = {name: (t.bfloat16() if name in learned else t.clone()).detach().cpu().contiguous() for name, t in state.items()}
    with replacing(folder / "model.safetensors") as temporary:
        temporary.write_bytes(to_bytes(weights))
    with replacing(folder / "config.json") as temporary:
        temporary.write_text(json.dumps(described, indent=1))


def load(folder: str | Path, of: str = "slm_tokenizers.") -> nn.Module:
    """A folder that `save` wrote -> the tokenizer, in evaluation mode, or a module of another package than `of` says.

    SlmError if it is incomplete, damaged or does not fit.
    """
    from slm.config import from_dict
    from slm.train.checkpoint import check, read

    folder = Path(folder)
    try:
        described = json.loads((folder / "config.json").read_text())["config"]
    except (OSError, ValueError, KeyError, TypeError):
        raise SlmError(f"{folder}/config.json is missing or damaged") from None
    if not isinstance(described, dict) or not str(described.get("class")).startswith(of):
        raise SlmError(f"{folder}/config.json holds no config of {of}")
    tokenizer = from_dict(described).build()
    check(tokenizer, read(folder / "model.safetensors"), f"{folder}/model.safetensors")
    return tokenizer.eval()
