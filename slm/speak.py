"""The Python API: a model that speaks.

model = slm.load("default")
speech = model.speak("Hello there.", voice="prompt.wav", seed=0)
speech.save("hello.wav")
for piece in model.stream("A long text …", voice=speech): play(piece.audio)

N samples   Q levels   P prompt frames   T frames   L phones
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slm.data import audio as audio_files
from slm.errors import SlmError
from slm.model import Model
from slm.model import load as load_folder

BUNDLED = {"default": Path(__file__).parent / "models" / "default"}
LONGEST = 100_000  # characters of one request
PIECE = 160  # characters spoken in one breath
LEAD, TAIL = 8, 14  # frames of silence kept at a piece's ends


@dataclass
class Speech:
    """What was said. audio [N] float32 at `rate` Hz; rtf is wall time over seconds of speech.

    stop_reason: "end" (all of it was said), "length", "loop" or "silence" (see slm/stream/sample.py).
    """

    audio: Tensor
    rate: int
    stop_reason: str
    seed: int
    rtf: float = 0.0

    @property
    def seconds(self) -> float:
        return self.audio.shape[-1] / self.rate

    def save(self, path: str | Path) -> None:
        """Write .wav, .flac or .ogg, marked as synthetic in the file's metadata."""
        audio_files.write(path, self.audio, self.rate, f"{audio_files.SYNTHETIC}: speech made by a machine")


@dataclass
class Prompt:
    """A voice as a model hears it: codes [Q,P]. Keep it, to speak again in the same voice without reading the file."""

    codes: Tensor


