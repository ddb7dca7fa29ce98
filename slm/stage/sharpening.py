"""A second stage of one pass and its codec's decoder, trained on as one: from the first level to mels that critics take for real.

    B rows   T frames   Q levels   E latent width   C crops   F frames of a crop   H samples a frame

What is said at once is a mean, and a mean of mels is a blur that no decoder can undo: it does not know which of the things that were
averaged was meant. Judged by its mels the stage may choose, as the generators of GAN-based text to speech do (VITS, Kim et al., 2021).
The first level it mostly hears as it will be when the voice speaks: not as codes, but as the mean of what the stage before believes.
Some crops are decoded from the codes themselves, so that the codec still says what it hears. Every code stays what it was.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from slm.codes import fingerprint
from slm.errors import SlmError
from slm.stage.direct import Direct
from slm.stage.given import confused
from slm_tokenizers.sharpening import SharpeningMelVQ
from slm_vocoders.learning import Reconstruction


class SharpeningVoice(nn.Module):
    """Batch: what Direct learns from, and audio [1,T*H] of the same frames. A generator for slm/stage/adversarial.py."""

    @dataclass
    class Config:
        """model: the folder of a voice whose acoustic stage is a Direct. frames, crops: how much is judged of a batch, at most.

        share: of the crops, those that the stage says; the others are decoded from codes.
        soft: of the batches, those whose first level is what the voice's semantic stage believes in place of what it is.
        slips: share of wrong codes in what that stage heard of itself, as it makes them when it speaks.
        """

        model: str = "runs/default"
        codec: SharpeningMelVQ.Config = field(default_factory=lambda: SharpeningMelVQ.Config("runs/sharpmel/codec", sharp=None))
        frames: int = 48
        crops: int = 20
        share: float = 0.75
        soft: float = 0.6
        slips: float = 0.15

        def build(self) -> "SharpeningVoice":
            """SlmError: a voice of another kind, or of another codec."""
            return SharpeningVoice(self)

    def __init__(self, config: "SharpeningVoice.Config") -> None:
        from slm import model

        super().__init__()
        self.config = config
        voice = model.load(Path(config.model))
        stage = voice.stages.get("acoustic")
        if not isinstance(stage, Direct):
            raise SlmError(f"{config.model} does not say at once how it sounds; that takes a voice of recipes/zero_shot/default.py")
        self.stage = stage.requires_grad_(True)
        self.mels = config.codec.build()
        if fingerprint(self.mels.finished()) != fingerprint(voice.tokenizers[voice.recipe.speaks]):
            raise SlmError(f"{config.model} says codes of another codec than {config.codec.codec}")
        self._voice = [voice]  # in a list: its other stages are not learned, nor stored in checkpoints

    def reconstruct(self, batch: dict) -> Reconstruction:
        """Mels [C,1,M,F*S] in the place of audio, as numbers near one."""
        if torch.rand(()) < self.config.soft:
            batch = batch | {"given_chances": self.believed(batch)}
        said, meant, lengths = self.stage.tried(batch)
        frames = min(self.config.frames, int(lengths.max()))
        audio, latent = [], []
        for row, at in self.places(lengths.tolist(), frames):
            hop = batch["audio"][row].shape[-1] // int(lengths[row])
            audio.append(batch["audio"][row][:, at * hop : (at + frames) * hop])
            latent.append((said if torch.rand(()) < self.config.share else meant)[row, at : at + frames])
        return self.mels.reconstruct({"audio": torch.stack(audio), "latent": torch.stack(latent)})

    def believed(self, batch: dict) -> list[Tensor]:
        """The chances [T,C] of the first level's codes, as the semantic stage has them where it heard itself slip now and then."""
        heard = [confused(row[None], self.stage.card, self.config.slips)[0] for row in batch["semantic"]]
        semantic = self._voice[0].stages["semantic"].to(heard[0].device)
        return semantic.chances(batch | {"semantic_heard": heard}, "semantic")

    def places(self, lengths: list[int], frames: int) -> list[tuple[int, int]]:
        """Rows and first frames of crops that do not overlap, as many as there may be, drawn anew each time."""
        found = []
        for row, length in enumerate(lengths):
            spare = length % frames
            start = int(torch.randint(spare + 1, ())) if length >= frames else 0
            found += [(row, at) for at in range(start, length - frames + 1, frames)]
        return [found[i] for i in torch.randperm(len(found))[: self.config.crops]]

    @torch.no_grad()
    def write(self, out: Path) -> None:
        """OUT is the voice again, with its acoustic stage and codec as they now are."""
        from slm import model

        voice = self._voice[0]
        tokenizers = voice.tokenizers | {voice.recipe.speaks: self.mels.finished()}
        for name, stage in voice.stages.items():
            model.save_stage(voice.recipe, name, stage, tokenizers, out)
