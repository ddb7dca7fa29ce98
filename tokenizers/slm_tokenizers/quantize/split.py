"""Split residual quantisation: a semantic quantiser and an acoustic one code the same latent side by side.

Défossez et al., 2024, "Moshi: a speech-text foundation model for real-time dialogue", section 3.3.3: were the acoustic levels
to code what the semantic level left over, that level would have to serve two ends at once; here it may leave sound to them.

B batch, Q levels (the semantic ones first), C entries a codebook, D width of the latent, E width of an entry, T frames.
"""

import torch
from torch import Tensor, nn

from slm.errors import SlmError
from slm_tokenizers.quantize.residual import Codebooks, check_codes


class Projected(nn.Module):
    """Residual codebooks between a projection from D to E and one back; none where E is D, as published."""

    def __init__(self, n_q: int, card: int, dim: int, code_dim: int):
        super().__init__()
        alike = dim == code_dim
        self.inward = nn.Identity() if alike else nn.Conv1d(dim, code_dim, 1, bias=False)
        self.books = Codebooks(n_q, card, code_dim)
        self.outward = nn.Identity() if alike else nn.Conv1d(code_dim, dim, 1, bias=False)

    def encode(self, z: Tensor, n_q: int) -> Tensor:
        return self.books.encode(self.inward(z), n_q)

    def decode(self, codes: Tensor) -> Tensor:
        return self.outward(self.books.decode(codes))


class Split(nn.Module):
    """`semantic` levels and n_q - semantic acoustic ones."""

    def __init__(self, n_q: int, semantic: int, card: int, dim: int, code_dim: int):
        super().__init__()
        if not 1 <= semantic < n_q:
            raise SlmError(f"semantic is {semantic} but must be in 1 to {n_q - 1}, fewer than all levels")
        self.n_q, self.card, self.first = n_q, card, semantic
        self.semantic = Projected(semantic, card, dim, code_dim)
        self.acoustic = Projected(n_q - semantic, card, dim, code_dim)

    @torch.no_grad()
    def encode(self, z: Tensor, n_q: int | None = None) -> Tensor:
        """z [B,D,T] -> codes [B,Q,T] long of the first `n_q` levels, all by default. SlmError on a count that cuts the semantic part."""
        levels = self.n_q if n_q is None else n_q
        self.check_levels(levels)
        # Autocast would round the projections to bfloat16, and ids would change.
        with torch.autocast(z.device.type, enabled=False):
            z = z.float()
            codes = self.semantic.encode(z, self.first)
            if levels == self.first:
                return codes
            return torch.cat([codes, self.acoustic.encode(z, levels - self.first)], dim=1)

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """codes [B,Q',T] of the first Q' levels -> z [B,D,T]. SlmError on a level or code out of range, or no frames."""
        check_codes(codes, self.n_q, self.card)
        self.check_levels(codes.shape[1])
        z = self.semantic.decode(codes[:, : self.first])
        return z if codes.shape[1] == self.first else z + self.acoustic.decode(codes[:, self.first :])

    def check_levels(self, levels: int) -> None:
        if not self.first <= levels <= self.n_q:
            raise SlmError(f"n_q is {levels} but these codebooks have levels {self.first} to {self.n_q}")
