"""Mamba-2 (Dao & Gu, 2024): blocks x + mixer(norm(x)) around state space duality; leaf names as in the released weights.

B batch   S steps   D width   I inner width = expand D = H P   G groups   N state width   M = I + 2GN channels of the convolution
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.backbone.convolve import convolve_silu, tail
from slm.backbone.ssd import runs, scan, ssd_advance, ssd_step
from slm.errors import SlmError
from slm.kernels import usable
from slm.nn.norm import GatedRMSNorm, RMSNorm

SEGMENT = 512  # steps that a processor takes through all layers together when nothing is learned


@dataclass
class State:
    """What Mamba-2 remembers of each row, of a size that never grows.

    conv: per layer, the last inputs of the convolution [B, d_conv-1, M].   ssm: per layer [B,H,P,N], float32.
    """

    conv: list[Tensor]
    ssm: list[Tensor]


class Mamba2(nn.Module):
    """x [B,S,D] -> hidden [B,S,D], causal, with a state of constant size."""

    causal = True

    @dataclass
    class Config:
        dim: int = 256
        depth: int = 6
        headdim: int = 64
        d_state: int = 64
        expand: int = 2
        groups: int = 1
        d_conv: int = 4
        chunk: int = 64
        dropout: float = 0.0

        def build(self) -> "Mamba2":
            return Mamba2(self)

    def __init__(self, config: Config):
        super().__init__()
        inner = config.expand * config.dim
        if inner % config.headdim or (inner // config.headdim) % config.groups:
            raise SlmError(f"Mamba2: expand * dim = {inner} must be a multiple of headdim * groups = {config.headdim * config.groups}.")
        self.config, self.dim = config, config.dim
        self.layers = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm_f = RMSNorm(config.dim)
        for layer in self.layers:
            nn.init.normal_(layer.mixer.in_proj.weight, std=0.02)
            nn.init.normal_(layer.mixer.out_proj.weight, std=0.02 / math.sqrt(2 * config.depth))

    def start(self, batch: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> State:
        """The state of `batch` rows that have seen nothing; `dtype` is that of the convolution's part."""
        weight = self.layers[0].norm.weight
        device, dtype, c, mixer = device or weight.device, dtype or weight.dtype, self.config, self.layers[0].mixer
        return State(
            [torch.zeros(batch, c.d_conv - 1, mixer.channels, device=device, dtype=dtype) for _ in self.layers],
            [torch.zeros(batch, mixer.heads, c.headdim, c.d_state, device=device, dtype=mixer.wide) for _ in self.layers],
        )

    def forward(
        self, x: Tensor, state: State | None = None, lengths: Tensor | None = None, documents: Tensor | None = None, cond: None = None
    ) -> tuple[Tensor, State | None]:
        """x [B,S,D] -> hidden [B,S,D] and, if a state was given, the state after each row's `lengths` [B] real steps.

        documents [B,S]: ids of documents packed side by side; nothing crosses from one to the next (only without a state).
        """
        if cond is not None:
            raise SlmError("Mamba2 takes no conditioning vector; use Transformer.Config(adaptive=...) or put it in the stream.")
        if documents is not None and state is not None:
            raise SlmError("documents are packed only where no state is kept; give a state or documents, not both.")
        if x.device.type == "cpu" and x.shape[1] > 2 * SEGMENT and documents is None and not torch.is_grad_enabled():
            return self._in_segments(x, state, lengths)
        real = None  # without a state, padding at the end disturbs nothing
        if lengths is not None and state is not None:
            real = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
        run = None if documents is None else runs(documents)
        after = None if state is None else State([], [])
        for i, layer in enumerate(self.layers):
            memory = None if state is None else (state.conv[i], state.ssm[i])
            x, memory = layer(x, memory, lengths, real, run)
            if after is not None:
                after.conv.append(memory[0])
                after.ssm.append(memory[1])
        return self.norm_f(x), after

    def _in_segments(self, x: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, State | None]:
        """A long call as several short ones: what passes between layers stays in the cache, and takes no more memory the longer x is."""
        after, pieces = self.start(len(x), x.device) if state is None else state, []
        for first in range(0, x.shape[1], SEGMENT):
            piece = x[:, first : first + SEGMENT]
            real = None if lengths is None or state is None else (lengths - first).clamp(0, piece.shape[1])
            y, after = self(piece, after, real)
            pieces.append(y)
        return torch.cat(pieces, 1), None if state is None else after

    @torch.no_grad()
    def step(self, x: Tensor, state: State) -> Tensor:
        """x [B,D], one step of every row -> hidden [B,D]; the tensors of `state` are written in place.

        The values of `forward` without a new state at every step. Whoever needs the state as it was forks it first (state.py).
        """
        for layer, conv, ssm in zip(self.layers, state.conv, state.ssm):
            x = x + layer.dropout(layer.mixer.step(layer.norm(x), conv, ssm))
        return self.norm_f(x)


