"""Tokenizers turn audio or text into integer codes, and back. They know nothing of language models or vocoders.

    Encodec    a neural codec: audio [B,C,N] <-> codes [B,Q,T]
    Phonemes   text as phonemes <-> ids [L]
    Bytes      text as UTF-8 bytes <-> ids [L]
    load       a tokenizer from a file or folder on disk

Each name is imported when it is first used, so importing the package costs nothing.
"""

from importlib import import_module

# Not lazy: importing the module `load` later would put the module where the function of that name belongs.
from slm_tokenizers.load import load

_homes = {
    "Encodec": "slm_tokenizers.encodec",
    "Phonemes": "slm_tokenizers.text.phonemes",
    "Bytes": "slm_tokenizers.text.bytes",
}

__all__ = ["Bytes", "Encodec", "Phonemes", "load"]


def __getattr__(name: str):
    if name not in _homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_homes[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
