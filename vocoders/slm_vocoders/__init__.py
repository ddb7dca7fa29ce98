"""Vocoders: mel, codes or units in, audio out; and the adversaries and losses that train them (and codecs)."""

from importlib import import_module

HOMES = {
    "HiFiGAN": "hifigan",
    "CodeHiFiGAN": "codes",
    "UnitVocoder": "units",
    "ISTFTHead": "istft",
    "load": "checkpoint",
    "save": "checkpoint",
}
__all__ = list(HOMES)


def __getattr__(name: str):
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)
