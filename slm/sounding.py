"""What was said sounds stretch by stretch, as if it were one: frames on either side of a stretch sound with it.

    E latent width   T frames   N samples
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Sounding:
    """Latents as they come -> audio, for one utterance. Frames behind a stretch sound with it as they are then thought to be.

    A codec of a finite receptive field hears `around` frames to each side; one that goes on from what was heard is given that too. Any
    other must be given an utterance at once.
    """

    def __init__(self, codec: Any) -> None:
        self.codec, self.around = codec, getattr(codec, "receptive_field", 0)
        self.past: Tensor | None = None  # latents [E,T] that sounded last
        self.heard: Tensor | None = None  # as this audio [N]

    @torch.inference_mode()
    def sound(self, latent: Tensor, frames: int) -> Tensor:
        """latent [E,T], of which the first `frames` sound now -> audio [N]"""
        known = [self.heard[None, None]] if self.heard is not None and getattr(self.codec, "goes_on", False) else []
        latent = latent if self.past is None else torch.cat([self.past, latent], 1)
        begin = 0 if self.past is None else self.past.shape[1]
        keep, end = max(0, begin + frames - self.around), begin + frames
        audio = self.codec.sound(latent[None], *known)[0, 0]
        self.past, self.heard = latent[:, keep:end], audio[keep * self.codec.hop : end * self.codec.hop]
        return audio[begin * self.codec.hop : end * self.codec.hop]
