"""EnCodec: audio as levels of residual codes, from which the audio can be rebuilt.

Défossez et al., 2022, "High Fidelity Neural Audio Compression". Inference only: the weights come from a checkpoint.

B batch, C audio channels, N samples, D width of a latent, Q levels, T frames of `hop` samples; T = ceil(N / hop).

The 24 kHz model is causal and codes a recording at once. The 48 kHz stereo model codes overlapping chunks, each
brought to the same loudness; its codes are only complete with one scale a chunk, hence `encode_chunks`.
"""

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slm.errors import SlmError
from slm_tokenizers.quantize.residual import Codebooks
from slm_tokenizers.seanet import Decoder, Encoder, Shape
from slm_tokenizers.streaming import StreamDecoder, StreamEncoder


@dataclass
class Chunk:
    """A coded stretch of audio. `scale` is the loudness that was divided out, None in models that do not."""

    codes: Tensor  # [B,Q,T]
    scale: Tensor | None  # [B,1,1]


class Encodec(nn.Module):
    """audio [B,C,N] at `rate` Hz <-> codes [B,Q,T] long in 0..card-1."""

    @dataclass
    class Config:
        """The defaults are the published 24 kHz model."""

        rate: int = 24_000  # Hz
        channels: int = 1
        n_q: int = 32
        card: int = 1024
        dim: int = 128
        n_filters: int = 32
        ratios: tuple[int, ...] = (8, 5, 4, 2)
        causal: bool = True
        norm: str = "weight_norm"  # or time_group_norm
        shortcut: bool = True
        normalize: bool = False  # divide each chunk by its loudness
        chunk_seconds: float | None = None  # None: the whole recording at once
        overlap: float = 0.01  # of a chunk
        bandwidths: tuple[float, ...] = (1.5, 3.0, 6.0, 12.0, 24.0)  # kbit/s; those above n_q levels are not offered

        def build(self) -> "Encodec":
            """A module with random weights. SlmError if the fields contradict each other."""
            return Encodec(self)

        def shape(self) -> Shape:
            return Shape(self.channels, self.dim, self.n_filters, self.ratios, self.causal, self.norm, self.shortcut)

        def levels_of(self, kbps: float) -> int:
            """How many levels `kbps` kbit/s pays for: a level costs log2(card) bits a frame."""
            frames = math.ceil(self.rate / math.prod(self.ratios))
            return max(1, math.floor(kbps * 1000 / (math.log2(self.card) * frames)))

    def __init__(self, config: Config):
        super().__init__()
        check(config)
        shape = config.shape()
        self.config = config
        self.rate, self.channels, self.hop = config.rate, config.channels, shape.hop
        self.n_q, self.card = config.n_q, config.card
        self.chunk = None if config.chunk_seconds is None else int(config.chunk_seconds * config.rate)  # samples
        self.stride = None if self.chunk is None else max(1, int((1.0 - config.overlap) * self.chunk))
        self.encoder = Encoder(shape)
        self.decoder = Decoder(shape)
        self.quantizer = Codebooks(config.n_q, config.card, config.dim)

    def fast(self) -> "Encodec":
        """A copy that computes in bfloat16, all but the search for codes: near, not equal.

        With random weights 92 % of the ids at 6 kbit/s are those of this model, and the audio of the same codes differs from its audio
        by 39 dB less than that is loud (`slm bench encodec` measures both). It cannot be streamed.
        """
        other = copy.deepcopy(self)
        other.encoder.bfloat16()
        other.decoder.bfloat16()
        return other

    @property
    def precision(self) -> torch.dtype:
        return next(self.parameters()).dtype

    @property
    def bandwidths(self) -> dict[float, int]:
        """kbit/s -> levels, for each bandwidth that these codebooks can reach."""
        levels = {kbps: self.config.levels_of(kbps) for kbps in self.config.bandwidths}
        return {kbps: n for kbps, n in levels.items() if n <= self.n_q}

    def encode(self, audio: Tensor, bandwidth: float | None = None) -> Tensor:
        """audio [B,C,N] -> codes [B,Q,T]; all levels, or those of `bandwidth` kbit/s.

        Rows of a batch are padded on the right by the caller. A causal model then gives a row of 7 frames or more the codes
        it has alone, in each frame that the row fills; pad rows to whole frames and that is every frame.
        SlmError on other channels, less than a frame, NaN, an unknown bandwidth, or a model that needs `encode_chunks`.
        """
        self.check_whole("encode_chunks")
        return self.encode_chunks(audio, bandwidth)[0].codes

    def decode(self, codes: Tensor, samples: int | None = None) -> Tensor:
        """codes [B,Q',T] of the first Q' levels -> audio [B,C,samples], by default samples = T*hop.

        SlmError on a code or level out of range, more samples than T*hop, or a model that needs `decode_chunks`.
        """
        self.check_whole("decode_chunks")
        return self.decode_chunks([Chunk(codes, None)], samples)

    @torch.no_grad()
    def encode_chunks(self, audio: Tensor, bandwidth: float | None = None) -> list[Chunk]:
        """As `encode`, for every model: audio [B,C,N] -> one Chunk for each `stride` samples begun, one in all without chunks."""
        self.check_audio(audio)
        n_q = self.levels(bandwidth)
        size, stride = self.chunk or audio.shape[-1], self.stride or audio.shape[-1]
        return [self.encode_chunk(audio[..., at : at + size], n_q) for at in range(0, audio.shape[-1], stride)]

    def encode_chunk(self, audio: Tensor, n_q: int) -> Chunk:
        scale = None
        if self.config.normalize:
            scale = audio.mean(1, keepdim=True).pow(2).mean(2, keepdim=True).sqrt() + 1e-8
            audio = audio / scale
        return Chunk(self.quantizer.encode(self.encoder(audio.to(self.precision)), n_q), scale)

    @torch.no_grad()
    def decode_chunks(self, chunks: list[Chunk], samples: int | None = None) -> Tensor:
        """As `decode`, for every model: the chunks of one recording, in order -> audio [B,C,samples]."""
        self.check_chunks(chunks)
        pieces = [self.decode_chunk(chunk) for chunk in chunks]
        audio = overlap_add(pieces, self.stride or 1)
        if samples is None:
            return audio
        if not 1 <= samples <= audio.shape[-1]:
            raise SlmError(f"samples is {samples} but these codes hold 1 to {audio.shape[-1]} samples")
        return audio[..., :samples]

    def decode_chunk(self, chunk: Chunk) -> Tensor:
        z = self.quantizer.decode(chunk.codes)
        audio = self.decoder(z.to(self.precision)).to(z.dtype)
        return audio if chunk.scale is None else audio * chunk.scale

    def stream_encoder(self, bandwidth: float | None = None) -> StreamEncoder:
        """A new recording, coded as it comes, with the codes of `encode`. SlmError if this model is not causal."""
        made = StreamEncoder(self.encoder, self.quantizer, self.channels, self.hop, self.levels(bandwidth))
        self.check_whole("encode_chunks")
        self.check_exact()
        return made

    def stream_decoder(self, samples: int | None = None) -> StreamDecoder:
        """New codes, decoded as they come, with the audio of `decode`. SlmError if this model is not causal."""
        made = StreamDecoder(self.decoder, self.quantizer, self.hop, samples)
        self.check_whole("decode_chunks")
        self.check_exact()
        return made

    def levels(self, bandwidth: float | None) -> int:
        if bandwidth is None:
            return self.n_q
        if bandwidth not in self.bandwidths:
            raise SlmError(f"bandwidth {bandwidth} kbit/s is not one of {', '.join(map(str, self.bandwidths))}")
        return self.bandwidths[bandwidth]

    def check_audio(self, audio: Tensor) -> None:
        if audio.dim() != 3 or not audio.is_floating_point():
            raise SlmError(f"audio is {audio.dtype} of shape {list(audio.shape)} but floats [B, {self.channels}, N] are needed")
        if audio.shape[1] != self.channels:
            raise SlmError(f"audio has {audio.shape[1]} channels but this codec hears {self.channels}")
        if audio.shape[2] < self.hop:
            raise SlmError(f"audio has {audio.shape[2]} samples but this codec needs at least one frame of {self.hop}")
        if not audio.isfinite().all():
            raise SlmError("audio holds NaN or infinite samples")

    def check_chunks(self, chunks: list[Chunk]) -> None:
        if not chunks or (self.chunk is None and len(chunks) > 1):
            raise SlmError(f"{len(chunks)} chunks were given but this codec decodes {'at least' if self.chunk else 'exactly'} one")
        frames = [chunk.codes.shape[-1] for chunk in chunks]
        least = [math.ceil((self.stride or 1) / self.hop)] * (len(chunks) - 1) + [1]
        for i, (given, low) in enumerate(zip(frames, least)):
            if not low <= given or given > frames[0]:
                raise SlmError(f"chunk {i} of {len(chunks)} has {given} frames but {low} to {max(low, frames[0])} are needed")
            if self.config.normalize and chunks[i].scale is None:
                raise SlmError(f"chunk {i} has no scale but this codec divided the loudness out and needs it back")

    def check_exact(self) -> None:
        if self.precision == torch.bfloat16:
            raise SlmError("a fast() copy computes in bfloat16 and cannot be streamed: stream the model that it was copied from")

    def check_whole(self, instead: str) -> None:
        if self.chunk is not None or self.config.normalize:
            raise SlmError(f"this codec works in chunks with a scale each: use {instead} instead")


