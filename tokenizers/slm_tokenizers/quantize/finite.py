"""Finite scalar quantisation: each of a few dimensions is bounded and rounded to a few values; there is no codebook to learn.

Mentzer et al., 2023, "Finite Scalar Quantization: VQ-VAE Made Simple". `LearnedFinite` learns the projections around it with
vector_quantize_pytorch; `Finite` then speaks for it without the library, with the same ids.

B batch, D width of a latent, K dimensions that are rounded, T frames, C codes: the product of the K `sizes`.
The first dimension counts fastest: code = sum over k of digit_k * (sizes_0 * … * sizes_(k-1)).
"""

import math

import torch
from torch import Tensor, nn

from slm.errors import SlmError
from slm_tokenizers.quantize.learn import Quantized
from slm_tokenizers.quantize.residual import check_codes

MARGIN = 1e-3  # the bound lies so much, relatively, beyond the last value, so that it is reached in finite time


class Finite(nn.Module):
    """z [B,D,T] <-> codes [B,1,T] in 0..C-1. With D = K there are no projections. SlmError on a size below 3."""

    sizes: Tensor
    place: Tensor

    def __init__(self, sizes: tuple[int, ...], dim: int | None = None) -> None:
        super().__init__()
        check_sizes(sizes)
        self.n_q, self.card, self.dim = 1, math.prod(sizes), dim or len(sizes)
        self.register_buffer("sizes", torch.tensor(sizes), persistent=False)  # [K]
        self.register_buffer("place", torch.tensor([math.prod(sizes[:k]) for k in range(len(sizes))]), persistent=False)  # [K]
        projected = self.dim != len(sizes)
        self.before = nn.Linear(self.dim, len(sizes)) if projected else nn.Identity()
        self.after = nn.Linear(len(sizes), self.dim) if projected else nn.Identity()

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        """z [B,D,T] -> codes [B,1,T]. SlmError on another width."""
        if z.dim() != 3 or z.shape[1] != self.dim:
            raise SlmError(f"latents have the shape {list(z.shape)} but [B, {self.dim}, T] is needed")
        # Autocast would round before the rounding that is meant.
        with torch.autocast(z.device.type, enabled=False):
            x = self.before(z.transpose(1, 2).float())
            half = (self.sizes - 1) * (1 + MARGIN) / 2
            # An even number of values has none in the middle: half a step aside, and shifted back where z is 0.
            aside = torch.where(self.sizes % 2 == 0, 0.5, 0.0)
            digits = (torch.tanh(x + torch.atanh(aside / half)) * half - aside).round() + self.sizes // 2  # [B,T,K]
        return (digits.long() * self.place).sum(-1)[:, None]

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """codes [B,1,T] -> z [B,D,T]. SlmError on a code out of range, or more than one level."""
        check_codes(codes, 1, self.card)
        middle = self.sizes // 2
        digits = codes[:, 0, :, None] // self.place % self.sizes  # [B,T,K]
        return self.after((digits - middle) / middle).transpose(1, 2)


class LearnedFinite(nn.Module):
    """Straight-through rounding between two projections while training."""

    def __init__(self, sizes: tuple[int, ...], dim: int | None = None) -> None:
        super().__init__()
        from vector_quantize_pytorch import FSQ

        check_sizes(sizes)
        self.sizes, self.dim = tuple(sizes), dim or len(sizes)
        self.fsq = FSQ(
            levels=list(sizes), dim=self.dim, num_codebooks=1, projection_has_bias=True, preserve_symmetry=False,
            noise_dropout=0.0, bound_hard_clamp=False, orthogonal_rotation=False, return_indices=True,
        )  # fmt: skip

    def forward(self, z: Tensor) -> Quantized:
        """z [B,D,T] -> Quantized; there is one level and nothing to commit to."""
        latent, codes = self.fsq(z.transpose(1, 2))
        latent = latent.transpose(1, 2)
        return Quantized(latent, codes[:, None].long(), z.new_zeros(()), latent)

    @torch.no_grad()
    def finished(self) -> Finite:
        """The projections alone."""
        finite = Finite(self.sizes, self.dim)
        finite.before.load_state_dict(self.fsq.project_in.state_dict())
        finite.after.load_state_dict(self.fsq.project_out.state_dict())
        return finite


def check_sizes(sizes: tuple[int, ...]) -> None:
    if not sizes or min(sizes) < 3:
        raise SlmError(f"sizes are {tuple(sizes)} but each dimension needs 3 values or more")
