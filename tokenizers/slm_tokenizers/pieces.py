"""Long files in bounded memory: in pieces, with the same codes and the same audio as in one.

A causal codec is streamed. A codec in which a frame hears finitely many neighbours (`receptive_field` frames to each side)
codes each piece with that much of its surroundings, which is then cut off; one whose audio goes on from what was heard (`goes_on`) does
so by itself. Any other codec is refused.

B batch, C audio channels, N samples, Q levels, T frames.
"""

from typing import Callable, Iterator

import torch
from torch import Tensor, nn

from slm.errors import SlmError


def encode_in_pieces(codec: nn.Module, audio: Tensor, seconds: float = 10.0) -> Tensor:
    """audio [B,C,N] -> codes [B,Q,T] of `codec.encode`, hearing about `seconds` at a time. SlmError if the codec cannot be cut."""
    size = frames_of(codec, seconds)
    if hasattr(codec, "stream_encoder"):
        return streamed(codec.stream_encoder(), audio, size * codec.hop)
    around = context(codec)
    return torch.cat(list(in_pieces(codec.encode, audio, size, around, codec.hop, 1)), dim=-1)


def decode_in_pieces(codec: nn.Module, codes: Tensor, samples: int | None = None, seconds: float = 10.0) -> Tensor:
    """codes [B,Q,T] -> audio [B,C,samples] of `codec.decode`, about `seconds` at a time. SlmError if the codec cannot be cut."""
    size = frames_of(codec, seconds)
    if hasattr(codec, "stream_decoder"):
        return streamed(codec.stream_decoder(samples), codes, size)
    if getattr(codec, "goes_on", False):
        return codec.decode(codes, samples)
    around = context(codec)
    audio = torch.cat(list(in_pieces(codec.decode, codes, size, around, 1, codec.hop)), dim=-1)
    return audio if samples is None else audio[..., :samples]


def in_pieces(run: Callable[[Tensor], Tensor], x: Tensor, size: int, context: int, before: int, after: int) -> Iterator[Tensor]:
    """Yields run(x [..., N]) in stretches of `size` frames, each run with `context` frames to either side.

    A frame is `before` numbers along the last dimension of x, and `after` of what `run` returns. x may be a memory-mapped file.
    """
    frames = -(-x.shape[-1] // before)
    for start in range(0, frames, size):
        left, stop = max(0, start - context), min(frames, start + size)
        y = run(x[..., left * before : (stop + context) * before])
        yield y[..., (start - left) * after : (stop - left) * after]


def streamed(stream, x: Tensor, size: int) -> Tensor:
    return torch.cat([*(stream.push(piece) for piece in x.split(size, dim=-1)), stream.flush()], dim=-1)


def frames_of(codec: nn.Module, seconds: float) -> int:
    if not seconds > 0:
        raise SlmError(f"seconds is {seconds} but a piece must be longer than nothing")
    return max(1, round(seconds * codec.rate / codec.hop)) if hasattr(codec, "rate") else 1


def context(codec: nn.Module) -> int:
    if not hasattr(codec, "receptive_field"):
        raise SlmError(f"a {type(codec).__name__} cannot work in pieces: it is neither causal nor of a finite receptive field")
    return codec.receptive_field
