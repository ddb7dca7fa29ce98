"""Pre-training as wav2vec 2.0: which of 101 quantised frames of this recording is the one that is hidden here?

Baevski et al., 2020, "wav2vec 2.0", section 3.2.

B batch, N samples, T frames, M hidden frames of the whole batch, K negatives, C width of the features, D of the encoder,
G codebooks, V entries each, F width in which the two are compared.

Losses are means over hidden frames, where the reference implementations give sums. A negative with the very ids of the right
answer is no wrong answer and does not count.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm_tokenizers.semantic.encoder import Heard, SpeechEncoder
from slm_tokenizers.semantic.features import Frames, rectangle
from slm_tokenizers.semantic.gumbel import GumbelQuantizer
from slm_tokenizers.semantic.masking import Masking, negatives


class Contrastive(nn.Module):
    """A SpeechEncoder and its quantiser. Batch: audio [B,1,N], or rows [1,N] of any lengths."""

    @dataclass
    class Config:
        encoder: SpeechEncoder.Config = field(default_factory=SpeechEncoder.Config)
        quantizer: GumbelQuantizer.Config = field(default_factory=GumbelQuantizer.Config)
        masking: Masking = field(default_factory=lambda: Masking(least=2))
        dim: int = 256  # F
        negatives: int = 100
        temperature: float = 0.1
        diversity: float = 0.1
        penalty: float = 10.0  # on the mean square of the features

        def build(self, streams: dict | None = None) -> "Contrastive":
            """`streams` is what other stages must know; this one hears audio and needs none."""
            return Contrastive(self)

    def __init__(self, config: "Contrastive.Config") -> None:
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build()
        self.quantizer = config.quantizer.build(self.encoder.width)
        self.project_hid = nn.Linear(self.encoder.dim, config.dim)
        self.project_q = nn.Linear(config.quantizer.dim, config.dim)
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    def forward(self, batch: dict, player: str = "main") -> dict[str, Tensor]:
        return self.loss(batch)

    def loss(self, batch: dict) -> dict[str, Tensor]:
        """Nats a hidden frame, and what keeps codebooks and features in shape. SlmError if a row is too short to be masked."""
        features = self.encoder.features(*rectangle(batch["audio"]))
        mask = self.config.masking.draw(features.count, features.x.shape[1])
        losses = self.losses(features, mask, negatives(mask, self.config.negatives))
        if self.training:
            self.updates += 1
        return losses

    def losses(self, features: Frames, mask: Tensor, others: Tensor, noise: Tensor | None = None) -> dict[str, Tensor]:
        """features [B,T,C], mask [B,T], others [M,K] as `negatives` gives them, noise [M,G,V] in place of dice."""
        c = self.config
        heard: Heard = self.encoder.contextual(features, mask)
        chosen = self.quantizer(heard.features[mask], int(self.updates), noise)
        with torch.autocast(mask.device.type, enabled=False):
            said, right = self.project_hid(heard.out[mask].float()), self.project_q(chosen.vectors)
            return {
                "contrastive": contrast(said, right, chosen.ids, others, c.temperature),
                "diversity": c.diversity * (1 - chosen.perplexity / self.quantizer.entries),
                "penalty": c.penalty * features.rows.float().square().mean(),
            }

    def write(self, folder: Path) -> None:
        """The encoder alone, in `folder`, which `slm_tokenizers.load` reads."""
        from slm_tokenizers.stored import save

        save(self.encoder, folder, exact=True)


def contrast(said: Tensor, right: Tensor, ids: Tensor, others: Tensor, temperature: float) -> Tensor:
    """said and right [M,F], ids [M,G] of the latter, others [M,K] -> mean cross-entropy in nats, scores being cosines / temperature"""
    answers = torch.cat([right[:, None], right[others]], 1)  # [M,1+K,F]
    scores = F.cosine_similarity(said[:, None], answers, dim=-1) / temperature
    same = (ids[others] == ids[:, None]).all(-1)  # [M,K]
    scores = scores.masked_fill(F.pad(same, (1, 0)), float("-inf"))
    return -scores.log_softmax(-1)[:, 0].mean()
