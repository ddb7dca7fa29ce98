"""Speech codes: what an encoder hears, parted into what is said, as one code each 20 ms, and who says it, as one vector.

    audio [B,1,N] -> frozen encoder -> layer [B,T,E] -> content [B,T,D] -> codes [B,1,T]
                                                     -> voice   [B,V]

Łajszczak et al., 2024, "BASE TTS: Lessons from building a billion-parameter Text-to-Speech model on 100K hours of data", section
2.2.2: 256 codes at 50 Hz, 400 bit/s, which unit_bpe.py then merges. What makes the two differ is how they learn: speechcoding.py.
The paper hears WavLM; here it is any encoder of ours.

B batch, N samples, T frames, E width of the encoder, D of the content, V of the voice, K codes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.errors import SlmError
from slm_tokenizers import stored
from slm_tokenizers.quantize.residual import Codebooks, check_codes
from slm_tokenizers.semantic.features import Frames, rectangle
from slm_tokenizers.semantic.units import NONE, source_of


@dataclass
class Coded:
    """What was made of a batch; row b has `count[b]` frames."""

    codes: Tensor  # [B,1,T] long, -1 behind the end of a row
    out: Tensor  # [B,T,D], the codes' vectors, zeros behind the end
    voice: Tensor  # [B,V] of length one
    count: Tensor  # [B] long


class SpeechCodes(nn.Module):
    """audio [B,1,N] at `rate` Hz -> codes [B,1,T] long in 0..card-1, one each `hop` samples. A decoder of its own makes audio of them."""

    n_q = 1

    @dataclass
    class Config:
        source: Any = None  # the config of an encoder, or the folder of one, ours or of transformers
        layer: int = 0
        card: int = 256  # K
        dim: int = 64  # D
        width: int = 256  # between the encoder and either
        voice: int = 192  # V

        def build(self) -> "SpeechCodes":
            """A module with random weights behind the encoder. SlmError if a field contradicts the encoder or is less than one."""
            return SpeechCodes(self)

    def __init__(self, config: "SpeechCodes.Config") -> None:
        super().__init__()
        for name in ("card", "dim", "width", "voice"):
            if getattr(config, name) < 1:
                raise SlmError(f"{name} is {getattr(config, name)} but must be at least 1")
        self.source = source_of(config.source)
        if not 0 <= config.layer <= self.source.depth:
            raise SlmError(f"layer is {config.layer} but the source of these codes has layers 0 to {self.source.depth}")
        self.config = replace(config, source=self.source.config)
        self.rate, self.hop, self.card = self.source.rate, self.source.hop, config.card
        self.norm = nn.LayerNorm(self.source.dim, elementwise_affine=False)  # some numbers of a layer are a hundred times larger
        self.content = Content(self.source.dim, config.width, config.dim)
        self.codebooks = Codebooks(1, config.card, config.dim)
        self.listener = Listener(self.source.dim, config.width, config.voice)

    def train(self, mode: bool = True) -> "SpeechCodes":
        """The encoder never learns: it hears the same in training and after it."""
        super().train(mode)
        self.source.eval()
        return self

    @torch.no_grad()
    def heard(self, audio: Tensor | list[Tensor]) -> Frames:
        """audio [B,1,N], or rows [1,N] of any lengths -> the layer [B,T,E], normalised, zeros behind the end of a row.

        SlmError on less than a frame.
        """
        frames = self.source.layer(*rectangle(audio), self.config.layer)
        return Frames(self.norm(frames.x.float()) * frames.real[..., None], frames.count)

    @torch.no_grad()
    def forward(self, audio: Tensor | list[Tensor]) -> Coded:
        """audio [B,1,N], or rows [1,N] of any lengths -> Coded, each row as it would be alone."""
        with torch.autocast(self.codebooks.embed.device.type, enabled=False):
            frames = self.heard(audio)
            codes = self.codebooks.encode(self.content(frames).x.transpose(1, 2))  # [B,1,T]
            out = self.codebooks.decode(codes).transpose(1, 2) * frames.real[..., None]
            return Coded(codes.masked_fill(~frames.real[:, None], NONE), out, self.listener(frames), frames.count)

    def encode(self, audio: Tensor | list[Tensor]) -> Tensor:
        """audio [B,1,N], or rows [1,N] of any lengths -> codes [B,1,T]; -1 behind the end of a row. SlmError on less than a frame."""
        return self(audio).codes

    def voice(self, audio: Tensor | list[Tensor]) -> Tensor:
        """audio [B,1,N], or rows [1,N] of any lengths -> who speaks [B,V], of length one"""
        return self(audio).voice

    def vectors(self, codes: Tensor) -> Tensor:
        """codes [B,1,T] -> what they stand for [B,T,D]. SlmError on a code out of range."""
        check_codes(codes, 1, self.card)
        return self.codebooks.decode(codes).transpose(1, 2)

    def write(self, folder: Path) -> None:
        """Encoder and codes, in `folder`, which `slm_tokenizers.load` reads."""
        stored.save(self, folder, exact=True)


class Content(nn.Module):
    """frames [B,T,E] -> [B,T,D], each from itself and two neighbours to each side.

    Each of the D numbers has mean 0 and variance 1 over a batch of crops, and later over what was seen in training: commitment would
    otherwise lower itself by shrinking all content to one point, which is one code (Łańcucki et al., 2020, batch norm before VQ).
    """

    def __init__(self, dim: int, width: int, out: int) -> None:
        super().__init__()
        self.down = nn.Linear(dim, width)
        self.near = nn.ModuleList(nn.Conv1d(width, width, 3, padding=1) for _ in range(2))
        self.out = nn.Linear(width, out)
        self.level = nn.BatchNorm1d(out, affine=False)

    def forward(self, frames: Frames) -> Frames:
        real = frames.real[..., None]
        x = self.down(frames.x)  # [B,T,W]
        for conv in self.near:
            x = x * real  # the convolution must see the zeros that it would see behind the end of a row
            x = x + F.gelu(conv(x.transpose(1, 2))).transpose(1, 2)
        return Frames(self.level(self.out(x).float().transpose(1, 2)).transpose(1, 2), frames.count)


class Listener(nn.Module):
    """frames [B,T,E] -> voice [B,V] of length one: mean and deviation over the frames of a row."""

    def __init__(self, dim: int, width: int, voice: int) -> None:
        super().__init__()
        self.down = nn.Linear(dim, width)
        self.out = nn.Linear(2 * width, voice)

    def forward(self, frames: Frames) -> Tensor:
        real, count = frames.real[..., None], frames.count[:, None]
        x = F.gelu(self.down(frames.x)) * real  # [B,T,W]
        mean = x.sum(1) / count
        spread = (((x - mean[:, None]) * real).square().sum(1) / count + 1e-5).sqrt()
        return F.normalize(self.out(torch.cat([mean, spread], -1)).float(), dim=-1)
