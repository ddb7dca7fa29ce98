"""Gradient reversal: the identity, whose gradient points the other way.

Ganin and Lempitsky, 2015, "Unsupervised Domain Adaptation by Backpropagation". What stands behind it learns to tell
something from its input; what stands before it learns to hide that thing.
"""

import torch
from torch import Tensor


def reverse(x: Tensor, scale: float = 1.0) -> Tensor:
    """x of any shape -> x; on the way back the gradient is multiplied by -scale."""
    return Reversed.apply(x, scale)


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.scale * gradient, None
