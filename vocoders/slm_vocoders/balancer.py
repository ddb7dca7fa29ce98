"""EnCodec's loss balancer: how much each loss moves the audio is decided by its weight, whatever its own scale.

Défossez et al., 2022, "High Fidelity Neural Audio Compression", section 3.4:
    g_i = d loss_i / d fake        pull of loss i = total * weight_i / sum(weights) * g_i / moving average of |g_i|

B rows, N samples. |g_i| is the norm of a row, averaged over the batch. Each process has its own average.
"""

import torch
from torch import Tensor, nn

from slm.errors import SlmError

TINY = 1e-12


class Balancer(nn.Module):
    """Replaces losses that depend on a generator only through its audio; their values stay, their gradients are balanced.

    Args:
        names: every loss that it may be given. One that is absent has no share, so losses may join late.
        decay: of the moving averages, which start from the first batch without bias.
        total: the norm of all pulls together, if they all pointed one way and were as strong as on average.
    """

    def __init__(self, names: tuple[str, ...], decay: float = 0.999, total: float = 1.0) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise SlmError(f"the balancer's decay is {decay} but must be in [0, 1)")
        self.names, self.decay, self.total = tuple(names), decay, total
        self.register_buffer("norms", torch.zeros(len(self.names)))  # decayed sums
        self.register_buffer("seen", torch.zeros(len(self.names)))  # decayed counts

    def forward(self, losses: dict[str, Tensor], weights: dict[str, float], fake: Tensor) -> dict[str, Tensor]:
        """losses of fake [B,1,N], weights by name -> losses of the same values, whose gradients at `fake` are balanced.

        A scale inside a loss counts for nothing. Without gradients the losses come back as they are. SlmError on an unknown name,
        or weights of which none is positive.
        """
        if unknown := sorted(losses.keys() - set(self.names)):
            raise SlmError(f"the balancer was not told of the loss {unknown[0]!r}; it knows {', '.join(self.names)}")
        if not (torch.is_grad_enabled() and fake.requires_grad):
            return losses
        whole = sum(weights[name] for name in losses)
        if losses and not whole > 0:
            raise SlmError(f"the losses {', '.join(losses)} have weights that sum to {whole}; the balancer needs a positive one")
        balanced = {}
        for name, loss in losses.items():
            (pull,) = torch.autograd.grad(loss, fake, retain_graph=True)
            pull = pull * (self.total * weights[name] / whole / self.average(name, pull))
            # The second term is zero in value; its gradient at `fake` is the pull.
            balanced[name] = loss.detach() + ((fake - fake.detach()) * pull).sum()
        return balanced

    @torch.no_grad()
    def average(self, name: str, pull: Tensor) -> Tensor:
        """The moving average of a loss's gradient norm, this batch included while training."""
        i = self.names.index(name)
        norm = pull.flatten(1).norm(dim=1).mean()
        if self.training and norm.isfinite():
            self.norms[i] = self.decay * self.norms[i] + (1 - self.decay) * norm
            self.seen[i] = self.decay * self.seen[i] + (1 - self.decay)
        known = self.norms[i] / self.seen[i] if self.seen[i] > 0 else norm
        return known.clamp(min=TINY)
