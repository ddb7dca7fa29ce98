"""What the ids that came cost where a model gave scores for them: a sum of cross-entropies.

N ids   C scores of each
"""

import torch.nn.functional as F
from torch import Tensor

from slm.kernels import usable


def surprise(scores: Tensor, target: Tensor, smooth: float = 0.0) -> Tensor:
    """scores [N,C] in any dtype, target [N] -> the sum of -log p in nats, float32; `smooth` of each is spread over all C."""
    if usable(scores):
        from slm.kernels.cross_entropy import cross_entropy

        return cross_entropy(scores, target, None, smooth).sum()
    return F.cross_entropy(scores.float(), target, reduction="sum", label_smoothing=smooth)
