"""A causal Transformer over the frames of a codec's latent that sees a window of the past, at once or in chunks.

Défossez et al., 2024, "Moshi: a speech-text foundation model for real-time dialogue", section 3.3.1: pre-norm, rotary
positions, branches scaled per channel (LayerScale, Touvron et al., 2021). Run at once it works through the frames window by
window, as a stream does, so that an hour costs sixty times a minute.

B batch, S steps of this call, K keys in reach, H heads, E head width, D width.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.errors import SlmError
from slm.nn.attention import attend
from slm.nn.rope import Rope, rotate


@dataclass
class Past:
    """What a stream remembers: for each layer the keys and values [B,H,K,E] of the last window-1 steps, none at first."""

    keys: list[Tensor | None]
    values: list[Tensor | None]
    seen: int = 0  # steps in all

    @property
    def held(self) -> int:
        """Steps still remembered."""
        return 0 if self.keys[0] is None else self.keys[0].shape[2]


class Windowed(nn.Module):
    """x [B,S,D] -> [B,S,D]; step t sees steps t-window+1 to t."""

    @dataclass
    class Config:
        """The defaults are those of the published Mimi."""

        dim: int = 512
        depth: int = 8
        heads: int = 8
        mlp: int = 2048
        window: int = 250  # steps
        base: float = 10_000.0  # of the rotary positions
        eps: float = 1e-5
        scale: float = 0.01  # of each branch at the start

        def build(self) -> "Windowed":
            return Windowed(self)

    def __init__(self, config: Config):
        super().__init__()
        if config.heads < 1 or config.dim % (2 * config.heads):
            raise SlmError(f"dim is {config.dim} but must be an even multiple of heads, {config.heads}")
        if config.depth < 1 or config.window < 1:
            raise SlmError(f"depth is {config.depth} and window {config.window} but both must be at least 1")
        self.window = config.window
        self.rope = Rope(config.dim // config.heads, config.base)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.depth))

    def start(self) -> Past:
        """What a stream that has seen nothing remembers."""
        return Past([None] * len(self.layers), [None] * len(self.layers))

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        """x [B,S,D], the steps after those of `past`, which is brought up to date -> [B,S,D]."""
        past = past or self.start()
        return torch.cat([self.step(piece, past) for piece in x.split(self.window, dim=1)], dim=1)

    def step(self, x: Tensor, past: Past) -> Tensor:
        """As `forward`, for at most `window` steps."""
        steps, held = x.shape[1], past.held
        turn = self.rope.at(past.seen, steps, x)
        ago = torch.arange(steps, device=x.device)[:, None] + held - torch.arange(held + steps, device=x.device)
        reach = (ago >= 0) & (ago < self.window)  # [S,K]
        for i, layer in enumerate(self.layers):
            x, keys, values = layer(x, turn, reach, past.keys[i], past.values[i])
            past.keys[i], past.values[i] = (kept[:, :, max(0, held + steps + 1 - self.window) :] for kept in (keys, values))
        past.seen += steps
        return x


class Layer(nn.Module):
    """x + scale · attention(norm(x)), then x + scale · mlp(norm(x)); a scale for each channel."""

    def __init__(self, config: Windowed.Config):
        super().__init__()
        self.heads = config.heads
        self.norm1, self.norm2 = nn.LayerNorm(config.dim, config.eps), nn.LayerNorm(config.dim, config.eps)
        self.q, self.k, self.v, self.out = (nn.Linear(config.dim, config.dim, bias=False) for _ in range(4))
        self.up, self.down = nn.Linear(config.dim, config.mlp, bias=False), nn.Linear(config.mlp, config.dim, bias=False)
        self.scale1, self.scale2 = (nn.Parameter(torch.full((config.dim,), config.scale)) for _ in range(2))

    def forward(
        self, x: Tensor, turn: tuple[Tensor, Tensor], reach: Tensor, keys: Tensor | None, values: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x [B,S,D], reach [S,K] -> x, and keys and values [B,H,K,E] of the steps before and of these."""
        y = self.norm1(x)
        q, k, v = (project(y).unflatten(-1, (self.heads, -1)) for project in (self.q, self.k, self.v))  # [B,S,H,E]
        q, k, v = rotate(q, *turn).transpose(1, 2), rotate(k, *turn).transpose(1, 2), v.transpose(1, 2)
        if keys is not None:
            k, v = torch.cat([keys, k], dim=2), torch.cat([values, v], dim=2)
        x = x + self.scale1 * self.out(attend(q, k, v, reach, False).transpose(1, 2).flatten(2))
        x = x + self.scale2 * self.down(F.gelu(self.up(self.norm2(x))))
        return x, k, v
