"""MambaOut's gated convolution (Yu & Wang, 2024): Mamba's block without its state space model.

    x + fc2(gelu(g) * [i, conv(c)])        g, i, c = split(fc1(norm(x)))

A causal one hears kernel-1 steps back in every layer and nothing beyond: the control that shows what a state is good for.
A bidirectional one, as published for images, hears half a kernel to each side.

B batch   S steps   D width   I inner width   M channels that are convolved   K kernel
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.backbone.convolve import convolve, tail, widen
from slm.backbone.ssd import runs
from slm.errors import SlmError


@dataclass
class State:
    """Per layer, the last inputs of the convolution [B,K-1,M]."""

    conv: list[Tensor]


class GatedConv(nn.Module):
    """x [B,S,D] -> hidden [B,S,D], causal with a state of K-1 steps a layer, or bidirectional without one."""

    @dataclass
    class Config:
        dim: int = 256
        depth: int = 6
        kernel: int = 7
        expand: float = 8 / 3
        share: float = 1.0  # channels that are convolved, as a share of dim
        causal: bool = True
        dropout: float = 0.0

        def build(self) -> "GatedConv":
            return GatedConv(self)

    def __init__(self, config: "GatedConv.Config") -> None:
        super().__init__()
        if config.kernel < 2 or not (config.causal or config.kernel % 2):
            raise SlmError(f"GatedConv: kernel = {config.kernel} must be at least 2, and odd where causal=False.")
        if not 0 < config.share <= config.expand:
            raise SlmError(f"GatedConv: share = {config.share} must be above 0 and at most expand = {config.expand}.")
        self.config, self.dim, self.causal = config, config.dim, config.causal
        self.layers = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)

    def start(self, batch: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> State:
        """The state of `batch` rows that have seen nothing. SlmError: the backbone is not causal."""
        self._check(stateful=True)
        weight = self.layers[0].fc1.weight
        shape = (batch, self.config.kernel - 1, self.layers[0].channels)
        return State([torch.zeros(shape, device=device or weight.device, dtype=dtype or weight.dtype) for _ in self.layers])

    def forward(
        self, x: Tensor, state: State | None = None, lengths: Tensor | None = None, documents: Tensor | None = None, cond: None = None
    ) -> tuple[Tensor, State | None]:
        """x [B,S,D] -> hidden [B,S,D] and, if a state was given, the state after each row's `lengths` [B] real steps.

        documents [B,S]: ids of documents packed side by side; nothing crosses from one to the next (only without a state).
        """
        self._check(state is not None, documents, cond)
        run = None if documents is None else runs(documents)
        real = None  # a causal step never hears the padding behind it
        if lengths is not None and not self.causal:
            real = (torch.arange(x.shape[1], device=x.device) < lengths[:, None])[..., None]
        after = None if state is None else State([])
        for i, layer in enumerate(self.layers):
            x, past = layer(x, None if state is None else state.conv[i], lengths, run, real)
            if after is not None:
                after.conv.append(past)
        return self.norm(x), after

    def _check(self, stateful: bool, documents: Tensor | None = None, cond: None = None) -> None:
        if stateful and not self.causal:
            raise SlmError("GatedConv(causal=False) keeps no state: every step needs the future.")
        if stateful and documents is not None:
            raise SlmError("documents are packed only where no state is kept; give a state or documents, not both.")
        if cond is not None:
            raise SlmError("GatedConv takes no conditioning vector; use Transformer.Config(adaptive=...) or put it in the stream.")


class Block(nn.Module):
    def __init__(self, config: GatedConv.Config) -> None:
        super().__init__()
        self.kernel, self.causal = config.kernel, config.causal
        self.inner, self.channels = int(config.expand * config.dim), int(config.share * config.dim)
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)
        self.fc1 = nn.Linear(config.dim, 2 * self.inner)
        self.conv = nn.Conv1d(self.channels, self.channels, config.kernel, groups=self.channels)
        self.fc2 = nn.Linear(self.inner, config.dim)
        self.dropout = nn.Dropout(config.dropout)
        for layer, std in ((self.fc1, 0.02), (self.fc2, 0.02 / math.sqrt(2 * config.depth))):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(
        self, x: Tensor, past: Tensor | None, lengths: Tensor | None, run: Tensor | None, real: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        gate, kept, heard = self.fc1(self.norm(x)).split([self.inner, self.inner - self.channels, self.channels], -1)
        if real is not None:
            heard = heard * real
        before = self.kernel - 1 if self.causal else self.kernel // 2
        window = widen(heard, past, before, self.kernel - 1 - before)
        heard = convolve(window, self.conv.weight, self.conv.bias, x.shape[1], run, centre=before)
        y = self.fc2(F.gelu(gate) * torch.cat([kept, heard], -1))
        return x + self.dropout(y), None if past is None else tail(window, self.kernel - 1, lengths).to(past.dtype)
