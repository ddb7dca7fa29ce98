"""Our own codec: a spectral SoundStream whose first level is taught to be semantic.

    audio [B,1,N] -> STFT -> encoder -> latent [B,D,T] -> residual VQ [B,Q,T] -> decoder -> iSTFT -> audio [B,1,N]

    B batch   N samples   T = ceil(N / hop) frames   F = spectrum frames, `fine` a frame   D latent width   W layer width

Residual VQ and quantiser dropout follow SoundStream (Zeghidour et al., 2021), the taught first level SpeechTokenizer
(Zhang et al., 2023), the ConvNeXt + iSTFT decoder Vocos (Siuzdak, 2023). Everything heavy runs at frame rate, so that
a CPU can train it and speaks much faster than real time. All layers look at a finite neighbourhood
(`receptive_field` frames to each side), so a long file can be decoded in pieces with the same result.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.errors import SlmError
from slm_tokenizers import stored
from slm_tokenizers.quantize.residual import Codebooks

KERNEL = 7


class Block(nn.Module):
    """ConvNeXt in one dimension (Liu et al., 2022): depthwise convolution, norm, a two-layer perceptron. [B,F,W] -> [B,F,W]"""

    def __init__(self, width: int, depth: int, expand: int = 3) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, KERNEL, padding=KERNEL // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, expand * width)
        self.down = nn.Linear(expand * width, width)
        self.scale = nn.Parameter(torch.full((width,), 1.0 / depth))

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        return x + self.scale * self.down(F.gelu(self.up(self.norm(y))))


class Stack(nn.Module):
    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, depth) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class Encoder(nn.Module):
    """audio [B,1,T*hop] -> latent [B,T,D]"""

    def __init__(self, c: "Codec.Config") -> None:
        super().__init__()
        self.hop, self.fine, self.n_fft = c.hop // c.fine, c.fine, c.n_fft
        self.register_buffer("window", torch.hann_window(c.n_fft), persistent=False)
        self.stem = nn.Linear(c.n_fft // 2 + 1, c.enc_width)
        self.high = Stack(c.enc_width, c.enc_high)
        self.fold = nn.Linear(c.fine * c.enc_width, c.enc_width)
        self.low = Stack(c.enc_width, c.enc_low)
        self.norm = nn.LayerNorm(c.enc_width)
        self.out = nn.Linear(c.enc_width, c.dim)

    def forward(self, audio: Tensor) -> Tensor:
        with torch.autocast(audio.device.type, enabled=False):
            side = (self.n_fft - self.hop) // 2
            x = F.pad(audio.float().squeeze(1), (side, self.n_fft - self.hop - side))
            frames = x.unfold(-1, self.n_fft, self.hop) * self.window  # [B,F,n_fft]
            spectrum = torch.log(torch.fft.rfft(frames).abs() + 1e-3)  # [B,F,bins]
        x = self.high(self.stem(spectrum))
        x = self.fold(x.reshape(x.shape[0], x.shape[1] // self.fine, -1))
        return self.out(self.norm(self.low(x))).float()


class Decoder(nn.Module):
    """latent [B,T,D] -> audio [B,1,T*hop]"""

    def __init__(self, c: "Codec.Config") -> None:
        super().__init__()
        from slm_vocoders.istft import ISTFTHead

        self.fine = c.fine
        self.stem = nn.Linear(c.dim, c.dec_width)
        self.low = Stack(c.dec_width, c.dec_low)
        self.unfold = nn.Linear(c.dec_width, c.fine * c.dec_high_width)
        self.high = Stack(c.dec_high_width, c.dec_high)
        self.norm = nn.LayerNorm(c.dec_high_width)
        self.head = ISTFTHead(c.dec_high_width, c.n_fft, c.hop // c.fine)

    def forward(self, latent: Tensor) -> Tensor:
        x = self.unfold(self.low(self.stem(latent)))
        x = self.high(x.reshape(x.shape[0], x.shape[1] * self.fine, -1))
        return self.head(self.norm(x))


class Codec(nn.Module):
    """Audio at `rate` Hz <-> `n_q` levels of `card` codes, one frame each `hop` samples.

    The first level is the semantic one: while training, a head predicts a speech recogniser's features from it.
    """

    @dataclass
    class Config:
        rate: int = 16000
        hop: int = 320
        n_q: int = 8
        card: int = 1024
        dim: int = 64  # width of the quantised latent
        n_fft: int = 640
        fine: int = 2  # spectrum frames a code frame
        enc_width: int = 256
        enc_high: int = 2
        enc_low: int = 4
        dec_width: int = 384
        dec_low: int = 5
        dec_high_width: int = 256
        dec_high: int = 4

        def build(self) -> "Codec":
            return Codec(self)

    def __init__(self, config: "Codec.Config") -> None:
        super().__init__()
        c = self.config = config
        self.rate, self.hop, self.n_q, self.card = c.rate, c.hop, c.n_q, c.card
        self.encoder = Encoder(c)
        self.codebooks = Codebooks(c.n_q, c.card, c.dim)
        self.decoder = Decoder(c)

    @property
    def receptive_field(self) -> int:
        """Frames of context on each side that decide a frame of codes or of decoded audio, whichever needs more."""
        c, side = self.config, KERNEL // 2
        spill = -(-c.n_fft // (c.hop // c.fine))  # fine frames that overlap in the STFT and its inverse
        return max(low * side + -(-(high * side + spill) // c.fine) + 1 for low, high in ((c.enc_low, c.enc_high), (c.dec_low, c.dec_high)))

    def as_stored(self) -> "Codec":
        """Rounds the weights to what `save` writes, so that codes made now are those of the codec that is loaded later."""
        return stored.rounded(self)

    def frames(self, samples: int) -> int:
        return -(-samples // self.hop)

    def latent(self, audio: Tensor) -> Tensor:
        """audio [B,1,N] -> unquantised latent [B,D,T]"""
        if audio.ndim != 3 or audio.shape[1] != 1:
            raise SlmError(f"the codec hears mono audio [B,1,N], not {list(audio.shape)}")
        if audio.shape[-1] == 0:
            raise SlmError("the codec was given no samples; it needs at least one")
        if not audio.isfinite().all():
            raise SlmError("audio holds NaN or infinite samples")
        n = audio.shape[-1]
        return self.encoder(F.pad(audio, (0, self.frames(n) * self.hop - n))).transpose(1, 2)

    @torch.no_grad()
    def encode(self, audio: Tensor, n_q: int | None = None) -> Tensor:
        """audio [B,1,N] at `rate` Hz -> codes [B,Q,ceil(N/hop)]"""
        return self.codebooks.encode(self.latent(audio), n_q)

    @torch.no_grad()
    def decode(self, codes: Tensor, samples: int | None = None) -> Tensor:
        """codes [B,Q,T], any prefix of the levels -> audio [B,1,T*hop], cut to `samples`."""
        audio = self.sound(self.codebooks.decode(codes))
        return audio if samples is None else audio[..., :samples]

    @torch.no_grad()
    def sound(self, latent: Tensor) -> Tensor:
        """latent [B,D,T], codes' vectors summed or something near them -> audio [B,1,T*hop]"""
        return self.decoder(latent.transpose(1, 2))


def tiny(n_q: int = 3, card: int = 16) -> Codec.Config:
    """A codec that trains in seconds, for the small side of recipes."""
    narrow = dict(enc_width=16, enc_high=1, enc_low=1, dec_width=16, dec_low=1, dec_high_width=16, dec_high=1)
    return Codec.Config(n_q=n_q, card=card, dim=8, **narrow)


save, load = stored.save, stored.load
