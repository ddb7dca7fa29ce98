"""Learning the codebooks of factorised.py by gradient, as DAC does (Kumar et al., 2023): codes and encoder pull each other.

B batch, Q levels, D width of a latent, E width of an entry, T frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from slm_tokenizers.quantize.factorised import Factorised
from slm_tokenizers.quantize.search import nearest


@dataclass
class Pulled:
    latent: Tensor  # [B,D,T], straight-through
    codes: Tensor  # [B,Q,T]
    commitment: Tensor  # scalar, summed over levels: pulls the encoder to the codes
    codebook: Tensor  # scalar, summed over levels: pulls the codes to the encoder


def pull(books: Factorised, z: Tensor, keep: Tensor | None = None) -> Pulled:
    """z [B,D,T] in fp32 -> Pulled; the codes are those of `books.encode`.

    Levels that `keep` [B,Q] leaves out of a row are neither heard nor pulled there; their codes are found all the same.
    """
    residual, parts, codes, commitment, codebook = z, [], [], [], []
    keep = torch.ones(len(z), books.n_q, device=z.device) if keep is None else keep.to(z.dtype)
    for level, kept in zip(books.quantizers, keep.unbind(1)):
        low = level.in_proj(residual)  # [B,E,T]
        ids = nearest(F.normalize(low.detach().transpose(1, 2), dim=-1), F.normalize(level.codebook.weight.detach(), dim=-1))
        entry = level.codebook(ids).transpose(1, 2)
        commitment.append((kept * apart(low, entry.detach())).mean())
        codebook.append((kept * apart(entry, low.detach())).mean())
        part = level.out_proj(low + (entry - low).detach())
        residual = residual - part
        parts.append(part * kept[:, None, None])
        codes.append(ids)
    return Pulled(sum(parts), torch.stack(codes, 1), torch.stack(commitment).sum(), torch.stack(codebook).sum())


def apart(a: Tensor, b: Tensor) -> Tensor:
    """[B,E,T] twice -> mean squared difference of each row [B]."""
    return (a - b).square().mean((1, 2))
