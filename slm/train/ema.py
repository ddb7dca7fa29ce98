"""A moving average of the parameters (Polyak and Juditsky, 1992): steadier than the parameters themselves."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Average:
    """Holds the averaged parameters; young averages forget faster, so that the start does not linger."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.seen = decay, 0
        self.values: dict[str, Tensor] = {k: p.detach().clone() for k, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.seen += 1
        decay = min(self.decay, (1 + self.seen) / (10 + self.seen))
        names, fresh = zip(*((k, p) for k, p in module.named_parameters()))
        torch._foreach_lerp_([self.values[k] for k in names], [p.detach() for p in fresh], 1 - decay)

    def state(self, module: nn.Module) -> dict[str, Tensor]:
        """The module's state with averaged parameters and its own buffers."""
        return {**module.state_dict(), **{k: v for k, v in self.values.items() if k in module.state_dict()}}
