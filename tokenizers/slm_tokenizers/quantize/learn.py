"""Learning residual codebooks: vector_quantize_pytorch does it, `Codebooks` then speaks for it without the library.

    B batch   D width   T frames   Q levels   C codes a level

The defaults of the library change between versions, so every option that matters is passed.
Zeghidour et al., 2021 (SoundStream): EMA codebooks, k-means start, revival of dead codes, quantiser dropout.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

# A code is revived when its moving count a batch falls below this. SoundStream's 2 supposes batches with several vectors a
# code; with fewer, nearly every code would be dead at every step and no codebook would ever settle.
DEAD = 0.1


@dataclass
class Quantized:
    latent: Tensor  # [B,D,T], straight-through
    codes: Tensor  # [B,Q,T], -1 at levels that quantiser dropout left out
    commitment: Tensor  # scalar
    first: Tensor  # [B,D,T], the first level alone, straight-through: what the semantic teacher sees


class LearnedCodebooks(nn.Module):
    """Residual VQ with EMA codebooks while training.

    They start as k-means of the first batch; one with fewer vectors than codes starts with twins, which revival moves apart.

    Args:
        dim, n_q, card: width of a vector, levels, codes a level.
        dropout: when true, every second row of a batch keeps a random number of levels (at least one), as in DAC (Kumar et al., 2023).
            Codebooks learn from all rows.
    """

    def __init__(self, dim: int, n_q: int, card: int, dropout: bool = True) -> None:
        super().__init__()
        from vector_quantize_pytorch import ResidualVQ

        self.dropout = dropout
        self.rvq = ResidualVQ(
            dim=dim, num_quantizers=n_q, codebook_size=card, codebook_dim=None, shared_codebook=False,
            quantize_dropout=False, kmeans_init=True, kmeans_iters=10,
            decay=0.99, threshold_ema_dead_code=DEAD, commitment_weight=1.0, rotation_trick=False,
            use_cosine_sim=False, stochastic_sample_codes=False, accept_image_fmap=False,
        )  # fmt: skip

    def forward(self, z: Tensor) -> Quantized:
        """z [B,D,T] in fp32 -> Quantized."""
        x = z.transpose(1, 2)  # [B,T,D]
        _, codes, commit, every = self.rvq(x, return_all_codes=True)  # every [Q,B,T,D]
        keep = heard(len(z), len(every), self.dropout and self.training, z.device)
        latent = x + ((every * keep.T[:, :, None, None]).sum(0) - x).detach()
        first = x + (every[0] - x).detach()
        codes = codes.permute(0, 2, 1).masked_fill(~keep[:, :, None], -1)
        return Quantized(latent.transpose(1, 2), codes, commit.sum(), first.transpose(1, 2))

    @property
    def embed(self) -> Tensor:
        """The codebooks [Q,C,D]."""
        return torch.stack([layer._codebook.embed[0] for layer in self.rvq.layers])


def heard(rows: int, levels: int, dropout: bool, device: torch.device) -> Tensor:
    """Which levels of each row are heard [B,Q]: all, or with dropout in every second row a random number of them, at least one."""
    count = torch.full((rows,), levels, device=device)
    if dropout:
        count[::2] = torch.randint(1, levels + 1, (rows,), device=device)[::2]
    return torch.arange(levels, device=device) < count[:, None]
