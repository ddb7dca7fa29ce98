"""SpeechTokenizer: a residual codec whose first level was taught what HuBERT hears, so that it tells the words and the rest the voice.

Zhang et al., 2023, "SpeechTokenizer: Unified Speech Tokenizer for Speech Large Language Models". EnCodec's network, not causal and
wider, at 16 kHz, with an LSTM in both directions in the encoder. Inference only: the weights come from a checkpoint. A variant has
DAC's activation, Snake (Ziyin et al., 2020), in place of ELU.

B batch, N samples, D width of a latent, Q levels, T frames of `hop` samples; T = ceil(N / hop).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slm.errors import SlmError
from slm_tokenizers.dac import Snake
from slm_tokenizers.mono import check_audio, cut
from slm_tokenizers.quantize.residual import Codebooks, check_codes
from slm_tokenizers.seanet import Decoder, Encoder, Shape
from slm_tokenizers.streaming import StreamDecoder, StreamEncoder


class SpeechTokenizer(nn.Module):
    """audio [B,1,N] at `rate` Hz <-> codes [B,Q,T] long in 0..card-1. Level 0 is the semantic one."""

    @dataclass
    class Config:
        """The defaults are the published model's. `ratios` are in the decoder's order, the encoder's strides backwards."""

        rate: int = 16_000  # Hz
        n_q: int = 8
        card: int = 1024
        dim: int = 1024
        n_filters: int = 64
        ratios: tuple[int, ...] = (8, 5, 4, 2)
        residuals: int = 1
        residual_kernel: int = 3
        dilation: int = 2
        lstm: int = 2
        bidirectional: bool = True
        snake: bool = False  # instead of ELU

        def build(self) -> "SpeechTokenizer":
            """A module with random weights. SlmError if the fields contradict each other."""
            return SpeechTokenizer(self)

        def shape(self) -> Shape:
            return Shape(
                dim=self.dim, n_filters=self.n_filters, ratios=self.ratios, causal=False, residuals=self.residuals, lstm=self.lstm,
                residual_kernel=self.residual_kernel, dilation=self.dilation, bidirectional=self.bidirectional,
            )  # fmt: skip

    def __init__(self, config: Config):
        super().__init__()
        check(config)
        shape = config.shape()
        self.config = config
        self.rate, self.hop, self.n_q, self.card = config.rate, shape.hop, config.n_q, config.card
        self.encoder = Encoder(shape)
        self.decoder = Decoder(shape)
        if config.snake:
            snaked(self.encoder), snaked(self.decoder)
        self.quantizer = Codebooks(config.n_q, config.card, config.dim)

    @torch.no_grad()
    def encode(self, audio: Tensor, n_q: int | None = None) -> Tensor:
        """audio [B,1,N] -> codes [B,Q,T] of the first `n_q` levels, all by default. SlmError on another shape, NaN, less than a frame.

        A frame hears the whole row: padding a row changes its codes.
        """
        check_audio(audio)
        if audio.shape[-1] < self.hop:
            raise SlmError(f"audio has {audio.shape[-1]} samples but this codec needs at least one frame of {self.hop}")
        return self.quantizer.encode(self.encoder(audio), n_q)

    @torch.no_grad()
    def decode(self, codes: Tensor, samples: int | None = None, first: int = 0) -> Tensor:
        """codes [B,Q',T] of Q' levels from `first` on -> audio [B,1,samples], by default samples = T*hop.

        Level 0 alone is the words without the voice; levels from 1 on, the reverse. SlmError on a code or level out of range.
        """
        check_codes(codes, self.n_q, self.card)
        return cut(self.decoder(self.quantizer.decode(codes, first)), samples)

    def stream_encoder(self) -> StreamEncoder:
        """Always an SlmError: this codec is not causal."""
        return StreamEncoder(self.encoder, self.quantizer, 1, self.hop, self.n_q)

    def stream_decoder(self, samples: int | None = None) -> StreamDecoder:
        """Always an SlmError: this codec is not causal."""
        return StreamDecoder(self.decoder, self.quantizer, self.hop, samples)


def snaked(net: nn.Module) -> None:
    """Puts a Snake in the place of each ELU, as wide as the convolution behind it."""
    for layers in [part for part in net.modules() if isinstance(part, nn.Sequential)]:
        for i, layer in enumerate(layers):
            if isinstance(layer, nn.ELU):
                layers[i] = Snake(layers[i + 1].conv.in_channels)


def check(config: SpeechTokenizer.Config) -> None:
    for name in ("rate", "n_q", "card", "dim", "n_filters", "residuals", "residual_kernel", "dilation"):
        if getattr(config, name) < 1:
            raise SlmError(f"{name} is {getattr(config, name)} but must be at least 1")
    if not config.ratios or min(config.ratios) < 1:
        raise SlmError(f"ratios are {tuple(config.ratios)} but must be one or more whole numbers from 1 up")