class Block(nn.Module):
    def __init__(self, config: Mamba2.Config):
        super().__init__()
        self.norm = RMSNorm(config.dim)
        self.mixer = Mixer(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, memory: tuple[Tensor, Tensor] | None, lengths: Tensor | None, real: Tensor | None, run: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        y, memory = self.mixer(self.norm(x), memory, lengths, real, run)
        return x + self.dropout(y), memory


class Mixer(nn.Module):
    """in_proj -> [z | x B C | dt]; causal convolution and SiLU over x B C; SSD; norm gated by z; out_proj."""

    def __init__(self, config: Mamba2.Config):
        super().__init__()
        self.config = config
        self.inner = config.expand * config.dim
        self.heads = self.inner // config.headdim
        self.shared = config.groups * config.d_state
        self.channels = self.inner + 2 * self.shared
        self.in_proj = nn.Linear(config.dim, self.inner + self.channels + self.heads, bias=False)
        self.conv1d = nn.Conv1d(self.channels, self.channels, config.d_conv, groups=self.channels)
        # The published ranges: dt log-uniform in [0.001, 0.1] through the inverse of softplus, A uniform in [1, 16].
        dt = torch.exp(torch.empty(self.heads).uniform_(math.log(1e-3), math.log(1e-1)))
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))
        self.A_log = nn.Parameter(torch.empty(self.heads).uniform_(1, 16).log())
        self.D = nn.Parameter(torch.ones(self.heads))
        self.norm = GatedRMSNorm(self.inner, config.groups)
        self.out_proj = nn.Linear(self.inner, config.dim, bias=False)

    @property
    def wide(self) -> torch.dtype:
        """The dtype of decays and states: float32, or float64 for float64 weights."""
        return torch.promote_types(self.A_log.dtype, torch.float32)

    def forward(
        self, x: Tensor, memory: tuple[Tensor, Tensor] | None, lengths: Tensor | None, real: Tensor | None, run: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        projected, (past, ssm) = self.in_proj(x), (None, None) if memory is None else memory
        alone = memory is not None and x.shape[1] == 1
        if alone and usable(projected) and not torch.is_grad_enabled():
            y, *memory = self._fused_step(projected[:, 0], past, ssm, None if real is None else real[:, 0])
            return y[:, None], tuple(memory)
        gate, mixed, dt = projected.split([self.inner, self.channels, self.heads], -1)
        dt = F.softplus(dt.to(self.wide) + self.dt_bias)
        if real is not None:
            dt = dt * real[..., None]  # a padded step neither decays nor writes
        mixed, window = convolve_silu(mixed, past, self.conv1d.weight, self.conv1d.bias, run)
        values, B, C = mixed.split([self.inner, self.shared, self.shared], -1)
        values = values.unflatten(-1, (self.heads, -1))  # [B,S,H,P]
        B, C = (t.unflatten(-1, (self.config.groups, -1)) for t in (B, C))
        A = -self.A_log.to(self.wide).exp()
        if alone:
            y, ssm = ssd_step(values[:, 0], dt[:, 0], A, B[:, 0], C[:, 0], ssm)
            y = torch.addcmul(y[:, None], values, self.D.to(y.dtype)[:, None])
        else:
            y, ssm = scan(values, dt, A, B, C, self.D, self.config.chunk, ssm, run)
        y = self.out_proj(self.norm(y.flatten(-2), gate))
        return y, None if memory is None else (tail(window, self.config.d_conv - 1, lengths).to(past.dtype), ssm)

    def step(self, x: Tensor, conv: Tensor, ssm: Tensor) -> Tensor:
        """x [B,D] -> y [B,D]; the memory conv [B,d_conv-1,M] and ssm [B,H,P,N] goes on by one step in place."""
        projected = self.in_proj(x)
        if usable(projected):
            y, *memory = self._fused_step(projected, conv, ssm, None)
            for old, new in zip((conv, ssm), memory):
                old.copy_(new)
            return y
        gate, mixed, dt = projected.split([self.inner, self.channels, self.heads], -1)
        mixed, window = convolve_silu(mixed[:, None], conv, self.conv1d.weight, self.conv1d.bias)
        conv.copy_(window[:, 1:])
        values, B, C = mixed[:, 0].split([self.inner, self.shared, self.shared], -1)
        values = values.unflatten(-1, (self.heads, -1))  # [B,H,P]
        B, C = (t.unflatten(-1, (self.config.groups, -1)) for t in (B, C))
        dt = F.softplus(dt.to(self.wide) + self.dt_bias)
        y = ssd_advance(values, dt, -self.A_log.to(self.wide).exp(), B, C, ssm)
        y = torch.addcmul(y, values, self.D.to(y.dtype)[:, None]).flatten(-2)
        return self.out_proj(self.norm(y, gate))

    def _fused_step(self, projected: Tensor, conv: Tensor, ssm: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """projected [B,I+M+H] and the memory -> y [B,D] and the memory after it, anew; where `real` [B] is False, as it was."""
        from slm.kernels.norm import rms_norm
        from slm.kernels.step import step

        taps, bias = self.conv1d.weight, self.conv1d.bias
        y, conv, ssm = step(projected, conv, ssm, taps, bias, self.dt_bias, self.A_log, self.D, self.config.groups, real)
        return self.out_proj(rms_norm(y, self.norm.weight, None, self.config.groups, self.norm.eps)), conv, ssm
