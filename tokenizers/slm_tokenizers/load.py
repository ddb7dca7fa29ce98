"""A path in, a tokenizer out, or an encoder that one is made of: recognises what lies on disk by its content, never by its name.

- a folder whose config.json says "class": "slm_tokenizers.codec.Codec", or another class of this package, is one that we trained;
- a folder whose config.json says "model_type": "encodec", "dac" or "mimi" is that codec, saved by transformers;
- one that says "wav2vec2", "hubert" or "wav2vec2-bert" is that encoder: audio in, vectors out, of which Units make codes;
- a folder whose config.json has "strides" and "semantic_dimension" is SpeechTokenizer, as its authors saved it;
- a file is DAC, from the `descript-audio-codec` package, if it holds a state dict beside the model's arguments;
- any other file is EnCodec, a state dict of the `encodec` package.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from slm.errors import SlmError

if TYPE_CHECKING:
    from torch import nn

OURS = "slm_tokenizers."
CODECS = ("encodec", "dac", "mimi")  # model_type


def load(path: str | Path) -> nn.Module:
    """The tokenizer at `path`, on the CPU, in evaluation mode.

    An encoder has `rate`, `hop`, `dim`, `depth` and `layer(audio [B,1,N], lengths [B], index) -> Frames`, but no `encode`.
    SlmError if nothing is there, if the layout is none of those above, if a file is damaged or does not fit
    the model, or if it holds pickled objects other than tensors (these are never executed).
    """
    path = Path(path)
    if path.is_dir():
        return from_folder(path).eval()
    if not path.is_file():
        raise SlmError(f"{path}: no tokenizer here, neither a file nor a folder")
    return from_file(path).eval()


def from_file(path: Path) -> nn.Module:
    from slm.reading import read_torch
    from slm_tokenizers.importers import encodec_from_held
    from slm_tokenizers.importers_dac import dac_from_held, holds_dac

    held = read_torch(path)
    return (dac_from_held if holds_dac(held) else encodec_from_held)(held, path).model


def from_folder(folder: Path) -> nn.Module:
    from slm.reading import read_config

    config = read_config(folder)
    if str(config.get("class")).startswith(OURS):
        from slm_tokenizers import stored

        return stored.load(folder)
    if config.get("model_type") == "encodec":
        from slm_tokenizers.importers import encodec_from_transformers

        return encodec_from_transformers(folder).model
    if config.get("model_type") == "dac":
        from slm_tokenizers.importers_dac import dac_from_transformers

        return dac_from_transformers(folder).model
    if config.get("model_type") == "mimi":
        from slm_tokenizers.importers_mimi import mimi_from_transformers

        return mimi_from_transformers(folder).model
    from slm_tokenizers.semantic.importers import KINDS, encoder_from_transformers

    if config.get("model_type") in KINDS:
        return encoder_from_transformers(folder).model
    from slm_tokenizers.importers_speechtokenizer import is_speechtokenizer, speechtokenizer_from_folder

    if is_speechtokenizer(config):
        return speechtokenizer_from_folder(folder).model
    said = {key: config[key] for key in ("class", "model_type") if key in config} or "neither"
    needed = f"a class {OURS + '…'!r} or the model_type {', '.join(map(repr, CODECS + KINDS))}"
    raise SlmError(f"{folder}/config.json: {needed} is needed but it says {said}")
