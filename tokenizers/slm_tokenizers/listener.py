"""What hears phones in mels: it learns them on recordings, and mels that are made lose by what it does not hear in them.

    C crops   M mel bands   T frames   S mel frames a frame

Neither a distance nor critics ask whether a mel can be understood; this does, at the cost of three small convolutions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm_tokenizers.text.align import FrameClassifier
from slm_vocoders.balancer import Balancer
from slm_vocoders.learning import Reconstruction


class Listener(nn.Module):
    """weight: how strongly it moves the mels, where all else that moves them has together a strength of one."""

    def __init__(self, bands: int, fold: int, weight: float) -> None:
        super().__init__()
        self.classifier, self.balancer = FrameClassifier(fold * bands), Balancer(("phones",), total=weight)

    def forward(self, made: Reconstruction, phones: Tensor) -> dict[str, Tensor]:
        """Mels [C,1,M,T*S], phones [C,T] (-1: unknown) -> what it learns of real mels, and what made ones lose by it.

        The more of the real ones it hears, the more the others lose.
        """
        real, fake = (mel[:, 0].transpose(1, 2).reshape(*phones.shape, -1) for mel in (made.real, made.fake))
        heard, known = self.classifier(real), phones >= 0
        if not known.any():
            return {"listening": heard.sum() * 0, "phones": fake.sum() * 0}
        fixed = {name: p.detach() for name, p in self.classifier.named_parameters()}
        lost = F.nll_loss(torch.func.functional_call(self.classifier, fixed, (fake,))[known], phones[known])
        right = (heard.argmax(-1) == phones)[known].float().mean()
        balanced = self.balancer({"phones": lost}, {"phones": 1.0}, made.fake)["phones"]
        return {"listening": F.nll_loss(heard[known], phones[known]), "phones": right * balanced}