def overlap_add(pieces: list[Tensor], stride: int) -> Tensor:
    """Pieces [B,C,N_i], each beginning `stride` samples after the one before -> one signal, cross-faded where they overlap."""
    if len(pieces) == 1:
        return pieces[0]
    first = pieces[0]
    length = max(i * stride + piece.shape[-1] for i, piece in enumerate(pieces))
    ramp = torch.linspace(0, 1, first.shape[-1] + 2, device=first.device, dtype=first.dtype)[1:-1]
    triangle = 0.5 - (ramp - 0.5).abs()
    total, weight = first.new_zeros(*first.shape[:-1], length), first.new_zeros(length)
    for i, piece in enumerate(pieces):
        here = slice(i * stride, i * stride + piece.shape[-1])
        total[..., here] += triangle[: piece.shape[-1]] * piece
        weight[here] += triangle[: piece.shape[-1]]
    return total / weight


def stereo_48khz() -> Encodec.Config:
    """The published 48 kHz stereo model: not causal, chunks of a second that overlap by a hundredth."""
    return Encodec.Config(
        rate=48_000, channels=2, n_q=16, causal=False, norm="time_group_norm", normalize=True, chunk_seconds=1.0,
        overlap=0.01, bandwidths=(3.0, 6.0, 12.0, 24.0),
    )  # fmt: skip


def check(config: Encodec.Config) -> None:
    for name in ("rate", "channels", "n_q", "card", "dim", "n_filters"):
        if getattr(config, name) < 1:
            raise SlmError(f"{name} is {getattr(config, name)} but must be at least 1")
    if not config.ratios or min(config.ratios) < 1:
        raise SlmError(f"ratios are {tuple(config.ratios)} but must be one or more whole numbers from 1 up")
    if not 0 <= config.overlap < 1:
        raise SlmError(f"overlap is {config.overlap} but must be in [0, 1), a part of a chunk")
    hop = math.prod(config.ratios)
    if config.chunk_seconds is not None and config.chunk_seconds * config.rate < hop:
        raise SlmError(f"chunk_seconds is {config.chunk_seconds} but must hold at least one frame of {hop} samples")
