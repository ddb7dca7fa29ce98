"""Encoders and units on disk, as `slm_tokenizers.load` reads them, but with every weight as exact as it is in memory.

A unit near the border of two clusters would not survive rounding, and the fingerprint of an encoder would be another.
"""

from __future__ import annotations

import json
from pathlib import Path

from torch import nn


def save(module: nn.Module, folder: str | Path) -> None:
    """Write config.json and model.safetensors of a module that has a `config`, each whole or not at all."""
    from safetensors.torch import save as to_bytes

    from slm.config import to_dict
    from slm.data.replacing import replacing

    folder, cls = Path(folder), type(module)
    folder.mkdir(parents=True, exist_ok=True)
    described = {"class": f"{cls.__module__}.{cls.__qualname__}", "config": to_dict(module.config)}
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}
    with replacing(folder / "model.safetensors") as temporary:
        temporary.write_bytes(to_bytes(weights))
    with replacing(folder / "config.json") as temporary:
        temporary.write_text(json.dumps(described, indent=1))
