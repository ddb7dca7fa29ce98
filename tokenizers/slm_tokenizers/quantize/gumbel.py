"""The product quantiser of wav2vec 2.0: in each of G groups, the frame itself scores V entries, and the best are put side by side.

Baevski et al., 2020, "wav2vec 2.0: A Framework for Self-Supervised Learning of Speech Representations", section 2; the choice is
learned through the Gumbel softmax of Jang et al., 2016, straight-through. The names and shapes of the weights are those of
transformers (`quantizer.*` in a `Wav2Vec2ForPreTraining`).

B batch, D width of a latent, T frames, G groups, V entries a group, E width of the result.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.errors import SlmError
from slm_tokenizers.quantize.residual import check


@dataclass
class Chosen:
    latent: Tensor  # [B,E,T]
    codes: Tensor  # [B,G,T]
    perplexity: Tensor  # scalar, G to G*V: how many entries are in use, added over the groups
    diversity: Tensor  # scalar, 0 to 1, to be lowered: (G*V - perplexity) / (G*V)


class Product(nn.Module):
    """z [B,D,T] <-> codes [B,G,T] in 0..V-1. SlmError if G does not divide `out`."""

    def __init__(self, dim: int, groups: int = 2, card: int = 320, out: int = 256) -> None:
        super().__init__()
        if groups < 1 or out % groups:
            raise SlmError(f"groups is {groups} but must divide the width {out} of the result")
        self.n_q, self.card, self.dim = groups, card, dim
        self.weight_proj = nn.Linear(dim, groups * card)
        nn.init.normal_(self.weight_proj.weight)
        nn.init.zeros_(self.weight_proj.bias)
        self.codevectors = nn.Parameter(torch.rand(1, groups * card, out // groups))

    def forward(self, z: Tensor, temperature: float = 2.0, mask: Tensor | None = None) -> Chosen:
        """z [B,D,T], `temperature` falls from 2 to 0.5 in the paper, mask [B,T] bool (what perplexity is counted over) -> Chosen.

        In training mode an entry is drawn, and the gradient is that of the softmax; in evaluation mode the best is taken.
        """
        scores = self.scores(z).float()  # [B,T,G,V]
        if self.training:
            drawn = F.gumbel_softmax(scores.flatten(0, 2), tau=temperature, hard=True).view_as(scores)
            used = scores.softmax(-1)
        else:
            drawn = used = F.one_hot(scores.argmax(-1), self.card).to(scores.dtype)
        books = self.codevectors.view(self.n_q, self.card, -1)
        latent = torch.einsum("btgv,gve->btge", drawn.to(books.dtype), books).flatten(2)
        used = used.flatten(0, 1) if mask is None else used[mask]
        mean = used.mean(0)  # [G,V]
        perplexity = torch.exp(-torch.xlogy(mean, mean).sum(-1)).sum()
        entries = self.n_q * self.card
        return Chosen(latent.transpose(1, 2), drawn.argmax(-1).transpose(1, 2), perplexity, (entries - perplexity) / entries)

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        """z [B,D,T] -> codes [B,G,T], the best of each group. SlmError on another width."""
        if z.dim() != 3 or z.shape[1] != self.dim:
            raise SlmError(f"latents have the shape {list(z.shape)} but [B, {self.dim}, T] is needed")
        with torch.autocast(z.device.type, enabled=False):
            return self.scores(z.to(self.weight_proj.weight.dtype)).argmax(-1).transpose(1, 2)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """codes [B,G,T] -> latent [B,E,T]. SlmError on another number of groups, or a code out of range."""
        check(codes, self.n_q, self.card)
        if codes.shape[1] != self.n_q:
            raise SlmError(f"codes have {codes.shape[1]} groups but all {self.n_q} are needed")
        offsets = torch.arange(self.n_q, device=codes.device)[:, None] * self.card
        return F.embedding(codes + offsets, self.codevectors[0]).permute(0, 1, 3, 2).flatten(1, 2)  # [B,G,T,E/G] -> [B,E,T]

    def scores(self, z: Tensor) -> Tensor:
        """z [B,D,T] -> [B,T,G,V]"""
        return self.weight_proj(z.transpose(1, 2)).unflatten(-1, (self.n_q, self.card))
