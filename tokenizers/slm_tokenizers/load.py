"""A path in, a tokenizer out: recognises what lies on disk by its content, never by its name.

- a folder whose config.json says "class": "slm_tokenizers.codec.Codec" is our own codec;
- a folder whose config.json says "model_type": "encodec" is EnCodec, saved by transformers;
- a file is EnCodec, a state dict of the `encodec` package.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from slm.errors import SlmError

if TYPE_CHECKING:
    from torch import nn

CODEC = "slm_tokenizers.codec.Codec"


def load(path: str | Path) -> nn.Module:
    """The tokenizer at `path`, on the CPU, in evaluation mode.

    SlmError if nothing is there, if the layout is none of the three above, if a file is damaged or does not fit
    the model, or if it holds pickled objects other than tensors (these are never executed).
    """
    path = Path(path)
    if path.is_dir():
        return from_folder(path).eval()
    if not path.is_file():
        raise SlmError(f"{path}: no tokenizer here, neither a file nor a folder")
    from slm_tokenizers.importers import encodec_from_th

    return encodec_from_th(path).model.eval()


def from_folder(folder: Path) -> nn.Module:
    config = read_config(folder)
    if config.get("class") == CODEC:
        from slm_tokenizers import codec

        return codec.load(folder)
    if config.get("model_type") == "encodec":
        from slm_tokenizers.importers import encodec_from_transformers

        return encodec_from_transformers(folder).model
    said = {key: config[key] for key in ("class", "model_type") if key in config} or "neither"
    raise SlmError(f'{folder}/config.json: "class" {CODEC!r} or "model_type" \'encodec\' is needed but it says {said}')


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
