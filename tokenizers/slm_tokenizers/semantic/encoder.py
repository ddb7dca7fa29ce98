"""The encoder of wav2vec 2.0 and HuBERT: convolutions, then a Transformer that sees the whole recording.

Baevski et al., 2020, "wav2vec 2.0"; Hsu et al., 2021, "HuBERT: Self-Supervised Speech Representation Learning by Masked
Prediction of Hidden Units". Both are this network; what they are trained for differs (contrastive.py, masked_units.py).

B batch, N samples, T frames, C channels of the convolutions, D width, H heads, E width of a head.

Layer 0 is what enters the first block, layer i what leaves the i-th. A row of a padded batch is the row alone: its length
in samples must be given. transformers keeps this promise for models with layer norms only; for those with a group norm,
which it advises to feed unmasked, we do what it does for a row by itself.
The names of the weights are those of transformers. Attention has no dropout of its own.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from slm.errors import SlmError
from slm.nn.attention import attend
from slm_tokenizers.semantic.features import Convolutions, Frames, inside, levelled, rectangle


@dataclass
class Heard:
    """What an encoder made of a batch; row b has `count[b]` frames."""

    layers: list[Tensor]  # [B,T,D] each, layer 0 first
    out: Tensor  # [B,T,D], the last of them, normalised where the model ends with a norm
    features: Tensor  # [B,T,C], what went in, normalised and never masked
    count: Tensor  # [B] long


class SpeechEncoder(nn.Module):
    """audio [B,1,N] at `rate` Hz -> a vector [D] each `hop` samples."""

    @dataclass
    class Config:
        """The defaults are the published BASE models; `large()` gives the others."""

        rate: int = 16_000  # Hz
        widths: tuple[int, ...] = (512,) * 7
        kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
        strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
        bias: bool = False  # of the convolutions
        norm: str = "group"  # of the convolutions: group or layer
        project_norm: bool = True  # a norm between convolutions and Transformer
        normalize: bool = False  # each recording to mean 0 and variance 1
        dim: int = 768
        depth: int = 12
        heads: int = 12
        hidden: int = 3072
        pre_norm: bool = False
        positions: int = 128  # kernel of the convolution that tells where a frame is
        groups: int = 16
        maskable: bool = True  # has a vector that stands for a hidden frame
        dropout: float = 0.1
        layerdrop: float = 0.05

        def build(self) -> "SpeechEncoder":
            """A module with random weights. SlmError if the fields contradict each other."""
            return SpeechEncoder(self)

    def __init__(self, config: Config):
        super().__init__()
        if config.dim % config.heads or config.dim % config.groups:
            raise SlmError(f"dim is {config.dim} but must be a multiple of heads ({config.heads}) and of groups ({config.groups})")
        c = self.config = config
        self.feature_extractor = Convolutions(c.widths, c.kernels, c.strides, c.bias, c.norm)
        self.rate, self.hop, self.field = c.rate, self.feature_extractor.hop, self.feature_extractor.field
        self.dim, self.depth, self.width = c.dim, c.depth, c.widths[-1]
        self.feature_projection = Projection(self.width, c.dim, c.project_norm)
        if c.maskable:
            self.masked_spec_embed = nn.Parameter(torch.rand(c.dim))
        self.encoder = Transformer(c)

    def forward(self, audio: Tensor | list[Tensor], mask: Tensor | None = None) -> Heard:
        """audio [B,1,N], or rows [1,N] of any lengths; frames where mask [B,T] is true are hidden."""
        return self.contextual(self.features(*rectangle(audio)), mask)

    def features(self, audio: Tensor, lengths: Tensor) -> Frames:
        """audio [B,1,N], lengths [B] in samples -> frames [B,T,C] that have heard `field` samples each."""
        return self.feature_extractor(levelled(audio, lengths) if self.config.normalize else audio, lengths)

    def contextual(self, features: Frames, mask: Tensor | None = None, upto: int | None = None) -> Heard:
        """frames [B,T,C] -> Heard, of the first `upto` layers."""
        x, normed = self.feature_projection(features.x)
        x = hide(self, x, mask)
        layers, out = self.encoder(x, features.count, upto)
        return Heard(layers, out, normed, features.count)

    @torch.no_grad()
    def layer(self, audio: Tensor, lengths: Tensor, index: int) -> Frames:
        """audio [B,1,N], lengths [B] -> layer `index` [B,T,D]. SlmError if there is no such layer."""
        return one_layer(self, audio, lengths, index)


class Projection(nn.Module):
    """x [B,T,C] -> [B,T,D], and the normalised x [B,T,C] that it was made of"""

    def __init__(self, width: int, dim: int, norm: bool):
        super().__init__()
        self.layer_norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.projection = nn.Linear(width, dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        normed = self.layer_norm(x)
        return self.projection(normed), normed


class Transformer(nn.Module):
    """x [B,T,D] -> layers, and the last of them as the model ends."""

    def __init__(self, c: SpeechEncoder.Config):
        super().__init__()
        self.pre_norm, self.layerdrop = c.pre_norm, c.layerdrop
        self.pos_conv_embed = Positions(c.dim, c.positions, c.groups)
        self.layer_norm = nn.LayerNorm(c.dim)
        self.dropout = nn.Dropout(c.dropout)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.depth))

    def forward(self, x: Tensor, count: Tensor, upto: int | None = None) -> tuple[list[Tensor], Tensor]:
        real = inside(x.shape[1], count)
        x = x * real[..., None]  # the convolution must see the zeros that it would see behind the end of a row
        x = x + self.pos_conv_embed(x)
        x = self.dropout(x if self.pre_norm else self.layer_norm(x))
        seen = None if bool(real.all()) else real[:, None, None]  # [B,1,1,T]
        layers = [x]
        for layer in self.layers[:upto]:
            if not dropped(self):
                x = layer(x, seen)
            layers.append(x)
        return layers, self.layer_norm(x) if self.pre_norm else x


class Positions(nn.Module):
    """x [B,T,D] -> [B,T,D]: a wide grouped convolution, by which a frame knows where it is relative to others."""

    def __init__(self, dim: int, kernel: int, groups: int):
        super().__init__()
        conv = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=groups)
        nn.init.normal_(conv.weight, std=2 * (kernel * dim) ** -0.5)
        nn.init.zeros_(conv.bias)
        self.conv = weight_norm(conv, dim=2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x.transpose(1, 2))[..., : x.shape[1]]  # an even kernel gives one too many
        return F.gelu(y).transpose(1, 2)


class Layer(nn.Module):
    """A Transformer block whose norms stand behind its parts, or in front of them (`pre_norm`). [B,T,D] -> [B,T,D]"""

    def __init__(self, c: SpeechEncoder.Config):
        super().__init__()
        self.pre_norm = c.pre_norm
        self.attention = Attention(c.dim, c.heads)
        self.layer_norm = nn.LayerNorm(c.dim)
        self.feed_forward = FeedForward(c.dim, c.hidden, nn.GELU(), c.dropout)
        self.final_layer_norm = nn.LayerNorm(c.dim)
        self.dropout = nn.Dropout(c.dropout)

    def forward(self, x: Tensor, seen: Tensor | None) -> Tensor:
        if self.pre_norm:
            x = x + self.dropout(self.attention(self.layer_norm(x), seen))
            return x + self.feed_forward(self.final_layer_norm(x))
        x = self.layer_norm(x + self.dropout(self.attention(x, seen)))
        return self.final_layer_norm(x + self.feed_forward(x))


class Attention(nn.Module):
    """x [B,T,D], seen broadcastable to [B,H,T,T] -> [B,T,D]"""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (nn.Linear(dim, dim) for _ in range(4))

    def forward(self, x: Tensor, seen: Tensor | None) -> Tensor:
        q, k, v = (p(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))  # [B,H,T,E]
        return self.out_proj(attend(q, k, v, seen, causal=False).transpose(1, 2).flatten(-2))


class FeedForward(nn.Module):
    """[B,T,D] -> [B,T,D]"""

    def __init__(self, dim: int, hidden: int, act: nn.Module, dropout: float):
        super().__init__()
        self.intermediate_dense = nn.Linear(dim, hidden)
        self.output_dense = nn.Linear(hidden, dim)
        self.act, self.dropout = act, nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.output_dense(self.dropout(self.act(self.intermediate_dense(x)))))


def hide(model: nn.Module, x: Tensor, mask: Tensor | None) -> Tensor:
    """x [B,T,D] with the model's `masked_spec_embed` where mask [B,T] is true; SlmError if it has none."""
    if mask is None:
        return x
    if not model.config.maskable:
        raise SlmError("this encoder has no vector for hidden frames (maskable is False), so nothing can be masked")
    return torch.where(mask[..., None], model.masked_spec_embed.to(x.dtype), x)


def one_layer(model: nn.Module, audio: Tensor, lengths: Tensor, index: int) -> Frames:
    if not 0 <= index <= model.depth:
        raise SlmError(f"layer {index} is asked for but this encoder has layers 0 to {model.depth}")
    heard = model.contextual(model.features(audio, lengths), upto=index)
    return Frames(heard.layers[index], heard.count)


def dropped(stack: nn.Module) -> bool:
    """Whether this layer is left out (layer drop, Fan et al., 2020), while training."""
    return stack.training and stack.layerdrop > 0 and float(torch.rand(())) < stack.layerdrop


def large() -> SpeechEncoder.Config:
    """wav2vec 2.0 LARGE (LV-60) and HuBERT LARGE: norms in every convolution and before every part of a block."""
    return SpeechEncoder.Config(
        bias=True, norm="layer", normalize=True, dim=1024, depth=24, heads=16, hidden=4096, pre_norm=True, layerdrop=0.0
    )  # fmt: skip
