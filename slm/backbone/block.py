"""A Transformer's layer in the three published forms, with attention to its own steps and perhaps to a memory.

    llama   x + attention(norm(x)), x + mlp(norm(x)): RMSNorm, SwiGLU, no biases (Touvron et al., 2023)
    gpt2    the same with LayerNorm, GELU by tanh and biases (Radford et al., 2019)
    bert    norm(x + attention(x)), norm(x + mlp(x)): LayerNorm, GELU, biases (Devlin et al., 2019)

B batch   S steps   D width   H heads   J key/value heads   E head width   M steps of a memory   A width of the conditioning vector
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.backbone.cache import Memory, State
from slm.backbone.masks import Reach
from slm.nn.attention import attend
from slm.nn.norm import RMSNorm
from slm.nn.rope import rotate

if TYPE_CHECKING:
    from slm.backbone.transformer import Transformer


def norm(config: "Transformer.Config") -> nn.Module:
    """The norm [...,D] of a form."""
    if config.form == "llama":
        return RMSNorm(config.dim, config.eps or 1e-5)
    return nn.LayerNorm(config.dim, eps=config.eps or (1e-12 if config.form == "bert" else 1e-5))


class Block(nn.Module):
    """With `adaptive`, each norm is scaled and shifted and each branch gated by the condition (AdaLN, Peebles & Xie, 2023)."""

    def __init__(self, config: "Transformer.Config") -> None:
        super().__init__()
        llama, self.form = config.form == "llama", config.form
        hidden = config.mlp or (max(64, round(config.dim * 8 / 3 / 64) * 64) if llama else 4 * config.dim)
        self.norm1 = norm(config)
        self.attention = Attention(config)
        self.norm2 = norm(config)
        self.gate_up = nn.Linear(config.dim, 2 * hidden, bias=False) if llama else None
        self.up = None if llama else nn.Linear(config.dim, hidden)
        self.down = nn.Linear(hidden, config.dim, bias=not llama)
        self.dropout = nn.Dropout(config.dropout)
        start(self.gate_up or self.up, 0.02)
        start(self.down, 0.02 / math.sqrt(2 * config.depth))
        self.adapt = None
        if config.adaptive:
            self.adapt = nn.Linear(config.adaptive, 6 * config.dim)
            nn.init.zeros_(self.adapt.weight)  # starts as the Transformer without a condition
            nn.init.zeros_(self.adapt.bias)
        self.norm3 = norm(config) if config.memory else None
        self.cross = Cross(config) if config.memory else None

    def forward(self, x: Tensor, reach: Reach, layer: int, state: State | None, memory: Memory | None, cond: Tensor | None) -> Tensor:
        return self._around(lambda y: self.attention(y, reach, layer, state), x, layer, memory, cond)

    def step(self, x: Tensor, turn: tuple[Tensor, Tensor] | None, layer: int, state: State, first: int, cond: Tensor | None) -> Tensor:
        """x [B,1,D], the step at the place `first` of every row -> [B,1,D]"""
        return self._around(lambda y: self.attention.step(y, turn, layer, state, first), x, layer, state.memory, cond)

    def _around(self, attention: Callable[[Tensor], Tensor], x: Tensor, layer: int, memory: Memory | None, cond: Tensor | None) -> Tensor:
        """The layer, whichever way its attention is computed."""
        if self.form == "bert":
            x = self.norm1(x + self.dropout(attention(x)))
            if memory is not None:
                x = self.norm3(x + self.dropout(self.cross(x, memory, layer)))
            return self.norm2(x + self.dropout(self._mlp(x)))
        if self.adapt is None:
            x = x + self.dropout(attention(self.norm1(x)))
            if memory is not None:
                x = x + self.dropout(self.cross(self.norm3(x), memory, layer))
            return x + self.dropout(self._mlp(self.norm2(x)))
        scale1, shift1, gate1, scale2, shift2, gate2 = self.adapt(cond).chunk(6, -1)
        y = attention(self.norm1(x) * (1 + scale1) + shift1)
        x = x + (1 + gate1) * self.dropout(y)
        if memory is not None:
            x = x + self.dropout(self.cross(self.norm3(x), memory, layer))
        y = self._mlp(self.norm2(x) * (1 + scale2) + shift2)
        return x + (1 + gate2) * self.dropout(y)

    def _mlp(self, x: Tensor) -> Tensor:
        if self.up is not None:
            return self.down(F.gelu(self.up(x), approximate="tanh" if self.form == "gpt2" else "none"))
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.down(F.silu(gate) * up)


class Attention(nn.Module):
    def __init__(self, config: "Transformer.Config") -> None:
        super().__init__()
        self.heads, self.kv_heads = config.heads, config.kv_heads or config.heads
        self.head_dim = config.head_dim or config.dim // config.heads
        bias = config.form != "llama"
        self.qkv = nn.Linear(config.dim, (self.heads + 2 * self.kv_heads) * self.head_dim, bias=bias or config.qkv_bias)
        self.out = nn.Linear(self.heads * self.head_dim, config.dim, bias=bias)
        self.q_norm = RMSNorm(self.head_dim, config.eps or 1e-5) if config.qk_norm else None
        self.k_norm = RMSNorm(self.head_dim, config.eps or 1e-5) if config.qk_norm else None
        start(self.qkv, 0.02)
        start(self.out, 0.02 / math.sqrt(2 * config.depth))

    def forward(self, x: Tensor, reach: Reach, layer: int, state: State | None) -> Tensor:
        batch, steps, _ = x.shape
        q, k, v = (t.transpose(1, 2) for t in self._heard(x, reach.turn))
        if state is not None:
            k, v = state.write(layer, k, v, reach.first, reach.places)
        y = attend(q, k, v, reach.mask, reach.causal)
        return self.out(y.transpose(1, 2).reshape(batch, steps, -1))

    def step(self, x: Tensor, turn: tuple[Tensor, Tensor] | None, layer: int, state: State, first: int) -> Tensor:
        """x [B,1,D], the step at the place `first` of every row -> y [B,1,D]; its key and value are written into `state`."""
        q, k, v = self._heard(x, turn)
        k, v = state.put(layer, k, v, first)
        # One query a row, as [B,H,1,E] and back: nothing moves in memory.
        y = F.scaled_dot_product_attention(q.view(len(x), -1, 1, self.head_dim), k, v, enable_gqa=self.heads != self.kv_heads)
        return self.out(y.view(len(x), 1, -1))

    def _heard(self, x: Tensor, turn: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor, Tensor]:
        """x [B,S,D] -> queries [B,S,H,E], keys and values [B,S,J,E]"""
        turned, v = self.qkv(x).unflatten(-1, (-1, self.head_dim)).split([self.heads + self.kv_heads, self.kv_heads], 2)
        if self.q_norm is not None:
            q, k = turned.split([self.heads, self.kv_heads], 2)
            turned = torch.cat([self.q_norm(q), self.k_norm(k)], 2)
        turned = turned if turn is None else rotate(turned, *turn)
        return *turned.split([self.heads, self.kv_heads], 2), v


class Cross(nn.Module):
    """Attention to a memory; it knows no places, and a row whose memory is empty hears nothing."""

    def __init__(self, config: "Transformer.Config") -> None:
        super().__init__()
        self.heads, self.kv_heads = config.heads, config.kv_heads or config.heads
        self.head_dim = config.head_dim or config.dim // config.heads
        self.q = nn.Linear(config.dim, self.heads * self.head_dim, bias=config.form != "llama")
        self.kv = nn.Linear(config.memory, 2 * self.kv_heads * self.head_dim, bias=config.form != "llama")
        self.out = nn.Linear(self.heads * self.head_dim, config.dim, bias=config.form != "llama")
        start(self.q, 0.02)
        start(self.kv, 0.02)
        start(self.out, 0.02 / math.sqrt(2 * config.depth))

    def remember(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """memory [B,M,·] -> keys, values [B,J,M,E]"""
        kv = self.kv(memory).unflatten(-1, (2 * self.kv_heads, self.head_dim)).transpose(1, 2)
        return kv[:, : self.kv_heads], kv[:, self.kv_heads :]

    def forward(self, x: Tensor, memory: Memory, layer: int) -> Tensor:
        q = self.q(x).unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)
        y = attend(q, memory.keys[layer].to(q.dtype), memory.values[layer].to(q.dtype), memory.mask(), False)
        return self.out(y.transpose(1, 2).flatten(-2)) * (memory.lengths > 0)[:, None, None]


def start(layer: nn.Linear, std: float) -> None:
    nn.init.normal_(layer.weight, std=std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
