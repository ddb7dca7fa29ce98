"""What a Transformer remembers: keys and values of the steps seen, and those of a memory that it looks at.

B batch   S steps   J key/value heads   E head width   K keys in reach   M steps of the memory
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from slm.backbone.state import GROWS


@dataclass
class Memory:
    """Keys and values of a memory, per layer [B,J,M,E], of which `lengths` [B] steps are real; made once."""

    keys: list[Tensor] = field(metadata=GROWS)
    values: list[Tensor] = field(metadata=GROWS)
    lengths: Tensor

    def mask(self) -> Tensor:
        """[B,1,1,M]; a row whose memory is empty looks at its first step, and `Cross` silences what it sees."""
        at = torch.arange(self.keys[0].shape[2], device=self.lengths.device)
        return (at < self.lengths[:, None].clamp(min=1))[:, None, None]


@dataclass
class State:
    """Keys and values of the steps seen; the buffers are written in place, so a state that was passed on is spent.

    keys, values: per layer [B,J,capacity,E].   length [B], on the CPU: steps seen.   memory: what is looked at besides.
    """

    keys: list[Tensor] = field(metadata=GROWS)
    values: list[Tensor] = field(metadata=GROWS)
    length: Tensor
    memory: Memory | None = None

    def extent(self) -> tuple[int, bool]:
        """The most steps any row has seen, and whether all have seen as many."""
        counts = self.length.tolist()
        return max(counts), min(counts) == max(counts)

    def reserve(self, steps: int) -> None:
        """Room for `steps` steps, at least doubling; unwritten keys are zeros because 0 weight times nan is nan."""
        capacity = self.keys[0].shape[2]
        if steps > capacity:
            more = (0, 0, 0, max(steps, 2 * capacity) - capacity)
            self.keys = [F.pad(k, more) for k in self.keys]
            self.values = [F.pad(v, more) for v in self.values]

    def write(self, layer: int, k: Tensor, v: Tensor, first: int, places: Tensor | None) -> tuple[Tensor, Tensor]:
        """Keep k, v [B,J,S,E] at first .. or at `places` [B,S]; what the steps may look at, [B,J,K,E]."""
        steps = k.shape[2]
        for buffers, new in ((self.keys, k), (self.values, v)):
            if torch.is_grad_enabled() and (new.requires_grad or buffers[layer].requires_grad):
                buffers[layer] = buffers[layer].clone()  # an earlier step's gradient needs what it saw as it was
            if places is None:
                buffers[layer][:, :, first : first + steps] = new
            else:
                rows = torch.arange(len(new), device=new.device)[:, None]
                buffers[layer][rows, :, places] = new.transpose(1, 2).to(buffers[layer].dtype)
        if first == 0:
            return k, v
        return self.keys[layer][:, :, : first + steps].to(k.dtype), self.values[layer][:, :, : first + steps].to(v.dtype)

    def put(self, layer: int, k: Tensor, v: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """`write` of one step k, v [B,1,J,E] at `first` of every row, where nothing is learned."""
        both = self.keys[layer], self.values[layer]
        for buffer, new in zip(both, (k, v)):
            buffer.select(2, first).copy_(new[:, 0])
        keys, values = (buffer.narrow(2, 0, first + 1) for buffer in both)
        return (keys, values) if keys.dtype == k.dtype else (keys.to(k.dtype), values.to(v.dtype))

    def advance(self, steps: int, lengths: Tensor | None) -> "State":
        """The state after `steps` steps, of which `lengths` [B] were real."""
        return State(self.keys, self.values, self.length + (steps if lengths is None else lengths.cpu()), self.memory)
