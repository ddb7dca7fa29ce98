"""The Python API: a model that speaks.

model = slm.load("default")
speech = model.speak("Hello there.", voice="prompt.wav", seed=0)
speech.save("hello.wav")
for piece in model.stream("A long text …", voice=speech): play(piece.audio)

N samples
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from slm.backbone.steps import columns
from slm.data import audio as audio_files
from slm.errors import SlmError
from slm.flow import SENTENCE, Heard, InTurns
from slm.guided import Guided
from slm.model import Model
from slm.model import load as load_folder
from slm.prompt import Prompt, heard_at
from slm.ways import way

if TYPE_CHECKING:
    from slm_tokenizers.text.split import Word

BUNDLED = {"default": Path(__file__).parent / "models" / "default"}
LONGEST = 100_000  # characters of one request
QUIET = 3e-3  # root mean square below which a piece is silence and no speech
PIECE = 160  # characters spoken in one breath


@dataclass
class Speech:
    """What was said. audio [N] float32 at `rate` Hz; rtf is wall time over seconds of speech.

    stop_reason: "end" (all of it was said), "length", "loop" (see slm/stream/sample.py) or "silence". over: whether a piece of the text
    ends with it; a stretch that goes on has no other reason than "end" yet.
    """

    audio: Tensor
    rate: int
    stop_reason: str
    seed: int
    rtf: float = 0.0
    over: bool = True

    @property
    def seconds(self) -> float:
        return self.audio.shape[-1] / self.rate

    def save(self, path: str | Path) -> None:
        """Write .wav, .flac or .ogg, marked as synthetic in the file's metadata."""
        audio_files.write(path, self.audio, self.rate, audio_files.MADE)


class Speaker:
    """A loaded model.

    settings: how it decodes and how many parameters do it, for reports.
    """

    def __init__(self, model: Model) -> None:
        self.model, self.way = model, way(model)
        self.codec = model.tokenizers[model.recipe.speaks]
        self.text, self.rate = model.tokenizers["text"], self.codec.rate

    @property
    def settings(self) -> dict[str, Any]:
        parts = [*self.model.stages.values(), self.codec]
        return self.way.settings | {"piece": PIECE, "parameters": sum(p.numel() for part in parts for p in part.parameters())}

    def speak(self, text: str, voice: Any = None, voice_text: str | None = None, seed: int = 0, description: str = "") -> Speech:
        """Say `text` in a voice.

        Args:
            voice: a path to about three seconds of speech, a Speech, a Prompt, or None for the model's own voice.
            voice_text: what is said there, for a model that goes on from it; others do not need it.
            seed: the same text, voice and seed give the same samples.
            description: how to sound, for a model that is told in words.
        Raises SlmError: nothing to speak, a text too long, a voice that cannot be used, or a model that said nothing of it.
        """
        began = time.perf_counter()
        said = list(self.stream(text, voice, voice_text, seed, description))
        audio = torch.cat([piece.audio for piece in said])
        worst = next((piece.stop_reason for piece in said if piece.stop_reason != "end"), "end")
        return Speech(audio, self.rate, worst, seed, (time.perf_counter() - began) / (len(audio) / self.rate))

    def stream(
        self, text: str | Iterable[str], voice: Any = None, voice_text: str | None = None, seed: int = 0, description: str = ""
    ) -> Iterator[Speech]:
        """The same samples as `speak`, piece by piece (a sentence or a clause) or sooner, in stretches of one, each as soon as it is made.

        The text may come bit by bit, as a language model writes it, and is spoken as soon as a piece of it is complete; a model of text
        and speech in turns (slm/stage/interleaved.py) speaks while a sentence is still being written. The samples are the same.
        """
        from slm_tokenizers.text.split import coming, words

        bits = _bounded([text] if isinstance(text, str) else text)
        whole = isinstance(self.way, InTurns)
        parts = words(bits, SENTENCE) if whole else coming(bits, PIECE)
        first = next(parts, None)
        if first is None:
            told = text[:40] if isinstance(text, str) else ""
            raise SlmError(f"the text holds nothing to speak: {told!r}; give at least one English word or number")
        prompt = self.voice(voice, voice_text, description)
        if whole:
            yield from self._flow(chain([first], parts), prompt, seed)
            return
        for i, part in enumerate(chain([first], parts)):
            yield from self._piece(part, prompt, seed, i)

    def voice(self, source: Any = None, text: str | None = None, description: str = "") -> Prompt:
        """A path, Speech, Prompt or None -> Prompt. Of a long recording the three seconds with the most speech are heard."""
        if isinstance(source, Prompt):
            return source
        if description and self.way.voiced:
            raise SlmError(f"{self.model.folder} hears a voice and no description; leave out --description")
        if source is None and not self.way.voiced:
            return Prompt(description=description)
        own = self.model.folder / "voice.flac"
        if source is None and not own.exists():
            raise SlmError(f"{self.model.folder} has no voice of its own; give --voice, a recording of about three seconds")
        return self.way.hear(*recording(own if source is None else source, shortest=0.0), text or "")

    def reconstruct(self, audio: Tensor, rate: int) -> tuple[Tensor, int]:
        """audio [1,N] through the codec and back -> (audio [1,N'], rate): the best that this model could sound."""
        heard = heard_at(self.rate, audio, rate)
        return self.codec.decode(self.codec.encode(heard[None]), heard.shape[-1])[0], self.rate

    def _piece(self, text: str, prompt: Prompt, seed: int, index: int) -> Iterator[Speech]:
        """One piece in stretches, tried again once, with another seed, if the first did not come to a good end. SlmError if it is empty."""
        began, samples = time.perf_counter(), 0
        for attempt in range(2):
            stretches = iter(self._try(text, prompt, ((seed * 7919 + index) * 2 + attempt) % 2**63))
            first = next(stretches)
            if first[1] in (None, "end"):
                break
        for audio, reason in chain([first], stretches):
            samples += len(audio)
            if not samples:
                raise SlmError(
                    f"the model ended before it said anything of {text[:40]!r}, twice; another --seed may help, or more training"
                )
            rtf = (time.perf_counter() - began) / (samples / self.rate)
            yield Speech(audio, self.rate, reason or "end", seed, rtf, over=reason is not None)

    def _flow(self, words: Iterator[Word], prompt: Prompt, seed: int) -> Iterator[Speech]:
        """A stretch at a time; "end" of one that goes on. SlmError if nothing was said at all."""
        began, said = time.perf_counter(), 0
        for audio, reason in self.way.flow(words, prompt, seed):
            said += len(audio)
            rtf = (time.perf_counter() - began) / max(1, said) * self.rate
            yield Speech(audio, self.rate, reason or "end", seed, rtf, over=reason is not None)
        if not said:
            raise SlmError("the model ended before it said anything; another --seed may help, or more training")

    @torch.inference_mode()
    def _try(self, text: str, prompt: Prompt, seed: int) -> Iterator[Heard]:
        """A piece as its way says it, in one stretch or several, faded where it begins and ends."""
        flowing = isinstance(self.way, Guided)
        samples, energy = 0, 0.0
        for audio, reason in self.way.flow(text, prompt, seed) if flowing else [self.way.say(text, prompt, seed)]:
            if not len(audio):
                yield audio, "empty"
                return
            audio = fade(audio, self.rate, not samples, reason is not None)
            samples, energy = samples + len(audio), energy + float(audio.square().sum())
            if not math.isfinite(energy):
                yield audio.nan_to_num(), "silence"
                return
            yield audio, "silence" if reason and energy < QUIET**2 * samples else reason


