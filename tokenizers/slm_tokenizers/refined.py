"""A trained codec whose decoder learns further: encoder and codebooks stay, and with them every code.

    B batch   N samples   T frames   D latent width

The decoder hears the codec's own latents, and those that a model says in their place ("ground-truth aligned" tuning, as
HiFi-GAN, Kong et al., 2020, is tuned on the mels that Tacotron 2 predicts), so that it makes the best of both.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from slm_tokenizers.codec import Codec
from slm_tokenizers.codec import load as load_codec
from slm_tokenizers.codec import save as save_codec
from slm_vocoders.learning import Reconstruction


class RefinedCodec(nn.Module):
    """Batch: audio [B,1,N], latent [B,T,D], N = T * hop. Only the decoder has parameters here."""

    @dataclass
    class Config:
        codec: str | Codec.Config = field(default="runs/codec/codec")  # the folder of a trained codec

        def build(self) -> "RefinedCodec":
            return RefinedCodec(self)

    def __init__(self, config: "RefinedCodec.Config") -> None:
        super().__init__()
        codec = load_codec(config.codec) if isinstance(config.codec, str) else config.codec.build()
        self.decoder = codec.decoder
        self._codec = [codec]  # in a list: its other parts are not learned, nor stored in checkpoints

    def reconstruct(self, batch: dict) -> Reconstruction:
        return Reconstruction(batch["audio"], self.decoder(batch["latent"]), {})

    @torch.no_grad()
    def finished(self) -> Codec:
        return self._codec[0].as_stored().eval()

    def write(self, out: Path) -> None:
        """OUT/codec, which `slm_tokenizers.load` reads; its codes are those of the codec it was."""
        save_codec(self.finished(), out / "codec")
