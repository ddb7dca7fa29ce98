"""A second stage of one pass and its codec's decoder, trained on as one: from the first level to mels that critics take for real.

    B rows   T frames   Q levels   E latent width   C crops   F frames of a crop   H samples a frame

What is said at once is a mean, and a mean of mels is a blur that no decoder can undo: it does not know which of the things that were
averaged was meant. Judged by its mels the stage may choose, as the generators of GAN-based text to speech do (VITS, Kim et al., 2021).
The first level it mostly hears as it will be when the voice speaks: not as codes, but as the mean of what the stage before believes
where it heard its own draws. A listener that learns phones on the recordings' mels must hear them in those that are said, too. Some
crops are decoded from the codes themselves, so that the codec still says what it hears. Every code stays what it was.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from slm.codes import fingerprint
from slm.errors import SlmError
from slm.stage.direct import Direct
from slm.stream.sample import Sampling, sample
from slm_tokenizers.listener import Listener
from slm_tokenizers.sharpening import SharpeningMelVQ
from slm_tokenizers.text.align import classes_of
from slm_vocoders.learning import Reconstruction


class SharpeningVoice(nn.Module):
    """Batch: what Direct learns from, and audio [1,T*H] of the same frames. A generator for slm/stage/adversarial.py."""

    @dataclass
    class Config:
        """model: the folder of a voice whose acoustic stage is a Direct. frames, crops: how much is judged of a batch, at most.

        share: of the crops, those that the stage says; the others are decoded from codes.
        soft: of the batches, those whose first level is what the voice's semantic stage believes in place of what it is.
        draws: how often what that stage hears of the first level is drawn anew, all at once, from what it believed before (scheduled
        sampling in parallel, Duckworth et al., 2019); with none it hears what is true, as it never does when it speaks.
        phones: how strongly the listener moves the mels, where the critics and distances together have a strength of one; 0: no listener.
        """

        model: str = "runs/default"
        codec: SharpeningMelVQ.Config = field(default_factory=lambda: SharpeningMelVQ.Config("runs/sharpmel/codec", sharp=None))
        frames: int = 48
        crops: int = 20
        share: float = 0.75
        soft: float = 0.9
        draws: int = 2
        phones: float = 0.3

        def build(self) -> "SharpeningVoice":
            """SlmError: a voice of another kind, or of another codec, or a listener where the text is no phones."""
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
        codec = voice.tokenizers[voice.recipe.speaks]
        if fingerprint(self.mels.finished()) != fingerprint(codec):
            raise SlmError(f"{config.model} says codes of another codec than {config.codec.codec}")
        self.listener = None
        if config.phones:
            self.listener = Listener(codec.config.mel.n_mels, codec.fold, config.phones)
            self.register_buffer("classes", torch.tensor(classes_of(voice.tokenizers["text"].symbols)), persistent=False)
        self._voice = [voice]  # in a list: its other stages are not learned, nor stored in checkpoints

    def reconstruct(self, batch: dict) -> Reconstruction:
        """Mels [C,1,M,F*S] in the place of audio, as numbers near one."""
        if torch.rand(()) < self.config.soft:
            batch = batch | {"given_chances": self.believed(batch)}
        said, meant, lengths = self.stage.tried(batch)
        frames = min(self.config.frames, int(lengths.max()))
        places = self.places(lengths.tolist(), frames)
        audio, latent = [], []
        for row, at in places:
            hop = batch["audio"][row].shape[-1] // int(lengths[row])
            audio.append(batch["audio"][row][:, at * hop : (at + frames) * hop])
            latent.append((said if torch.rand(()) < self.config.share else meant)[row, at : at + frames])
        made = self.mels.reconstruct({"audio": torch.stack(audio), "latent": torch.stack(latent)})
        if self.listener is None:
            return made
        phones = [self.classes[text].repeat_interleave(n) for text, n in zip(batch["text"], batch["duration"])]
        return replace(made, losses=self.listener(made, torch.stack([phones[row][at : at + frames] for row, at in places])))

    def believed(self, batch: dict) -> list[Tensor]:
        """The chances [T,C] of the first level's codes, as the semantic stage has them where it hears what it drew itself."""
        semantic = self._voice[0].stages["semantic"].to(batch["semantic"][0].device)
        sampling, dice = semantic.config.sampling.get("semantic", Sampling()), torch.Generator().manual_seed(int(torch.randint(2**31, ())))
        found = semantic.chances(batch, "semantic")
        lengths = [len(row) for row in found]
        for _ in range(self.config.draws):
            drawn = sample(torch.cat(found).log(), sampling, [dice] * sum(lengths))
            heard = [codes[None] for codes in drawn.split(lengths)]
            found = semantic.chances(batch | {"semantic_heard": heard}, "semantic")
        return found

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
