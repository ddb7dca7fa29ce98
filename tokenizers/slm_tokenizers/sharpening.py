"""A trained mel quantiser whose decoder learns to make mels that are not blurred; encoder and codebooks stay, and with them every code.

    B batch   N samples   T frames   D latent width   M mel bands   S mel frames a code frame

Of a true mel Griffin-Lim makes good speech; of the mean of what a mel may be, which is what a distance teaches, it does not. So critics of
mels tell them apart, as critics of waveforms do for vocoders, at a hundredth of their cost: a mel has a hundred frames a second. The
decoder hears the codec's own latents, and those that a model says in their place ("ground-truth aligned" tuning, HiFi-GAN, Kong et al.,
2020).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from slm.errors import SlmError
from slm_tokenizers import stored
from slm_tokenizers.listener import Listener
from slm_tokenizers.melvq import CENTRE, SPREAD, MelVQ, Sharp
from slm_vocoders.learning import Reconstruction


class SharpeningMelVQ(nn.Module):
    """Batch: audio [B,1,N], latent [B,T,D], N = T * hop. Only the decoder, and the listener if there is one, have parameters here.

    Of a few levels alone it learns from codes [B,Q,T] instead of latent, with a listener from teacher [B,T] too: phones, -1 if unknown.
    """

    @dataclass
    class Config:
        """levels: how many the decoder is to make sound of, and the codec to have then; None: all. phones: the listener's strength."""

        codec: str | MelVQ.Config = field(default="runs/taughtmel/codec")  # the folder of a trained one, or a bundled one's name
        sharp: Sharp.Config | None = field(default_factory=Sharp.Config)  # a new last part; None: the decoder as it is
        levels: int | None = None
        phones: float = 0.0

        def build(self) -> "SharpeningMelVQ":
            """SlmError: no codec there, or one of another kind, or without those levels."""
            return SharpeningMelVQ(self)

    def __init__(self, config: "SharpeningMelVQ.Config") -> None:
        from slm.codes import load_tokenizer

        super().__init__()
        self.config = config
        codec = load_tokenizer(config.codec) if isinstance(config.codec, str) else config.codec.build().as_stored()
        if not isinstance(codec, MelVQ):
            raise SlmError(f"{config.codec} holds a {type(codec).__name__}, which speaks without a mel; a MelVQ is needed")
        if config.levels is not None:
            codec.cut(config.levels)
        if config.sharp is not None:
            codec.sharpen(config.sharp)
        self.decoder = codec.decoder
        self.listener = Listener(codec.config.mel.n_mels, codec.fold, config.phones) if config.phones else None
        self._codec = [codec]  # in a list: its other parts are not learned, nor stored in checkpoints

    def reconstruct(self, batch: dict) -> Reconstruction:
        """Mels [B,1,M,T*S] in the place of audio, as numbers near one."""
        codec = self._codec[0].to(batch["audio"].device)
        with torch.no_grad():
            real = codec.spectrum(batch["audio"])
        fake = codec.mel_of(self.latent(batch, codec)).float()
        real, fake = ((mel[:, None] - CENTRE) / SPREAD for mel in (real, fake))
        made = Reconstruction(real, fake, {})
        return made if self.listener is None else replace(made, losses=self.listener(made, batch["teacher"]))

    def latent(self, batch: dict, codec: MelVQ) -> Tensor:
        """What the decoder hears [B,D,T]."""
        if self.config.levels is None:
            return batch["latent"].transpose(1, 2)
        return codec.codebooks.decode(batch["codes"][:, : self.config.levels])

    @torch.no_grad()
    def finished(self) -> MelVQ:
        return self._codec[0].as_stored().eval()

    def write(self, out: Path) -> None:
        """OUT/codec, which `slm_tokenizers.load` reads; its codes are those of the codec it was."""
        stored.save(self.finished(), out / "codec")
