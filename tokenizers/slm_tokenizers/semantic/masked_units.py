"""Pre-training as HuBERT: which unit is hidden here?

Hsu et al., 2021, "HuBERT: Self-Supervised Speech Representation Learning by Masked Prediction of Hidden Units".

B batch, N samples, T frames, M frames of a kind, D width of the encoder, K units, E width in which units have a vector.

The units come from elsewhere: at first from clusters of MFCC, then from clusters of what an earlier encoder hears (units.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.errors import SlmError
from slm_tokenizers.semantic.encoder import SpeechEncoder
from slm_tokenizers.semantic.features import Frames, rectangle
from slm_tokenizers.semantic.masking import Masking


class MaskedUnits(nn.Module):
    """Batch: audio [B,1,N], or rows [1,N] of any lengths; units [B,T] in 0..K-1, -1 where there is none."""

    @dataclass
    class Config:
        encoder: SpeechEncoder.Config | str = field(default_factory=SpeechEncoder.Config)  # or the folder of one, to go on from
        card: int = 100  # K
        dim: int = 256  # E
        masking: Masking = field(default_factory=lambda: Masking(start=0.08))
        alpha: float = 1.0  # weight of hidden frames; 1 - alpha is that of the others
        temperature: float = 0.1
        penalty: float = 10.0  # on the mean square of the features

        def build(self, streams: dict | None = None) -> "MaskedUnits":
            """`streams` is what other stages must know; this one finds its units in the batch."""
            return MaskedUnits(self)

    def __init__(self, config: "MaskedUnits.Config") -> None:
        super().__init__()
        self.config = config
        self.encoder = begun(config.encoder) if isinstance(config.encoder, str) else config.encoder.build()
        self.final_proj = nn.Linear(self.encoder.dim, config.dim)
        self.embed = nn.Parameter(torch.rand(config.card, config.dim))

    def forward(self, batch: dict, player: str = "main") -> dict[str, Tensor]:
        return self.loss(batch)

    def loss(self, batch: dict) -> dict[str, Tensor]:
        """Nats a hidden frame, and a frame that is not. SlmError if the units do not fit, or a row is too short to be masked."""
        features = self.encoder.features(*rectangle(batch["audio"]))
        mask = self.config.masking.draw(features.count, features.x.shape[1])
        return self.losses(features, mask, batch["units"])

    def losses(self, features: Frames, mask: Tensor, units: Tensor) -> dict[str, Tensor]:
        """features [B,T,C], mask [B,T], units [B,T]"""
        c = self.config
        self.check(features, units)
        heard = self.encoder.contextual(features, mask)
        told = features.real & (units >= 0)
        losses = {"penalty": c.penalty * features.rows.float().square().mean()}
        for name, weight, where in (("hidden", c.alpha, mask & told), ("shown", 1 - c.alpha, ~mask & told)):
            if weight:
                losses[name] = weight * self.cross_entropy(heard.out[where], units[where])
        return losses

    def cross_entropy(self, x: Tensor, units: Tensor) -> Tensor:
        """x [M,D], units [M] -> mean in nats; 0 if there is no frame"""
        scores = self.scores(x)
        return F.cross_entropy(scores, units) if len(units) else scores.sum()

    def scores(self, x: Tensor) -> Tensor:
        """x [...,D] -> logits [...,K], cosines / temperature"""
        with torch.autocast(x.device.type, enabled=False):
            said = F.normalize(self.final_proj(x.float()), dim=-1, eps=1e-8)
            return said @ F.normalize(self.embed.float(), dim=-1, eps=1e-8).T / self.config.temperature

    def check(self, features: Frames, units: Tensor) -> None:
        if units.shape != features.x.shape[:2]:
            raise SlmError(f"units have the shape {list(units.shape)} but the encoder hears frames {list(features.x.shape[:2])}")
        if int(units.max()) >= self.config.card:
            raise SlmError(f"unit {int(units.max())} is outside 0 to {self.config.card - 1}")

    def write(self, folder: Path) -> None:
        """The encoder alone, in `folder`, which `slm_tokenizers.load` reads."""
        from slm_tokenizers.stored import save

        save(self.encoder, folder, exact=True)


def begun(folder: str) -> SpeechEncoder:
    """A trained encoder, to learn further. SlmError if the folder holds none."""
    from slm_tokenizers.stored import load

    encoder = load(folder)
    if not isinstance(encoder, SpeechEncoder):
        raise SlmError(f"{folder} holds a {type(encoder).__name__}; hidden units are predicted by a SpeechEncoder")
    return encoder.requires_grad_(True).train()
