"""A trained mel quantiser that learns to sound: a vocoder of its own, while encoder, codebooks and mel decoder stay.

    B batch   N samples   T frames   D latent width

The vocoder hears the mels that the codec itself makes of latents, its own or those that a model says in their place, and not real ones:
it learns to speak what it will be given, blurred as it is ("ground-truth aligned" tuning, HiFi-GAN, Kong et al., 2020). Given latents in
place of mels, or both, it learned no faster.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from slm.errors import SlmError
from slm_tokenizers import stored
from slm_tokenizers.melvq import MelVQ
from slm_vocoders.learning import Reconstruction
from slm_vocoders.vocos import Vocos


class SoundingMelVQ(nn.Module):
    """Batch: audio [B,1,N], latent [B,T,D], N = T * hop. Only the vocoder has parameters here."""

    @dataclass
    class Config:
        codec: str | MelVQ.Config = field(default="runs/taughtmel/codec")  # the folder of a trained one
        vocoder: Vocos.Config | None = None  # a new one; None: the codec's own learns further

        def build(self) -> "SoundingMelVQ":
            """SlmError: no codec there, one of another kind, without a vocoder, or whose mel the vocoder cannot hear."""
            return SoundingMelVQ(self)

    def __init__(self, config: "SoundingMelVQ.Config") -> None:
        super().__init__()
        codec = stored.load(config.codec) if isinstance(config.codec, str) else config.codec.build().as_stored()
        if not isinstance(codec, MelVQ):
            raise SlmError(f"{config.codec} holds a {type(codec).__name__}, which speaks without a mel; a MelVQ is needed")
        if config.vocoder is not None:
            codec.give(config.vocoder)
        if codec.vocoder is None:
            raise SlmError(f"the codec {config.codec} has no vocoder yet; give the config of one")
        self.vocoder = codec.vocoder
        self._codec = [codec]  # in a list: its other parts are not learned, nor stored in checkpoints

    def reconstruct(self, batch: dict) -> Reconstruction:
        codec = self._codec[0].to(batch["latent"].device)
        with torch.no_grad():
            heard = codec.folded(codec.mel_of(batch["latent"].transpose(1, 2)))
        return Reconstruction(batch["audio"], self.vocoder(heard), {})

    @torch.no_grad()
    def finished(self) -> MelVQ:
        return self._codec[0].as_stored().eval()

    def write(self, out: Path) -> None:
        """OUT/codec, which `slm_tokenizers.load` reads; its codes are those of the codec it was."""
        stored.save(self.finished(), out / "codec")
