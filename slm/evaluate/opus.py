"""Opus, the yardstick that codecs of speech are held against: RFC 6716, in the Ogg stream of RFC 3533, through libsndfile.

Its bits are those of its packets alone. The pages of Ogg around them cost some 3 kbit/s more, which a sender need not pay.
The rate is free to vary: what is asked for is a mean over much audio, and speech with pauses takes less.

N samples
"""

from __future__ import annotations

import io

from torch import Tensor, from_numpy

from slm.errors import SlmError
from slm.evaluate.coders import Rebuilt

RATES = (8_000, 12_000, 16_000, 24_000, 48_000)  # Hz
LOWEST, HIGHEST = 6.0, 256.0  # kbit/s: libsndfile's compression levels 1 and 0
HEADERS = 2  # packets that say what follows and who made it


class Opus:
    """A coder at about `kbps` kbit/s, of mono audio. SlmError beyond what libsndfile offers, or if it was built without Opus."""

    def __init__(self, kbps: float, rate: int = 16_000):
        import soundfile

        if not LOWEST <= kbps <= HIGHEST:
            raise SlmError(f"Opus was asked for {kbps:g} kbit/s but libsndfile takes {LOWEST:g} to {HIGHEST:g}")
        if rate not in RATES:
            raise SlmError(f"Opus was given audio at {rate} Hz but hears {', '.join(map(str, RATES))} Hz")
        if "OPUS" not in soundfile.available_subtypes("OGG"):
            raise SlmError(f"libsndfile {soundfile.__libsndfile_version__} was built without Opus; install soundfile 0.13 or later")
        self.kbps, self.rate = kbps, rate

    def code(self, audio: Tensor) -> Rebuilt:
        """audio [1,N] at `rate` Hz. libsndfile cuts off what the coder is late by, so the same N samples come back, to the sample."""
        import soundfile

        file, level = io.BytesIO(), (HIGHEST - self.kbps) / (HIGHEST - LOWEST)
        with soundfile.SoundFile(file, "w", self.rate, 1, "OPUS", format="OGG", compression_level=level) as out:
            out.write(audio[0].numpy())
        bits = 8 * sum(packets(file.getvalue())[HEADERS:])
        file.seek(0)
        heard, _ = soundfile.read(file, dtype="float32")
        return Rebuilt(from_numpy(heard)[None], bits)


def packets(ogg: bytes) -> list[int]:
    """The bytes of each packet of an Ogg stream: a page's table gives them in laces, and one below 255 ends the packet."""
    sizes, size, at = [], 0, 0
    while at < len(ogg):
        if ogg[at : at + 4] != b"OggS":
            raise ValueError(f"no page of Ogg begins at byte {at}")
        laces = ogg[at + 27 : at + 27 + ogg[at + 26]]
        for lace in laces:
            size += lace
            if lace < 255:
                sizes.append(size)
                size = 0
        at += 27 + len(laces) + sum(laces)
    return sizes
