"""Tokenizers turn audio or text into integer codes, and back. They know nothing of language models.

    Codec, SoundStream, Encodec, DAC, Mimi, SpeechTokenizer, VQVAE    codecs: audio [B,1,N] <-> codes [B,Q,T]
    MelVQ, KMeansMel          mel as codes, and back to audio by a vocoder, or phase estimation
    Units                     clusters of an encoder's vectors: audio -> codes [B,1,T], without a way back
    SpeechEncoder, Conformer  encoders, of which units are made: audio -> vectors [B,T,D]
    UnitBPE                   units <-> fewer, longer ones
    Phonemes, Bytes           text <-> ids [L]
    load                      any of those that hold audio, from a file or folder on disk

Each name is imported when it is first used, so importing the package costs nothing.
"""

from importlib import import_module

# Not lazy: importing the module `load` later would put the module where the function of that name belongs.
from slm_tokenizers.load import load

_homes = {
    "Bytes": "text.bytes",
    "Codec": "codec",
    "Conformer": "semantic.conformer",
    "DAC": "dac",
    "Encodec": "encodec",
    "KMeansMel": "kmeansmel",
    "MelVQ": "melvq",
    "Mimi": "mimi",
    "Phonemes": "text.phonemes",
    "SoundStream": "soundstream",
    "SpeechEncoder": "semantic.encoder",
    "SpeechTokenizer": "speechtokenizer",
    "UnitBPE": "semantic.unit_bpe",
    "Units": "semantic.units",
    "VQVAE": "vqvae",
}

__all__ = ["load", *_homes]


def __getattr__(name: str):
    if name not in _homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_homes[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
