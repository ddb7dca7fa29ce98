"""The product quantiser of wav2vec 2.0: one entry of each of G codebooks, chosen by Gumbel softmax.

Baevski et al., 2020, "wav2vec 2.0", sections 2 and 3.2; Jang et al., 2017, "Categorical Reparameterization with Gumbel-Softmax".

M vectors, C their width, G codebooks, V entries each, E width of the G entries side by side.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slm.errors import SlmError


@dataclass
class Chosen:
    vectors: Tensor  # [M,E]; going back, the gradient is that of the soft choice
    ids: Tensor  # [M,G] long
    perplexity: Tensor  # scalar, 1 to V for each codebook, summed: how many entries are in use


class GumbelQuantizer(nn.Module):
    """x [M,C] -> Chosen. While training the choice is drawn, otherwise it is the likeliest."""

    @dataclass
    class Config:
        groups: int = 2
        card: int = 320
        dim: int = 256  # E
        warm: float = 2.0  # temperature at first …
        cool: float = 0.5  # … and at last
        decay: float = 0.999995  # an update

        def build(self, width: int) -> "GumbelQuantizer":
            return GumbelQuantizer(self, width)

        def temperature(self, updates: int) -> float:
            return max(self.cool, self.warm * self.decay**updates)

    def __init__(self, config: Config, width: int):
        super().__init__()
        if min(config.groups, config.card) < 1 or config.dim % config.groups:
            raise SlmError(f"dim is {config.dim} but must be a multiple of groups ({config.groups}), and card ({config.card}) at least 1")
        self.config = config
        self.codevectors = nn.Parameter(torch.rand(1, config.groups * config.card, config.dim // config.groups))
        self.weight_proj = nn.Linear(width, config.groups * config.card)
        nn.init.normal_(self.weight_proj.weight)
        nn.init.zeros_(self.weight_proj.bias)

    @property
    def entries(self) -> int:
        return self.config.groups * self.config.card

    def forward(self, x: Tensor, updates: int = 0, noise: Tensor | None = None) -> Chosen:
        """x [M,C] -> Chosen; `updates` sets the temperature, noise [M,G,V] replaces the dice of training."""
        with torch.autocast(x.device.type, enabled=False):
            logits = self.weight_proj(x.float()).unflatten(-1, (self.config.groups, -1))  # [M,G,V]
            if not self.training:
                ids = logits.argmax(-1)
                hard = nn.functional.one_hot(ids, self.config.card).to(logits.dtype)
                return Chosen(self.look_up(hard), ids, perplexity(hard))
            noise = gumbel(logits) if noise is None else noise
            soft = ((logits + noise) / self.config.temperature(updates)).softmax(-1)
            ids = soft.argmax(-1)
            hard = nn.functional.one_hot(ids, self.config.card).to(logits.dtype)
            return Chosen(self.look_up(hard - soft.detach() + soft), ids, perplexity(logits.softmax(-1)))

    def look_up(self, weights: Tensor) -> Tensor:
        """weights [M,G,V] -> [M,E]"""
        books = self.codevectors.view(self.config.groups, self.config.card, -1)
        return torch.einsum("mgv,gve->mge", weights, books).flatten(1)


def gumbel(like: Tensor) -> Tensor:
    return -torch.empty_like(like).exponential_().log()


def perplexity(shares: Tensor) -> Tensor:
    """shares [M,G,V] -> exp of the entropy of their mean, summed over the codebooks"""
    mean = shares.mean(0)
    return torch.exp(-torch.xlogy(mean, mean).sum(-1)).sum()