class Speaker:
    """A loaded model.

    settings: how it decodes, for reports.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.codec = model.tokenizers[model.recipe.speaks]
        self.text = model.tokenizers["text"]
        self.rate = self.codec.rate
        self.semantic, self.acoustic = model.stages["semantic"], model.stages["acoustic"]
        self._prompts: dict[tuple, Prompt] = {}

    @property
    def settings(self) -> dict[str, Any]:
        said = {name: asdict(s) for name, s in self.semantic.config.sampling.items()}
        return {
            "sampling": said,
            "pace": self.semantic.config.pace,
            "passes": list(self.acoustic.config.passes),
            "temperature": self.acoustic.config.temperature,
            "mean": self.acoustic.config.mean,
            "piece": PIECE,
        }

    def speak(self, text: str, voice: Any = None, voice_text: str | None = None, seed: int = 0) -> Speech:
        """Say `text` in a voice.

        Args:
            voice: a path to about three seconds of speech, a Speech, a Prompt, or None for the model's own voice.
            voice_text: what is said there; this model does not need it.
            seed: the same text, voice and seed give the same samples.
        Raises SlmError: nothing to speak, a text too long, a voice that cannot be used.
        """
        began = time.perf_counter()
        said = list(self.stream(text, voice, voice_text, seed))
        audio = torch.cat([piece.audio for piece in said])
        worst = next((piece.stop_reason for piece in said if piece.stop_reason != "end"), "end")
        return Speech(audio, self.rate, worst, seed, (time.perf_counter() - began) / (len(audio) / self.rate))

    def stream(self, text: str, voice: Any = None, voice_text: str | None = None, seed: int = 0) -> Iterator[Speech]:
        """The same samples as `speak`, piece by piece (a sentence or a clause), each as soon as it is made."""
        from slm_tokenizers.text.split import pieces

        if len(text) > LONGEST:
            raise SlmError(f"the text has {len(text)} characters; at most {LONGEST} are spoken in one request")
        parts = pieces(text, PIECE)
        if not parts:
            raise SlmError(f"the text holds nothing to speak: {text[:40]!r}; give at least one English word or number")
        prompt = self.voice(voice)
        for i, part in enumerate(parts):
            yield self._piece(part, prompt, seed, i)

    def voice(self, source: Any = None) -> Prompt:
        """A path, Speech, Prompt or None -> Prompt. Of a long recording the three seconds with the most speech are heard."""
        if isinstance(source, Prompt):
            return source
        if isinstance(source, Speech):
            return self._listen(source.audio[None], source.rate, "the given speech")
        path = Path(source) if source is not None else self.model.folder / "voice.flac"
        if source is None and not path.exists():
            raise SlmError(f"{self.model.folder} has no voice of its own; give --voice, a recording of about three seconds")
        audio, rate = audio_files.read(path, shortest=0.0)
        return self._listen(audio, rate, str(path))

    def reconstruct(self, audio: Tensor, rate: int) -> tuple[Tensor, int]:
        """audio [1,N] through the codec and back -> (audio [1,N'], rate): the best that this model could sound."""
        heard = audio_files.resample(audio_files.to_mono(audio), rate, self.rate)
        return self.codec.decode(self.codec.encode(heard[None]), heard.shape[-1])[0], self.rate

    def _listen(self, audio: Tensor, rate: int, name: str) -> Prompt:
        audio = audio_files.resample(audio_files.to_mono(audio), rate, self.rate)
        return Prompt(self.codec.encode(loud_part(audio, self.rate, self.codec.hop, name)[None])[0])

    def _piece(self, text: str, prompt: Prompt, seed: int, index: int) -> Speech:
        """One piece, tried again once, with another seed, if it did not come to a good end."""
        began = time.perf_counter()
        for attempt in range(2):
            audio, reason = self._try(text, prompt, ((seed * 7919 + index) * 2 + attempt) % 2**63)
            if reason == "end":
                break
        return Speech(audio, self.rate, reason, seed, (time.perf_counter() - began) / (len(audio) / self.rate))

    @torch.inference_mode()
    def _try(self, text: str, prompt: Prompt, seed: int) -> tuple[Tensor, str]:
        latents = self.codec.codebooks.decode(prompt.codes[None])[0].T  # [P,E]
        batch = self.semantic.run({"text": [self.text.encode(text)], "prompt": [latents]}, [seed])
        reason = batch["stop"][0]
        batch |= {"given": batch["semantic"], "prompt_codes": [prompt.codes]}
        if "semantic_chances" in batch:
            batch["given_chances"] = batch["semantic_chances"]
        batch = self.acoustic.run(batch, [seed])
        if "latent" in batch:
            latent = batch["latent"][0].T  # [E,T]
        else:
            latent = self.codec.codebooks.decode(batch[self.model.recipe.speaks][0][None])[0]
        lead, tail = (int(batch["duration"][0][i]) for i in (0, -1))
        latent = latent[:, max(0, lead - LEAD) : latent.shape[1] - max(0, tail - TAIL)]
        audio = fade(self.codec.sound(latent[None])[0, 0], self.rate)
        if not audio.isfinite().all() or audio.square().mean().sqrt() < 1e-3:
            return audio.nan_to_num(), "silence"
        return audio, reason


def loud_part(audio: Tensor, rate: int, hop: int, name: str, seconds: float = 3.0, least: float = 1.0) -> Tensor:
    """audio [1,N] -> the `seconds` of it that hold the most speech, at an even loudness. SlmError: too short, or silent."""
    if audio.shape[-1] < least * rate:
        raise SlmError(f"{name} lasts {audio.shape[-1] / rate:.2f} s; a voice needs at least {least:g} s, three are better")
    whole = audio.shape[-1] // hop * hop
    energy = audio[0, :whole].view(-1, hop).square().mean(1)  # [frames]
    if energy.max().sqrt() < 1e-3:
        raise SlmError(f"{name} is silent; a voice needs at least {least:g} s of speech")
    speech = (energy > energy.max() * 1e-3).float()
    if speech.sum() * hop < 0.5 * rate:
        raise SlmError(
            f"{name} holds {speech.sum() * hop / rate:.2f} s of speech; a voice needs at least half a second of it, three are better"
        )
    size = min(len(speech), int(seconds * rate / hop))
    counts = speech.unfold(0, size, 1).sum(1)
    start = int(counts.argmax())
    part = audio[:, start * hop : (start + size) * hop]
    level = (part.square().mean()).sqrt().clamp(min=1e-5)
    return part * torch.minimum(0.06 / level, 0.95 / part.abs().max())


def fade(audio: Tensor, rate: int, seconds: float = 0.005) -> Tensor:
    """audio [N] with short ramps at both ends, so that pieces join without a click."""
    n = min(int(seconds * rate), len(audio) // 2)
    ramp = torch.linspace(0, 1, n)
    audio = audio.clone()
    audio[:n] *= ramp
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
    if threads:
        torch.set_num_threads(threads)
    if missing := {"semantic", "acoustic"} - set(model.stages):
        raise SlmError(f"{folder} cannot speak yet: its {' and '.join(sorted(missing))} stage is not trained")
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
