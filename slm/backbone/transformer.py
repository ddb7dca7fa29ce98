"""Transformer (Vaswani et al., 2017): by default in its Llama form, pre-norm RMSNorm, rotary positions, SwiGLU, optional AdaLN.

The layers are in block.py, how places are told in positions.py, who sees whom in masks.py, what is remembered in cache.py.

B batch   S steps   D width   H heads   J key/value heads   E head width   M steps of a memory   A width of the conditioning vector
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.backbone.block import Block, norm
from slm.backbone.cache import Memory, State
from slm.backbone.masks import Reach, as_mask, own_document, real_keys, visible
from slm.backbone.positions import Places, Positions
from slm.backbone.ssd import runs
from slm.errors import SlmError
from slm.nn.rope import Rope, Stretch


class Transformer(nn.Module):
    """x [B,S,D] -> hidden [B,S,D], causal with a growing state, or bidirectional without one."""

    @dataclass
    class Config:
        dim: int = 256
        depth: int = 6
        heads: int = 4
        kv_heads: int | None = None  # None: as many as heads
        mlp: int | None = None  # None: 8/3 dim, rounded to a multiple of 64; 4 dim in the other forms
        dropout: float = 0.0
        causal: bool = True
        adaptive: int = 0  # width of the conditioning vector; 0: none
        form: Literal["llama", "gpt2", "bert"] = "llama"
        positions: Literal["rope", "learned", "sinusoidal", "alibi", "relative", "none"] = "rope"
        longest: int = 1024  # steps that learned positions know
        window: int | None = None  # steps in reach of each, itself included; None: all
        memory: int = 0  # width of a memory that each layer looks at; 0: none
        head_dim: int | None = None  # None: dim / heads
        base: float = 10_000.0  # of rotary positions
        stretch: Stretch | None = None  # of rotary positions, for contexts longer than it was trained on
        qkv_bias: bool = False  # in the form "llama", whose other layers have none (Qwen2)
        qk_norm: bool = False  # a norm over each query and key (Qwen3)
        eps: float | None = None  # of the norms; None: as published with the form

        def build(self) -> "Transformer":
            return Transformer(self)

    def __init__(self, config: "Transformer.Config") -> None:
        super().__init__()
        if config.head_dim is not None and (config.head_dim < 2 or config.head_dim % 2):
            raise SlmError(f"Transformer: head_dim = {config.head_dim} must be even and at least 2.")
        if config.head_dim is None and config.dim % (2 * config.heads):
            raise SlmError(f"Transformer: dim = {config.dim} must be an even multiple of heads = {config.heads}.")
        if config.heads % (config.kv_heads or config.heads):
            raise SlmError(f"Transformer: heads = {config.heads} must be a multiple of kv_heads = {config.kv_heads}.")
        if config.window is not None and config.window < 1:
            raise SlmError(f"Transformer: window = {config.window} must be at least 1: a step sees itself.")
        if config.adaptive and config.form == "bert":
            raise SlmError(f"Transformer: adaptive = {config.adaptive} needs a norm before each branch; the form 'bert' has it behind.")
        self.config, self.dim, self.causal = config, config.dim, config.causal
        rope = Rope(config.head_dim or config.dim // config.heads, config.base, config.stretch)
        self.positions = Positions(config.positions, config.dim, config.heads, config.longest, config.causal, rope)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = norm(config)  # behind the last layer; in front of the first in the form "bert"

    def start(
        self,
        batch: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        capacity: int = 64,
        memory: Tensor | None = None,
        memory_lengths: Tensor | None = None,
    ) -> State:
        """The state of `batch` rows that have seen nothing; keys and values are kept in `dtype` (under autocast: its dtype).

        capacity: steps there is room for; a longer row doubles it.   memory [B,M,·], of which `memory_lengths` [B] steps are
        real: what each layer looks at besides, turned into keys and values here and never again.
        """
        if not self.causal:
            raise SlmError("Transformer(causal=False) keeps no state: every step needs the future.")
        weight = self.layers[0].norm1.weight
        device = torch.device(device or weight.device)
        if dtype is None:
            dtype = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else weight.dtype
        attention = self.layers[0].attention
        shape = (batch, attention.kv_heads, capacity, attention.head_dim)
        keys, values = ([torch.zeros(shape, device=device, dtype=dtype) for _ in self.layers] for _ in range(2))
        return State(keys, values, torch.zeros(batch, dtype=torch.long), self._remember(memory, memory_lengths))

    def forward(
        self,
        x: Tensor,
        state: State | None = None,
        lengths: Tensor | None = None,
        documents: Tensor | None = None,
        cond: Tensor | None = None,
        prefix: Tensor | None = None,
        memory: Tensor | None = None,
        memory_lengths: Tensor | None = None,
        seen: Tensor | None = None,
        at: Tensor | None = None,
    ) -> tuple[Tensor, State | None]:
        """x [B,S,D] -> hidden [B,S,D] and, if a state was given, the state after each row's `lengths` [B] real steps.

        documents [B,S]: ids of documents packed side by side; nothing crosses from one to the next (only without a state).
        cond [B,A] or [B,S,A]: the conditioning vector, if the config has an `adaptive` width.
        prefix [B]: so many first steps of a causal row see each other both ways (with a state: all of them in its first call).
        memory, memory_lengths: as for `start`, which takes them where there is a state.
        seen [B,S,K], bool: which of the K steps so far each step may look at, of those that it would; each must see one.
        at [B,S]: where the steps are told to stand, fractions too, instead of one behind the other; for rope and sinusoidal positions.
        """
        self._check(state is not None, documents, cond, prefix)
        if state is None:
            reach, places, heard = *self._alone(x, lengths, documents, prefix, seen, at), self._remember(memory, memory_lengths)
        elif memory is None:
            reach, places, heard = *self._after(x, state, prefix, seen, at), state.memory
        else:
            raise SlmError("a state holds its memory already; give the memory to start().")
        cond = None if cond is None else F.silu(cond if cond.dim() == 3 else cond[:, None])
        x = self.positions.add(x, places, lengths)
        x = self.norm(x) if self.config.form == "bert" else x
        for i, layer in enumerate(self.layers):
            x = layer(x, reach, i, state, heard, cond)
        x = x if self.config.form == "bert" else self.norm(x)
        return x, None if state is None else state.advance(places.steps, lengths)

    @torch.no_grad()
    def step(self, x: Tensor, state: State, cond: Tensor | None = None, at: Tensor | None = None) -> Tensor:
        """x [B,D], one step of every row -> hidden [B,D]; `state` is written in place, its buffers replaced where they grow.

        The values of `forward`, with less around the products of one step. Rows that have not all seen as much, a window or a bias
        need masks, and go through `forward`. Whoever needs the state as it was forks it first (state.py).   cond [B,A]   at [B]
        """
        self._check(True, None, cond, None)
        first, even = state.extent()
        if not even or self.config.window is not None or self.positions.biased:
            y, after = self(x[:, None], state, cond=cond, at=None if at is None else at[:, None])
            state.length.copy_(after.length)
            return y[:, 0]
        state.reserve(first + 1)
        cond = None if cond is None else F.silu(cond[:, None])
        places = Places(first, 1, at=None if at is None else at[:, None])
        x = self.positions.add(x[:, None], places, None)
        turn = self.positions.turn(places, x)
        x = self.norm(x) if self.config.form == "bert" else x
        for i, layer in enumerate(self.layers):
            x = layer.step(x, turn, i, state, first, cond)
        state.length += 1
        return (x if self.config.form == "bert" else self.norm(x))[:, 0]

    def _check(self, stateful: bool, documents: Tensor | None, cond: Tensor | None, prefix: Tensor | None) -> None:
        if stateful and not self.causal:
            raise SlmError("Transformer(causal=False) keeps no state: every step needs the future.")
        if stateful and documents is not None:
            raise SlmError("documents are packed only where no state is kept; give a state or documents, not both.")
        if (cond is None) != (self.config.adaptive == 0):
            raise SlmError(f"Transformer(adaptive={self.config.adaptive}) was given {'no' if cond is None else 'a'} conditioning vector.")
        if prefix is not None and (documents is not None or not self.causal):
            raise SlmError("a prefix that sees itself both ways belongs to a causal Transformer, and not to packed documents.")

    def _remember(self, memory: Tensor | None, lengths: Tensor | None) -> Memory | None:
        if (memory is None) != (self.config.memory == 0):
            raise SlmError(f"Transformer(memory={self.config.memory}) was given {'no' if memory is None else 'a'} memory.")
        if memory is None:
            return None
        if lengths is None:
            lengths = torch.full((len(memory),), memory.shape[1], device=memory.device)
        keys, values = zip(*(layer.cross.remember(memory) for layer in self.layers))
        return Memory(list(keys), list(values), lengths)

    def _alone(
        self, x: Tensor, lengths: Tensor | None, documents: Tensor | None, prefix: Tensor | None, only: Tensor | None, at: Tensor | None
    ) -> tuple[Reach, Places]:
        """What the steps of a call without a state see, and their places."""
        steps = x.shape[1]
        padded = lengths is not None and not self.causal  # a causal step never sees the padding behind it
        places = Places(0, steps, at=at)
        if documents is None and prefix is None and only is None and self.config.window is None and not self.positions.biased:
            mask = (torch.arange(steps, device=x.device) < lengths[:, None].clamp(min=1))[:, None, None] if padded else None
            return Reach(self.positions.turn(places, x), mask, self.causal), places
        here = torch.arange(steps, device=x.device)
        seen = visible(here, here, self.causal, self.config.window, prefix)
        if documents is not None:
            own, each = own_document(runs(documents))
            seen, places = seen & own, Places(0, steps, each, at)
        seen = seen if only is None else seen & only
        seen = real_keys(seen, lengths) if padded else seen
        mask = as_mask(seen, self.positions.bias(here - here[:, None]))
        return Reach(self.positions.turn(places, x), mask, False), places

    def _after(self, x: Tensor, state: State, prefix: Tensor | None, only: Tensor | None, at: Tensor | None) -> tuple[Reach, Places]:
        """What the steps of a call that continues `state` see, and their places; makes room in it."""
        steps, (first, even) = x.shape[1], state.extent()
        if prefix is not None and first:
            raise SlmError("a prefix that sees itself both ways is given whole, with the first call of a state.")
        state.reserve(first + steps)
        each = None if even else state.length.to(x.device)[:, None] + torch.arange(steps, device=x.device)
        places = Places(first, steps, each, at)
        turn = self.positions.turn(places, x)
        plain = even and prefix is None and only is None and self.config.window is None and not self.positions.biased
        if plain and (steps == 1 or not first):
            return Reach(turn, None, steps > 1, first), places
        query, key = places.tensor(x), torch.arange(first + steps, device=x.device)
        seen = visible(query, key, True, self.config.window, prefix)
        seen = seen if only is None else seen & only
        mask = as_mask(seen, self.positions.bias(key - query[..., None]))
        return Reach(turn, mask, False, first, each), places
