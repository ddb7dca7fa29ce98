"""Grouped residual VQ: the width of a latent is cut in G parts, each with residual codebooks of its own.

Yang et al., 2023, "HiFi-Codec: Group-residual Vector quantization for High Fidelity Audio Codec".
`LearnedGroups` learns with vector_quantize_pytorch; `Groups` then speaks for it without the library, with the same ids.

B batch, D width of a latent, T frames, G groups, Q levels a group, C entries a codebook.
Codes are [B,G*Q,T], all levels of the first group before those of the second, as in HiFi-Codec.
"""

import torch
from torch import Tensor, nn

from slm.errors import SlmError
from slm_tokenizers.quantize.learn import DEAD, Quantized
from slm_tokenizers.quantize.residual import Codebooks, check_codes


class Groups(nn.Module):
    """G Codebooks side by side. SlmError if G does not divide `dim`."""

    def __init__(self, groups: int, n_q: int, card: int, dim: int) -> None:
        super().__init__()
        check_groups(groups, dim)
        self.n_q, self.card, self.dim = groups * n_q, card, dim
        self.groups = nn.ModuleList(Codebooks(n_q, card, dim // groups) for _ in range(groups))

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        """z [B,D,T] -> codes [B,G*Q,T]. SlmError on another width."""
        if z.dim() != 3 or z.shape[1] != self.dim:
            raise SlmError(f"latents have the shape {list(z.shape)} but [B, {self.dim}, T] is needed")
        return torch.cat([books.encode(part) for books, part in zip(self.groups, z.chunk(len(self.groups), dim=1))], dim=1)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """codes [B,G*Q,T] -> z [B,D,T]. SlmError on another number of levels, or a code out of range."""
        check_codes(codes, self.n_q, self.card)
        if codes.shape[1] != self.n_q:
            raise SlmError(f"codes have {codes.shape[1]} levels but {len(self.groups)} groups need all {self.n_q}")
        return torch.cat([books.decode(part) for books, part in zip(self.groups, codes.chunk(len(self.groups), dim=1))], dim=1)


class LearnedGroups(nn.Module):
    """Grouped residual VQ with EMA codebooks while training; all levels are always used."""

    def __init__(self, groups: int, n_q: int, card: int, dim: int) -> None:
        super().__init__()
        from vector_quantize_pytorch import GroupedResidualVQ

        check_groups(groups, dim)
        self.vq = GroupedResidualVQ(
            dim=dim, groups=groups, num_quantizers=n_q, codebook_size=card, codebook_dim=None, shared_codebook=False,
            quantize_dropout=False, kmeans_init=True, kmeans_iters=10, decay=0.99, threshold_ema_dead_code=DEAD,
            commitment_weight=1.0, rotation_trick=False, use_cosine_sim=False, stochastic_sample_codes=False,
        )  # fmt: skip

    def forward(self, z: Tensor) -> Quantized:
        """z [B,D,T] in fp32 -> Quantized; `first` is the first level of every group."""
        x = z.transpose(1, 2)
        latent, codes, commit, every = self.vq(x, return_all_codes=True)  # [B,T,D], [G,B,T,Q], [G,1,Q], G of [Q,B,T,D/G]
        first = x + (torch.cat([levels[0] for levels in every], dim=-1) - x).detach()
        codes = codes.permute(1, 0, 3, 2).flatten(1, 2)
        return Quantized(latent.transpose(1, 2), codes, commit.sum(), first.transpose(1, 2))

    @torch.no_grad()
    def finished(self) -> Groups:
        """The codebooks alone."""
        embeds = [torch.stack([layer._codebook.embed[0] for layer in rvq.layers]) for rvq in self.vq.rvqs]
        n_q, card, dim = embeds[0].shape
        groups = Groups(len(embeds), n_q, card, dim * len(embeds)).to(embeds[0].device)
        for books, embed in zip(groups.groups, embeds):
            books.embed.copy_(embed)
        return groups


def check_groups(groups: int, dim: int) -> None:
    if groups < 1 or dim % groups:
        raise SlmError(f"groups is {groups} but must divide the width {dim} of a latent")
