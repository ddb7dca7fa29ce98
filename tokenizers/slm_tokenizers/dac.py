"""DAC, the Descript Audio Codec: EnCodec's successor for all kinds of sound, at 44.1, 24 or 16 kHz.

    audio [B,1,N] -> encoder -> latent [B,D,T] -> factorised residual VQ [B,Q,T] -> decoder -> audio [B,1,T*hop]

Kumar et al., 2023, "High-Fidelity Audio Compression with Improved RVQGAN". The weights come from a checkpoint, or from
learning_dac.py. It is not causal, and its activation is periodic: snake, Ziyin et al., 2020. What the package does around the
model, bringing a file to -16 dB and coding long ones in windows, is not done here.

B batch, N samples, D width of a latent, Q levels, T = ceil(N / hop) frames; inside the network a tensor is [B,W,L].
The names of the weights are those of the transformers layout; weight norm is folded into the weights.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.errors import SlmError
from slm_tokenizers.mono import check_audio, cut
from slm_tokenizers.quantize.factorised import Factorised


class DAC(nn.Module):
    """Audio [B,1,N] at `rate` Hz <-> codes [B,Q,T] long in 0..card-1, one frame each `hop` samples."""

    @dataclass
    class Config:
        """The defaults are the published 44.1 kHz model at 8 kbit/s; `ratios` in the decoder's order, the reverse of the encoder's."""

        rate: int = 44_100  # Hz
        n_q: int = 9
        card: int = 1024
        code_dim: int = 8
        dim: int | None = None  # width of a latent; None: that of the encoder's last layer
        encoder_filters: int = 64
        decoder_filters: int = 1536
        ratios: tuple[int, ...] = (8, 8, 4, 2)

        def build(self) -> "DAC":
            """A module with random weights. SlmError if the fields contradict each other."""
            return DAC(self)

        @property
        def width(self) -> int:
            return self.dim or self.encoder_filters * 2 ** len(self.ratios)

    def __init__(self, config: Config):
        super().__init__()
        check(config)
        self.config = config
        self.rate, self.n_q, self.card, self.hop = config.rate, config.n_q, config.card, math.prod(config.ratios)
        self.encoder = Encoder(config)
        self.quantizer = Factorised(config.n_q, config.card, config.width, config.code_dim)
        self.decoder = Decoder(config)

    @torch.no_grad()
    def encode(self, audio: Tensor, n_q: int | None = None) -> Tensor:
        """audio [B,1,N] -> codes [B,Q,T] of the first `n_q` levels, all by default; silence completes the last frame.

        So do the package and the feature extractor of transformers; its bare model drops the samples after the last whole
        frame instead. The padding of a short row in a batch is heard in that row's last frames. SlmError on other channels,
        no samples, NaN, or a level count that the codebooks do not have.
        """
        check_audio(audio)
        return self.quantizer.encode(self.latent(audio), n_q)

    def latent(self, audio: Tensor) -> Tensor:
        """audio [B,1,N] -> unquantised latent [B,D,T]"""
        return self.encoder(F.pad(audio, (0, -audio.shape[-1] % self.hop)))

    @torch.no_grad()
    def decode(self, codes: Tensor, samples: int | None = None) -> Tensor:
        """codes [B,Q',T] of the first Q' levels -> audio [B,1,samples], by default samples = T*hop.

        A decoder with an odd ratio makes a few samples less than T*hop (8 at ratios 8, 5, 4, 2), and the published ones end
        there; here silence takes their place, so that as many samples return as came in. SlmError on a code or level out of range,
        or more samples than T*hop.
        """
        audio = self.decoder(self.quantizer.decode(codes))
        return cut(F.pad(audio, (0, codes.shape[-1] * self.hop - audio.shape[-1])), samples)


class Encoder(nn.Module):
    """audio [B,1,T*hop] -> z [B,D,T]."""

    def __init__(self, config: DAC.Config):
        super().__init__()
        width = config.encoder_filters
        self.conv1 = nn.Conv1d(1, width, 7, padding=3)
        self.block = nn.Sequential()
        for ratio in reversed(config.ratios):
            self.block.append(Down(width, ratio))
            width *= 2
        self.snake1 = Snake(width)
        self.conv2 = nn.Conv1d(width, config.width, 3, padding=1)

    def forward(self, audio: Tensor) -> Tensor:
        return self.conv2(self.snake1(self.block(self.conv1(audio))))


class Decoder(nn.Module):
    """z [B,D,T] -> audio in -1..1 [B,1,T*hop], or a few samples less."""

    def __init__(self, config: DAC.Config):
        super().__init__()
        width = config.decoder_filters
        self.conv1 = nn.Conv1d(config.width, width, 7, padding=3)
        self.block = nn.Sequential()
        for ratio in config.ratios:
            self.block.append(Up(width, ratio))
            width //= 2
        self.snake1 = Snake(width)
        self.conv2 = nn.Conv1d(width, 1, 7, padding=3)

    def forward(self, z: Tensor) -> Tensor:
        return self.conv2(self.snake1(self.block(self.conv1(z)))).tanh()


class Down(nn.Module):
    """x [B,W,L] -> [B,2W,L/ratio]."""

    def __init__(self, width: int, ratio: int):
        super().__init__()
        self.res_unit1, self.res_unit2, self.res_unit3 = Residual(width, 1), Residual(width, 3), Residual(width, 9)
        self.snake1 = Snake(width)
        self.conv1 = nn.Conv1d(width, 2 * width, 2 * ratio, ratio, padding=math.ceil(ratio / 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv1(self.snake1(self.res_unit3(self.res_unit2(self.res_unit1(x)))))


class Up(nn.Module):
    """x [B,W,L] -> [B,W/2,L*ratio], one sample less if the ratio is odd."""

    def __init__(self, width: int, ratio: int):
        super().__init__()
        self.snake1 = Snake(width)
        self.conv_t1 = nn.ConvTranspose1d(width, width // 2, 2 * ratio, ratio, padding=math.ceil(ratio / 2))
        width //= 2
        self.res_unit1, self.res_unit2, self.res_unit3 = Residual(width, 1), Residual(width, 3), Residual(width, 9)

    def forward(self, x: Tensor) -> Tensor:
        return self.res_unit3(self.res_unit2(self.res_unit1(self.conv_t1(self.snake1(x)))))


class Residual(nn.Module):
    """x [B,W,L] -> [B,W,L]: a dilated convolution beside a skip path."""

    def __init__(self, width: int, dilation: int):
        super().__init__()
        self.snake1 = Snake(width)
        self.conv1 = nn.Conv1d(width, width, 7, dilation=dilation, padding=3 * dilation)
        self.snake2 = Snake(width)
        self.conv2 = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.snake2(self.conv1(self.snake1(x))))


class Snake(nn.Module):
    """x [B,W,L] -> x + sin²(a x) / a, with a learnt frequency `a` for each of the W channels."""

    def __init__(self, width: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.alpha + 1e-9).reciprocal() * torch.sin(self.alpha * x).pow(2)


def khz24() -> DAC.Config:
    """The published 24 kHz model: 75 frames a second, 32 levels."""
    return DAC.Config(rate=24_000, n_q=32, ratios=(8, 5, 4, 2))


def khz16() -> DAC.Config:
    """The published 16 kHz model: 50 frames a second, 12 levels."""
    return DAC.Config(rate=16_000, n_q=12, ratios=(8, 5, 4, 2))


def check(config: DAC.Config) -> None:
    for name in ("rate", "n_q", "card", "code_dim", "encoder_filters", "width"):
        if getattr(config, name) < 1:
            raise SlmError(f"{name} is {getattr(config, name)} but must be at least 1")
    # With a ratio of 1 the padding of the published layers would make a frame more on the way in and one less on the way out.
    if not config.ratios or min(config.ratios) < 2:
        raise SlmError(f"ratios are {tuple(config.ratios)} but must be one or more whole numbers from 2 up")
    if config.decoder_filters < 1 or config.decoder_filters % 2 ** len(config.ratios):
        raise SlmError(f"decoder_filters is {config.decoder_filters} but must be a multiple of {2 ** len(config.ratios)}")
