"""Transformer (Vaswani et al., 2017) in its Llama form: pre-norm RMSNorm, rotary positions, SwiGLU, optional AdaLN.

B batch   S steps   D width   H heads   J key/value heads   E head width   K keys in reach   A width of the conditioning vector
"""
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.backbone.ssd import runs
from slm.errors import SlmError
from slm.nn.attention import attend
from slm.nn.norm import RMSNorm
from slm.nn.rope import Rope, rotate


@dataclass
class State:
    """Keys and values of the steps seen; the buffers are written in place, so a state that was passed on is spent.

    keys, values: per layer [B,J,capacity,E].   length [B]: steps seen.   longest: no row has seen more.   even: all rows saw as many.
    """

    keys: list[Tensor]
    values: list[Tensor]
    length: Tensor
    longest: int = 0
    even: bool = True

    def index(self, rows: Tensor) -> "State":
        """Rows selected, repeated or reordered, as an independent copy."""
        length = self.length[rows]
        longest, even = _extent(length)
        return State([k[rows] for k in self.keys], [v[rows] for v in self.values], length, longest, even)

    @staticmethod
    def cat(states: list["State"]) -> "State":
        """The rows of several states as one batch."""
        capacity = max(s.keys[0].shape[2] for s in states)
        for s in states:
            s.reserve(capacity)
        length = torch.cat([s.length for s in states])
        longest, even = _extent(length)
        keys, values = ([torch.cat(layer) for layer in zip(*parts)] for parts in ([s.keys for s in states], [s.values for s in states]))
        return State(keys, values, length, longest, even)

    def reserve(self, steps: int) -> None:
        """Room for `steps` steps, at least doubling; unwritten keys are zeros because 0 weight times nan is nan."""
        capacity = self.keys[0].shape[2]
        if steps > capacity:
            more = (0, 0, 0, max(steps, 2 * capacity) - capacity)
            self.keys = [F.pad(k, more) for k in self.keys]
            self.values = [F.pad(v, more) for v in self.values]


def _extent(length: Tensor) -> tuple[int, bool]:
    """The most steps any row has seen, and whether all have seen as many."""
    counts = length.tolist()
    return max(counts), min(counts) == max(counts)


@dataclass
class Reach:
    """Where the steps of this call stand and what they may see; the same for all layers.

    cos, sin [(B,)S,1,E].   mask: bool, broadcastable to [B,1,S,K], True is seen; None: everything, or the past if `causal`.
    places: None to write at longest .., else [B,S] positions to write at.
    """

    cos: Tensor
    sin: Tensor
    mask: Tensor | None
    causal: bool
    first: int = 0
    places: Tensor | None = None


