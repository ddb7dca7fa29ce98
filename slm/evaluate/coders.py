"""A recording through a coder and back: what came out, and the bits that went between.

A coder has `rate` in Hz, what it hears, and `code(audio) -> Rebuilt`. Here is the one around a codec of ours; Opus is another.

N samples   C channels   Q levels   T frames
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from slm.errors import SlmError

SCALE = 32  # bits of a chunk's loudness, in codecs that divide it out


@dataclass
class Rebuilt:
    audio: Tensor  # [1,N], aligned with what was coded
    bits: float


class Coder(Protocol):
    rate: int

    def code(self, audio: Tensor) -> Rebuilt: ...


class Levels:
    """A codec decoded from its first `n_q` levels, or from all. A codec of several channels hears the recording in each.

    SlmError if it has fewer levels, or is none: units have no way back to audio.
    """

    def __init__(self, codec: Any, n_q: int | None = None, name: str = "the codec"):
        if not hasattr(codec, "decode"):
            raise SlmError(f"{name} makes codes but no audio of them; there is nothing to measure")
        if n_q is not None and not 1 <= n_q <= codec.n_q:
            raise SlmError(f"{name} has levels 1 to {codec.n_q}, so it cannot be decoded from {n_q}")
        self.codec, self.n_q, self.rate = codec, n_q or codec.n_q, codec.rate

    def code(self, audio: Tensor) -> Rebuilt:
        """audio [1,N] at `rate` Hz. A level costs log2(card) bits a frame, the last frame included though it may be part silence."""
        from torch import inference_mode

        heard = audio[None].expand(1, getattr(self.codec, "channels", 1), -1)  # [1,C,N]
        with inference_mode():
            chunks = self.codec.encode_chunks(heard) if hasattr(self.codec, "encode_chunks") else None
            parts = [self.codec.encode(heard)] if chunks is None else [chunk.codes for chunk in chunks]
            parts = [codes[:, : self.n_q] for codes in parts]  # [1,Q,T]: what a level says does not depend on those behind it
            bits = math.log2(self.codec.card) * sum(codes.numel() for codes in parts)
            if chunks is None:
                rebuilt = self.codec.decode(parts[0], audio.shape[-1])
            else:
                bits += SCALE * sum(chunk.scale is not None for chunk in chunks)
                kept = [type(chunk)(codes, chunk.scale) for chunk, codes in zip(chunks, parts)]
                rebuilt = self.codec.decode_chunks(kept, audio.shape[-1])
        return Rebuilt(rebuilt[0].mean(0, keepdim=True), bits)
