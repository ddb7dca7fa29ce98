"""RWKV-4 (Peng et al., 2023): a Transformer's two branches as recurrences; leaf names as transformers saves them.

Time mixing: each channel is a weighted mean of its past (see wkv.py), let through by a receptance. Channel mixing: a squared ReLU,
let through likewise. Both hear each step beside the one before it, mixed channel by channel.

B batch   S steps   D width   F width of the channel mixing
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from slm.backbone.convolve import tail, widen
from slm.backbone.ssd import runs
from slm.backbone.wkv import NOTHING, wkv
from slm.errors import SlmError


@dataclass
class Past:
    """What one layer remembers: the last inputs of both branches [B,1,D], and the sums over the past [B,D], float32."""

    time: Tensor
    channel: Tensor
    top: Tensor
    numerator: Tensor
    denominator: Tensor


@dataclass
class State:
    """What RWKV remembers of each row, of a size that never grows."""

    layers: list[Past] = field(default_factory=list)


class RWKV(nn.Module):
    """x [B,S,D] -> hidden [B,S,D], causal, with a state of constant size."""

    causal = True

    @dataclass
    class Config:
        dim: int = 256
        depth: int = 6
        mlp: int | None = None  # None: 4 dim
        dropout: float = 0.0

        def build(self) -> "RWKV":
            return RWKV(self)

    def __init__(self, config: "RWKV.Config") -> None:
        super().__init__()
        self.config, self.dim = config, config.dim
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.depth))
        self.norm = nn.LayerNorm(config.dim)

    def start(self, batch: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> State:
        """The state of `batch` rows that have seen nothing; `dtype` is that of the last inputs."""
        weight = self.layers[0].ln1.weight
        wide = torch.promote_types(weight.dtype, torch.float32)
        device = device or weight.device

        def past() -> Past:
            step = [torch.zeros(batch, 1, self.dim, device=device, dtype=dtype or weight.dtype) for _ in range(2)]
            top, numerator, denominator = (torch.zeros(batch, self.dim, device=device, dtype=wide) for _ in range(3))
            return Past(*step, top + NOTHING, numerator, denominator)

        return State([past() for _ in self.layers])

    def forward(
        self, x: Tensor, state: State | None = None, lengths: Tensor | None = None, documents: Tensor | None = None, cond: None = None
    ) -> tuple[Tensor, State | None]:
        """x [B,S,D] -> hidden [B,S,D] and, if a state was given, the state after each row's `lengths` [B] real steps.

        documents [B,S]: ids of documents packed side by side; nothing crosses from one to the next (only without a state).
        """
        if cond is not None:
            raise SlmError("RWKV takes no conditioning vector; use Transformer.Config(adaptive=...) or put it in the stream.")
        if documents is not None and state is not None:
            raise SlmError("documents are packed only where no state is kept; give a state or documents, not both.")
        run = None if documents is None else runs(documents)
        after = None if state is None else State()
        for i, layer in enumerate(self.layers):
            x, past = layer(x, None if state is None else state.layers[i], lengths, run)
            if after is not None:
                after.layers.append(past)
        return self.norm(x), after


class Block(nn.Module):
    def __init__(self, config: RWKV.Config, index: int) -> None:
        super().__init__()
        self.pre_ln = nn.LayerNorm(config.dim) if index == 0 else nn.Identity()
        self.ln1 = nn.LayerNorm(config.dim)
        self.attention = TimeMix(config, index)
        self.ln2 = nn.LayerNorm(config.dim)
        self.feed_forward = ChannelMix(config, index)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, past: Past | None, lengths: Tensor | None, run: Tensor | None) -> tuple[Tensor, Past | None]:
        x = self.pre_ln(x)
        window = widen(self.ln1(x), None if past is None else past.time, 1)
        y, sums = self.attention(*_pair(window, run), None if past is None else (past.top, past.numerator, past.denominator), run)
        x = x + self.dropout(y)
        fed = widen(self.ln2(x), None if past is None else past.channel, 1)
        x = x + self.dropout(self.feed_forward(*_pair(fed, run)))
        if past is None:
            return x, None
        last = [tail(w, 1, lengths).to(old.dtype) for w, old in ((window, past.time), (fed, past.channel))]
        return x, Past(*last, *(tail(s, 1, lengths)[:, 0] for s in sums))


class TimeMix(nn.Module):
    def __init__(self, config: RWKV.Config, index: int) -> None:
        super().__init__()
        dim, early, late = config.dim, 1 - index / config.depth, index / max(1, config.depth - 1)
        channel = torch.arange(dim) / dim
        # The published ranges: slow channels first, and the lower the layer the more each step hears of itself.
        self.time_decay = nn.Parameter(-5 + 8 * (torch.arange(dim) / max(1, dim - 1)) ** (0.7 + 1.3 * late))
        self.time_first = nn.Parameter(math.log(0.3) + 0.5 * ((torch.arange(dim) + 1) % 3 - 1))
        self.time_mix_key = nn.Parameter((channel**early)[None, None])
        self.time_mix_value = nn.Parameter((channel**early + 0.3 * late)[None, None])
        self.time_mix_receptance = nn.Parameter((channel ** (0.5 * early))[None, None])
        self.key, self.value, self.receptance = (_linear(dim, dim, 0.02) for _ in range(3))
        self.output = _linear(dim, dim, 0.02 / math.sqrt(2 * config.depth))

    def forward(self, x: Tensor, before: Tensor, past: tuple[Tensor, ...] | None, run: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """x and the steps before it [B,S,D] -> [B,S,D], and the sums after 0 .. S steps, each [B,S+1,D]"""
        wide = torch.promote_types(self.time_decay.dtype, torch.float32)
        k = self.key(_mix(x, before, self.time_mix_key)).to(wide)
        v = self.value(_mix(x, before, self.time_mix_value)).to(wide)
        receptance = self.receptance(_mix(x, before, self.time_mix_receptance)).sigmoid()
        y, sums = wkv(k, v, self.time_decay.to(wide).exp(), self.time_first.to(wide), past, run)
        return self.output(receptance * y.to(receptance.dtype)), sums


class ChannelMix(nn.Module):
    def __init__(self, config: RWKV.Config, index: int) -> None:
        super().__init__()
        dim, hidden = config.dim, config.mlp or 4 * config.dim
        channel = (torch.arange(dim) / dim) ** (1 - index / config.depth)
        self.time_mix_key = nn.Parameter(channel[None, None].clone())
        self.time_mix_receptance = nn.Parameter(channel[None, None].clone())
        self.key = _linear(dim, hidden, 0.02)
        self.receptance = _linear(dim, dim, 0.02)
        self.value = _linear(hidden, dim, 0.02 / math.sqrt(2 * config.depth))

    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        k = self.key(_mix(x, before, self.time_mix_key)).relu().square()
        return self.receptance(_mix(x, before, self.time_mix_receptance)).sigmoid() * self.value(k)


def _linear(width: int, out: int, std: float) -> nn.Linear:
    layer = nn.Linear(width, out, bias=False)
    nn.init.normal_(layer.weight, std=std)
    return layer


def _mix(x: Tensor, before: Tensor, share: Tensor) -> Tensor:
    return x * share.to(x.dtype) + before * (1 - share).to(x.dtype)


def _pair(window: Tensor, run: Tensor | None) -> tuple[Tensor, Tensor]:
    """Each step of a window [B,1+S,D] and the one before it, silence where that is of another document."""
    x, before = window[:, 1:], window[:, :-1]
    if run is not None:
        before = before * torch.cat([torch.zeros_like(run[:, :1]), (run[:, 1:] == run[:, :-1]).to(run.dtype)], 1)[..., None]
    return x, before