def recording(source: str | Path | Speech, shortest: float = 0.1, longest: float | None = None) -> tuple[Tensor, int, str]:
    """A path or a Speech -> (audio [C,N], its rate, what to call it). SlmError: it cannot be heard, or lasts other seconds than it may."""
    spoken = isinstance(source, Speech)
    name = "the given speech" if spoken else str(source)
    audio, rate = (source.audio[None], source.rate) if spoken else audio_files.read(Path(source), shortest)
    if longest is not None and audio.shape[-1] > longest * rate:
        raise SlmError(f"{name} lasts {audio.shape[-1] / rate:.0f} s; at most {longest:g} s are heard")
    return audio, rate, name


def _bounded(bits: Iterable[str]) -> Iterator[str]:
    """The same bits. SlmError when they have become too many."""
    length = 0
    for bit in bits:
        length += len(bit)
        if length > LONGEST:
            raise SlmError(f"the text has {length} characters; at most {LONGEST} are spoken in one request")
        yield bit


def fade(audio: Tensor, rate: int, begins: bool, ends: bool, seconds: float = 0.005) -> Tensor:
    """audio [N] with short ramps where it begins and where it ends, so that pieces join without a click."""
    n = min(int(seconds * rate), len(audio) // 2)
    ramp = torch.linspace(0, 1, n)
    audio = audio.clone()
    if begins:
        audio[:n] *= ramp
    if ends:
        audio[len(audio) - n :] *= ramp.flip(0)
    return audio


def load(name: str | Path = "default", threads: int | None = 1) -> Speaker:
    """A bundled model, a folder that training wrote, or a hub id such as "owner/name" (only weights and JSON are fetched).

    threads: torch's threads on the CPU from now on. Its products are small: one thread is nearly as fast as two alone, and much
    faster beside other work. None leaves them as they are.
    """
    folder = BUNDLED.get(str(name), Path(name))
    if not folder.is_dir():
        folder = _fetch(str(name))
    model = load_folder(folder)
    for stage in model.stages.values():
        columns(stage)
    if threads:
        torch.set_num_threads(threads)
    return Speaker(model)


def _fetch(name: str) -> Path:
    if name.count("/") != 1 or name.startswith((".", "/")) or name in BUNDLED:
        raise SlmError(
            f"there is no model {name!r}; give {', '.join(BUNDLED)}, a folder that training wrote, or a hub id such as owner/name"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.flac", "*.md"]))
    except Exception as error:  # the hub library raises many kinds: no network, no such name, no right
        raise SlmError(f"there is no folder {name!r}, and no model of that name could be fetched ({type(error).__name__})") from None
