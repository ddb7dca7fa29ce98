"""Speech that begins before its text is complete: text in bit by bit, audio out bit by bit, for the stage of text and speech in turns.

    N samples   T frames   P prompt frames

Words are fed as soon as they are certain, each sentence is an utterance, and what is said sounds as soon as its frames and those that
sound with them are there. Words, draws and stretches depend on the text alone: the samples are the same however the text comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from slm.errors import SlmError
from slm.model import Model
from slm.prompt import Prompt, clip, latents
from slm.sounding import Sounding
from slm.stream.sample import settings
from slm_tokenizers.text.phonemes import IDS, Phonemes
from slm_tokenizers.text.split import Word, words

SENTENCE = 160  # characters after which a sentence is taken to end
STRETCH = 25  # frames that sound together

Heard = tuple[Tensor, str | None]  # audio [N]; why the utterance ended, None while it goes on


class InTurns:
    """One language model of text and the first level of codes in turns, the voice as one vector."""

    voiced = True

    def __init__(self, model: Model) -> None:
        self.codec, self.text, self.lm = model.tokenizers[model.recipe.speaks], model.tokenizers["text"], model.stages["lm"]
        if not isinstance(self.text, Phonemes):
            raise SlmError(f"{model.folder} reads {type(self.text).__name__}: only of phonemes it is known when a word is complete")
        self.settings = {"sampling": settings(self.lm.config.sampling), "spans": vars(self.lm.config.spans)}

    def hear(self, audio: Tensor, rate: int, name: str, text: str) -> Prompt:
        return Prompt(clip(self.codec, audio, rate, name), text=text)

    def say(self, text: str, prompt: Prompt, seed: int) -> tuple[Tensor, str]:
        said = list(self.flow(words([text], SENTENCE), prompt, seed))
        reasons = [reason for _, reason in said if reason]
        return torch.cat([audio for audio, _ in said]), next((reason for reason in reasons if reason != "end"), "end")

    def flow(self, told: Iterable[Word], prompt: Prompt, seed: int) -> Iterator[Heard]:
        """Words as they come -> their audio in stretches, the last of each sentence with the reason why it ended."""
        voice = latents(self.codec, prompt)  # [P,E]
        utterance, feeding, sounding = 0, None, None
        for phones, last in spoken(told, self.text):
            if feeding is None:
                feeding, sounding = self.lm.speak((seed * 7919 + utterance) % 2**63, voice), Stretches(self.codec)
            for code in feeding.feed(phones):
                yield from sounding.push(code)
            if last:
                for code in feeding.end():
                    yield from sounding.push(code)
                yield sounding.end(), feeding.stop
                utterance, feeding = utterance + 1, None


def spoken(told: Iterable[Word], text: Phonemes) -> Iterator[tuple[Tensor, bool]]:
    """Words -> the phones [L] of each and whether a sentence ends with them; in a row, one pause at its ends and one at each mark.

    "the" waits for the word behind it, which decides how it is said.
    """
    waiting, first = "", True
    for word in told:
        waiting = f"{waiting} {word.text}".strip()
        if waiting.split()[-1].lower() == "the" and not word.last:
            continue
        phones = [phone for group in text.phones(waiting) for phone in group]
        marked = waiting.rstrip("\"'”’)]")[-1:] in tuple(",.;:?!…—")
        phones = phones[0 if first else 1 : None if word.last or marked else -1]
        waiting, first = "", word.last
        yield torch.tensor([IDS[phone] for phone in phones]), word.last


class Stretches:
    """Codes of the first level as they come -> audio, in stretches that are the same whenever the codes come."""

    def __init__(self, codec: Any) -> None:
        self.codec, self.codes, self.sounding = codec, [], Sounding(codec)
        self.ahead = getattr(codec, "receptive_field", None)  # None: of a codec that cannot be cut all sounds at the end

    def push(self, code: int) -> Iterator[Heard]:
        self.codes.append(code)
        if self.ahead is not None and len(self.codes) == STRETCH + self.ahead:
            yield self._stretch(STRETCH), None

    def end(self) -> Tensor:
        """All that has not sounded yet [N]."""
        return self._stretch(len(self.codes))

    @torch.inference_mode()
    def _stretch(self, frames: int) -> Tensor:
        said = torch.tensor(self.codes, dtype=torch.long)[None, None]  # [1,1,T]
        self.codes = self.codes[frames:]
        return self.sounding.sound(self.codec.codebooks.decode(said)[0], frames) if frames else torch.zeros(0)
