"""Pre-training as w2v-BERT: the lower layers learn a codebook by contrast, the upper ones say which entry is hidden.

Chung et al., 2021, "w2v-BERT: Combining Contrastive Learning and Masked Language Modeling for Self-Supervised Speech
Pre-Training".

B batch, N samples, T frames, M hidden frames of the whole batch, K negatives, D width of the encoder, G codebooks, V entries each.

As in the second version, a learned vector stands for a hidden frame; the paper draws a random one. The ids that the upper
layers are to say are those of the quantiser at that very step, and no gradient flows to it from there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.errors import SlmError
from slm_tokenizers.semantic.conformer import Conformer
from slm_tokenizers.semantic.contrastive import contrast
from slm_tokenizers.semantic.features import Frames, rectangle
from slm_tokenizers.semantic.gumbel import GumbelQuantizer
from slm_tokenizers.semantic.masking import Masking, negatives


class Joint(nn.Module):
    """A Conformer and its quantiser. Batch: audio [B,1,N] at 16 kHz, or rows [1,N] of any lengths."""

    @dataclass
    class Config:
        encoder: Conformer.Config = field(default_factory=Conformer.Config)
        quantizer: GumbelQuantizer.Config = field(default_factory=lambda: GumbelQuantizer.Config(1, 1024, 1024))
        masking: Masking = field(default_factory=lambda: Masking(least=2))
        below: int = 12  # layers of the contrastive module; the rest of the encoder says ids
        negatives: int = 100
        temperature: float = 0.1
        contrastive: float = 1.0
        diversity: float = 0.1
        masked: float = 1.0

        def build(self, streams: dict | None = None) -> "Joint":
            """`streams` is what other stages must know; this one hears audio and needs none."""
            return Joint(self)

    def __init__(self, config: "Joint.Config") -> None:
        super().__init__()
        if not 0 < config.below < config.encoder.depth:
            raise SlmError(f"below is {config.below} but must be from 1 to {config.encoder.depth - 1}, a layer under the last")
        self.config = config
        self.encoder = config.encoder.build()
        self.quantizer = config.quantizer.build(self.encoder.width)
        self.project_hid = nn.Linear(self.encoder.dim, config.quantizer.dim)
        self.head = nn.Linear(self.encoder.dim, self.quantizer.entries)
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    def forward(self, batch: dict, player: str = "main") -> dict[str, Tensor]:
        return self.loss(batch)

    def loss(self, batch: dict) -> dict[str, Tensor]:
        """Nats a hidden frame of both tasks, and the codebook's diversity. SlmError if a row is too short to be masked."""
        features = self.encoder.features(*rectangle(batch["audio"]))
        mask = self.config.masking.draw(features.count, features.x.shape[1])
        losses = self.losses(features, mask, negatives(mask, self.config.negatives))
        if self.training:
            self.updates += 1
        return losses

    def losses(self, features: Frames, mask: Tensor, others: Tensor, noise: Tensor | None = None) -> dict[str, Tensor]:
        """features [B,T,C], mask [B,T], others [M,K] as `negatives` gives them, noise [M,G,V] in place of dice."""
        c = self.config
        heard = self.encoder.contextual(features, mask)
        chosen = self.quantizer(heard.features[mask], int(self.updates), noise)
        with torch.autocast(mask.device.type, enabled=False):
            said = self.project_hid(heard.layers[c.below][mask].float())
            scores = self.head(heard.out[mask].float()).unflatten(-1, (c.quantizer.groups, -1))  # [M,G,V]
            return {
                "contrastive": c.contrastive * contrast(said, chosen.vectors, chosen.ids, others, c.temperature),
                "diversity": c.diversity * (1 - chosen.perplexity / self.quantizer.entries),
                "masked": c.masked * F.cross_entropy(scores.flatten(0, 1), chosen.ids.flatten()),
            }

    def write(self, folder: Path) -> None:
        """The encoder alone, in `folder`, which `slm_tokenizers.load` reads."""
        from slm_tokenizers.stored import save

        save(self.encoder, folder, exact=True)