class Transformer(nn.Module):
    """x [B,S,D] -> hidden [B,S,D], causal with a growing state, or bidirectional without one."""

    @dataclass
    class Config:
        dim: int = 256
        depth: int = 6
        heads: int = 4
        kv_heads: int | None = None       # None: as many as heads
        mlp: int | None = None            # None: 8/3 dim, rounded to a multiple of 64
        dropout: float = 0.0
        causal: bool = True
        adaptive: int = 0                 # width of the conditioning vector; 0: none

        def build(self) -> "Transformer":
            return Transformer(self)

    def __init__(self, config: Config):
        super().__init__()
        if config.dim % (2 * config.heads):
            raise SlmError(f"Transformer: dim = {config.dim} must be an even multiple of heads = {config.heads}.")
        if config.heads % (config.kv_heads or config.heads):
            raise SlmError(f"Transformer: heads = {config.heads} must be a multiple of kv_heads = {config.kv_heads}.")
        self.config, self.dim = config, config.dim
        self.rope = Rope(config.dim // config.heads)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = RMSNorm(config.dim)

    def start(self, batch: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> State:
        """The state of `batch` rows that have seen nothing; keys and values are kept in `dtype` (under autocast: its dtype)."""
        if not self.config.causal:
            raise SlmError("Transformer(causal=False) keeps no state: every step needs the future.")
        weight = self.norm.weight
        device = torch.device(device or weight.device)
        if dtype is None:
            dtype = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else weight.dtype
        attention = self.layers[0].attention
        keys, values = ([torch.zeros(batch, attention.kv_heads, 64, attention.head_dim, device=device, dtype=dtype)
                         for _ in self.layers] for _ in range(2))
        return State(keys, values, torch.zeros(batch, dtype=torch.long, device=device))

    def forward(self, x: Tensor, state: State | None = None, lengths: Tensor | None = None,
                documents: Tensor | None = None, cond: Tensor | None = None) -> tuple[Tensor, State | None]:
        """x [B,S,D] -> hidden [B,S,D] and, if a state was given, the state after each row's `lengths` [B] real steps.

        documents [B,S]: ids of documents packed side by side; nothing crosses from one to the next (only without a state).
        cond [B,A] or [B,S,A]: the conditioning vector, if the config has an `adaptive` width.
        """
        self._check(state, documents, cond)
        reach = self._alone(x, lengths, documents) if state is None else self._after(x, state)
        cond = None if cond is None else F.silu(cond if cond.dim() == 3 else cond[:, None])
        for i, layer in enumerate(self.layers):
            memory = None if state is None else (state.keys[i], state.values[i])
            x = layer(x, reach, memory, cond)
        return self.norm(x), None if state is None else self._advance(state, x.shape[1], lengths)

    def _check(self, state: State | None, documents: Tensor | None, cond: Tensor | None) -> None:
        if state is not None and not self.config.causal:
            raise SlmError("Transformer(causal=False) keeps no state: every step needs the future.")
        if documents is not None and state is not None:
            raise SlmError("documents are packed only where no state is kept; give a state or documents, not both.")
        if (cond is None) != (self.config.adaptive == 0):
            raise SlmError(f"Transformer(adaptive={self.config.adaptive}) was given {'no' if cond is None else 'a'} conditioning vector.")

    def _alone(self, x: Tensor, lengths: Tensor | None, documents: Tensor | None) -> Reach:
        """The reach of a call without a state."""
        steps = x.shape[1]
        mask = None
        if lengths is not None and not self.config.causal:                # a causal step never sees the padding behind it
            mask = (torch.arange(steps, device=x.device) < lengths[:, None].clamp(min=1))[:, None, None]
        if documents is None:
            return Reach(*self.rope.at(0, steps, x), mask, self.config.causal)
        run = runs(documents)
        same = (run[:, :, None] == run[:, None])[:, None]                 # [B,1,S,S]
        if self.config.causal:
            same = same.tril()
        here = torch.arange(steps, device=x.device)
        begins = torch.where(F.pad(run.diff(dim=1), (1, 0)) > 0, here, 0).cummax(1).values
        if mask is not None:
            mask = (same & mask) | torch.eye(steps, dtype=torch.bool, device=x.device)
        return Reach(*self.rope.at_each(here - begins, steps), same if mask is None else mask, False)

    def _after(self, x: Tensor, state: State) -> Reach:
        """The reach of a call that continues `state`; makes room in it."""
        steps, seen = x.shape[1], state.longest
        state.reserve(seen + steps)
        if state.even:
            mask = None
            if seen and steps > 1:
                mask = torch.ones(steps, seen + steps, dtype=torch.bool, device=x.device).tril(seen)
            return Reach(*self.rope.at(seen, steps, x), mask, steps > 1 and not seen, seen)
        places = state.length[:, None] + torch.arange(steps, device=x.device)
        mask = (torch.arange(seen + steps, device=x.device) <= places[..., None])[:, None]
        return Reach(*self.rope.at_each(places, seen + steps), mask, False, seen, places)

    def _advance(self, state: State, steps: int, lengths: Tensor | None) -> State:
        length = state.length + (steps if lengths is None else lengths)
        longest, even = (state.longest + steps, state.even) if lengths is None else _extent(length)
        return State(state.keys, state.values, length, longest, even)


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); with `adaptive`, each norm scaled and shifted and each branch gated by cond."""

    def __init__(self, config: Transformer.Config):
        super().__init__()
        hidden = config.mlp or max(64, round(config.dim * 8 / 3 / 64) * 64)
        self.norm1 = RMSNorm(config.dim)
        self.attention = Attention(config)
        self.norm2 = RMSNorm(config.dim)
        self.gate_up = nn.Linear(config.dim, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, config.dim, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.normal_(self.gate_up.weight, std=0.02)
        nn.init.normal_(self.down.weight, std=0.02 / math.sqrt(2 * config.depth))
        self.adapt = None
        if config.adaptive:
            self.adapt = nn.Linear(config.adaptive, 6 * config.dim)
            nn.init.zeros_(self.adapt.weight)                             # starts as the Transformer without a condition
            nn.init.zeros_(self.adapt.bias)

    def forward(self, x: Tensor, reach: Reach, memory: tuple[Tensor, Tensor] | None, cond: Tensor | None) -> Tensor:
        if self.adapt is None:
            x = x + self.dropout(self.attention(self.norm1(x), reach, memory))
            return x + self.dropout(self._mlp(self.norm2(x)))
        scale1, shift1, gate1, scale2, shift2, gate2 = self.adapt(cond).chunk(6, -1)
        y = self.attention(self.norm1(x) * (1 + scale1) + shift1, reach, memory)
        x = x + (1 + gate1) * self.dropout(y)
        y = self._mlp(self.norm2(x) * (1 + scale2) + shift2)
        return x + (1 + gate2) * self.dropout(y)

    def _mlp(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.down(F.silu(gate) * up)


class Attention(nn.Module):
    def __init__(self, config: Transformer.Config):
        super().__init__()
        self.heads, self.kv_heads = config.heads, config.kv_heads or config.heads
        self.head_dim = config.dim // config.heads
        self.qkv = nn.Linear(config.dim, (self.heads + 2 * self.kv_heads) * self.head_dim, bias=False)
        self.out = nn.Linear(config.dim, config.dim, bias=False)
        nn.init.normal_(self.qkv.weight, std=0.02)
        nn.init.normal_(self.out.weight, std=0.02 / math.sqrt(2 * config.depth))

    def forward(self, x: Tensor, reach: Reach, memory: tuple[Tensor, Tensor] | None) -> Tensor:
        batch, steps, _ = x.shape
        qkv = self.qkv(x).view(batch, steps, -1, self.head_dim)
        turned = rotate(qkv[:, :, : self.heads + self.kv_heads], reach.cos, reach.sin).transpose(1, 2)
        q, k = turned[:, : self.heads], turned[:, self.heads :]
        v = qkv[:, :, self.heads + self.kv_heads :].transpose(1, 2)
        if memory is not None:
            k, v = self._remember(k, v, memory, reach)
        y = attend(q, k, v, reach.mask, reach.causal)
        return self.out(y.transpose(1, 2).reshape(batch, steps, -1))

    def _remember(self, k: Tensor, v: Tensor, memory: tuple[Tensor, Tensor], reach: Reach) -> tuple[Tensor, Tensor]:
        """Write k, v [B,J,S,E] into the buffers; what the steps may look at, [B,J,K,E]."""
        steps, seen = k.shape[2], reach.first
        for buffer, new in zip(memory, (k, v)):
            if reach.places is None:
                buffer[:, :, seen : seen + steps] = new
            else:
                rows = torch.arange(len(new), device=new.device)[:, None]
                buffer[rows, :, reach.places] = new.transpose(1, 2).to(buffer.dtype)
        if seen == 0:
            return k, v
        return memory[0][:, :, : seen + steps].to(k.dtype), memory[1][:, :, : seen + steps].to(v.dtype)
