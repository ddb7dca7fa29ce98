"""The encoder of w2v-BERT 2.0: a Conformer over a filterbank.

Chung et al., 2021, "w2v-BERT: Combining Contrastive Learning and Masked Language Modeling for Self-Supervised Speech
Pre-Training"; Seamless Communication, 2023, for the second version, whose blocks these are; Gulati et al., 2020, "Conformer".

B batch, N samples, T frames, C width of a filterbank vector, D width, H heads, E width of a head, P distances.

Layer 0 is what enters the first block, layer i what leaves the i-th. A row of a padded batch is the row alone.
The names of the weights are those of transformers. Attention has no dropout of its own.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.errors import SlmError
from slm_tokenizers.semantic.encoder import FeedForward, Heard, Projection, dropped, hide, one_layer
from slm_tokenizers.semantic.features import Frames, inside, rectangle
from slm_tokenizers.semantic.filterbank import Filterbank


class Conformer(nn.Module):
    """audio [B,1,N] at 16 kHz -> a vector [D] each `hop` samples."""

    @dataclass
    class Config:
        """The defaults are the published w2v-BERT 2.0."""

        mels: int = 80
        dim: int = 1024
        depth: int = 24
        heads: int = 16
        hidden: int = 4096
        kernel: int = 31  # of the depthwise convolution, which looks back only
        left: int = 64  # distances beyond which attention no longer tells how far a frame is
        right: int = 8
        maskable: bool = True
        dropout: float = 0.0
        layerdrop: float = 0.0

        def build(self) -> "Conformer":
            """A module with random weights. SlmError if the fields contradict each other."""
            return Conformer(self)

    def __init__(self, config: Config):
        super().__init__()
        if config.dim % config.heads:
            raise SlmError(f"dim is {config.dim} but must be a multiple of heads ({config.heads})")
        c = self.config = config
        self.filterbank = Filterbank(c.mels)
        self.rate, self.hop, self.field = Filterbank.rate, Filterbank.hop, Filterbank.field
        self.dim, self.depth, self.width = c.dim, c.depth, self.filterbank.dim
        self.feature_projection = Projection(self.width, c.dim, norm=True)
        if c.maskable:
            self.masked_spec_embed = nn.Parameter(torch.rand(c.dim))
        self.encoder = Blocks(c)

    def forward(self, audio: Tensor | list[Tensor], mask: Tensor | None = None) -> Heard:
        """audio [B,1,N], or rows [1,N] of any lengths; frames where mask [B,T] is true are hidden."""
        return self.contextual(self.features(*rectangle(audio)), mask)

    def features(self, audio: Tensor, lengths: Tensor) -> Frames:
        """audio [B,1,N], lengths [B] in samples -> the filterbank [B,T,C]"""
        return self.filterbank(audio, lengths)

    def contextual(self, features: Frames, mask: Tensor | None = None, upto: int | None = None) -> Heard:
        """frames [B,T,C] -> Heard, of the first `upto` layers."""
        x, normed = self.feature_projection(features.x)
        layers = self.encoder(hide(self, x, mask), features.count, upto)
        return Heard(layers, layers[-1], normed, features.count)

    @torch.no_grad()
    def layer(self, audio: Tensor, lengths: Tensor, index: int) -> Frames:
        """audio [B,1,N], lengths [B] -> layer `index` [B,T,D]. SlmError if there is no such layer."""
        return one_layer(self, audio, lengths, index)


class Blocks(nn.Module):
    """x [B,T,D] -> layers [B,T,D] each"""

    def __init__(self, c: Conformer.Config):
        super().__init__()
        self.layerdrop = c.layerdrop
        self.dropout = nn.Dropout(c.dropout)
        self.layers = nn.ModuleList(Block(c) for _ in range(c.depth))

    def forward(self, x: Tensor, count: Tensor, upto: int | None = None) -> list[Tensor]:
        real = inside(x.shape[1], count)
        x = self.dropout(x * real[..., None])
        layers = [x]
        for layer in self.layers[:upto]:
            if not dropped(self):
                x = layer(x, real)
            layers.append(x)
        return layers


class Block(nn.Module):
    """Half a perceptron, attention, convolution, the other half. x [B,T,D], real [B,T] -> [B,T,D]"""

    def __init__(self, c: Conformer.Config):
        super().__init__()
        self.ffn1_layer_norm, self.ffn1 = nn.LayerNorm(c.dim), FeedForward(c.dim, c.hidden, nn.SiLU(), c.dropout)
        self.self_attn_layer_norm, self.self_attn = nn.LayerNorm(c.dim), RelativeAttention(c.dim, c.heads, c.left, c.right)
        self.conv_module = LookBack(c.dim, c.kernel)
        self.ffn2_layer_norm, self.ffn2 = nn.LayerNorm(c.dim), FeedForward(c.dim, c.hidden, nn.SiLU(), c.dropout)
        self.final_layer_norm = nn.LayerNorm(c.dim)
        self.dropout = nn.Dropout(c.dropout)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        x = x + 0.5 * self.ffn1(self.ffn1_layer_norm(x))
        x = x + self.dropout(self.self_attn(self.self_attn_layer_norm(x), real))
        x = x + self.dropout(self.conv_module(x))
        x = x + 0.5 * self.ffn2(self.ffn2_layer_norm(x))
        return self.final_layer_norm(x)


class RelativeAttention(nn.Module):
    """Each query also scores the distance to a key, from `left` steps back to `right` steps ahead (Shaw et al., 2018).

    x [B,T,D], real [B,T] -> [B,T,D]
    """

    def __init__(self, dim: int, heads: int, left: int, right: int):
        super().__init__()
        self.heads, self.left, self.right = heads, left, right
        self.linear_q, self.linear_k, self.linear_v, self.linear_out = (nn.Linear(dim, dim) for _ in range(4))
        self.distance_embedding = nn.Embedding(left + right + 1, dim // heads)

    def forward(self, x: Tensor, real: Tensor) -> Tensor:
        q, k, v = (p(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in (self.linear_q, self.linear_k, self.linear_v))  # [B,H,T,E]
        steps = torch.arange(x.shape[1], device=x.device)
        distance = (steps - steps[:, None]).clamp(-self.left, self.right) + self.left  # [T,T]
        far = q @ self.distance_embedding.weight.to(q.dtype).T  # [B,H,T,P]
        far = far.gather(-1, distance.expand(*far.shape[:2], -1, -1))
        scores = (q @ k.transpose(-1, -2) + far) * q.shape[-1] ** -0.5
        scores = scores.masked_fill(~real[:, None, None], torch.finfo(scores.dtype).min)
        return self.linear_out((scores.softmax(-1).to(v.dtype) @ v).transpose(1, 2).flatten(-2))


class LookBack(nn.Module):
    """The convolution of a block: gated, depthwise, over the `kernel` steps that end here. [B,T,D] -> [B,T,D]

    Padding on the right can never reach a row, so it need not be taken out.
    """

    def __init__(self, dim: int, kernel: int):
        super().__init__()
        self.layer_norm = nn.LayerNorm(dim)
        self.pointwise_conv1 = nn.Conv1d(dim, 2 * dim, 1, bias=False)
        self.depthwise_conv = nn.Conv1d(dim, dim, kernel, groups=dim, bias=False)
        self.depthwise_layer_norm = nn.LayerNorm(dim)
        self.pointwise_conv2 = nn.Conv1d(dim, dim, 1, bias=False)
        self.kernel = kernel

    def forward(self, x: Tensor) -> Tensor:
        x = F.glu(self.pointwise_conv1(self.layer_norm(x).transpose(1, 2)), dim=1)  # [B,D,T]
        x = self.depthwise_conv(F.pad(x, (self.kernel - 1, 0)))
        x = F.silu(self.depthwise_layer_norm(x.transpose(1, 2)))
        return self.pointwise_conv2(x.transpose(1, 2)).transpose(1, 2)
