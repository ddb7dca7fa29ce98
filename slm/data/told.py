"""Crops of speech beside what a model says in its place: the data of a decoder that learns further (slm_tokenizers/refined.py).

    B rows   N samples   T frames   P prompt frames   Q levels   E latent width

A stage with `mean` hears an utterance's own first level, phones and durations and a prompt of the same voice, and says its
latents; audio and latents then count the same frames. They are made once and kept on disk.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slm.data.aligned import Aligned
from slm.data.audio import FULL
from slm.data.utterances import Utterance, Utterances
from slm.errors import SlmError


@dataclass
class Told:
    """Config: `batch` crops of `seconds`; `share` of them as `model`'s acoustic stage says them, the others as their codes do.

    whole: share of the latter that has all levels; the rest has any number of them.
    """

    speech: Aligned = field(default_factory=Aligned)
    model: str = "runs/default"
    seconds: float = 0.64
    batch: int = 12
    share: float = 0.6
    whole: float = 0.75
    seed: int = 0

    def build(self, tokenizers: dict[str, Any]) -> "ToldCrops":
        return ToldCrops(self, tokenizers)


@dataclass
class Clip:
    audio: np.ndarray  # int16 [T * hop]
    codes: Tensor  # [Q,T]
    latent: Tensor  # [T,E], as the stage says it


class ToldCrops:
    """`at(step)` -> audio [B,1,N], latent [B,T,E]; a function of (seed, step)."""

    def __init__(self, config: Told, tokenizers: dict[str, Any]) -> None:
        from slm.data import audio
        from slm.data import cuts as cut_files

        self.config, self.codec = config, tokenizers[config.speech.codec]
        self.frames = round(config.seconds * self.codec.rate / self.codec.hop)
        speech = config.speech.build(tokenizers)
        latents = said(config, speech, tokenizers)
        cuts = {cut.id: cut for folder in config.speech.folders for cut in cut_files.load(Path(folder))}
        self.clips: list[Clip] = []
        for item in speech.batches.items:
            samples, rate = cut_files.audio_of(cuts[item.id])
            samples = audio.resample(samples, rate, self.codec.rate)[0]
            samples = torch.nn.functional.pad(samples, (0, self.codec.hop))[: item.codes.shape[1] * self.codec.hop]
            if item.codes.shape[1] > self.frames and len(samples) == item.codes.shape[1] * self.codec.hop:
                self.clips.append(Clip(audio.narrow(samples), item.codes, latents[item.id]))
        if not self.clips:
            raise SlmError(f"no utterance of {', '.join(config.speech.folders)} is longer than {config.seconds} s")
        self.ends = np.cumsum([clip.codes.shape[1] for clip in self.clips])

    def at(self, step: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
        draw = np.random.default_rng([self.config.seed, step * world + rank])
        audio, latent = zip(*(self._row(draw) for _ in range(self.config.batch)))
        return {"audio": torch.stack(audio)[:, None], "latent": torch.stack(latent)}

    def _row(self, draw: np.random.Generator) -> tuple[Tensor, Tensor]:
        c, hop = self.config, self.codec.hop
        clip = self.clips[int(np.searchsorted(self.ends, draw.integers(self.ends[-1]), side="right"))]
        at = int(draw.integers(clip.codes.shape[1] - self.frames + 1))
        here = slice(at, at + self.frames)
        audio = torch.from_numpy(clip.audio[at * hop : (at + self.frames) * hop].astype(np.float32)) / FULL
        if draw.random() < c.share:
            return audio, clip.latent[here].float()
        levels = self.codec.n_q if draw.random() < c.whole else int(draw.integers(1, self.codec.n_q, endpoint=True))
        return audio, self.codec.codebooks.decode(clip.codes[None, :levels, here])[0].T


def said(config: Told, speech: Utterances, tokenizers: dict[str, Any]) -> dict[str, Tensor]:
    """The latents [T,E], half precision, of every utterance as the model's acoustic stage says them, by id."""
    from rich.console import Console
    from rich.progress import track

    from slm import model
    from slm.codes import fingerprint
    from slm.data.batches import Batches
    from slm.data.cache import CodeCache

    codec = tokenizers[config.speech.codec]
    teller = model.load(Path(config.model))
    stage = teller.stages["acoustic"]
    if fingerprint(teller.tokenizers[teller.recipe.speaks]) != fingerprint(codec):
        raise SlmError(f"{config.model} says codes of another codec than {config.speech.codec!r}")
    if not getattr(stage.config, "mean", True):
        raise SlmError(f"the acoustic stage of {config.model} says codes; a decoder learns from one that says means (mean=True)")
    cache = CodeCache(config.speech.cache, f"{fingerprint(codec)} {fingerprint(stage)} {config.seed}")
    batches = Batches(speech.batches.items, lambda u: u.codes.shape[1] + speech.prompt[1], config.speech.frames, 0, shuffle=False)
    found: dict[str, Tensor] = {}
    for step in track(range(len(batches)), "Saying", console=Console(stderr=True)):
        missing = []
        for item in batches.at(step):
            stored = cache.get(item.id)
            if stored is not None and len(stored["latent"]) == item.codes.shape[1]:
                found[item.id] = stored["latent"]
            else:
                missing.append(item)
        for item, latent in zip(missing, _say(stage, speech, missing, config.seed) if missing else []):
            cache.put(item.id, {"latent": latent})
            found[item.id] = latent
    return found


@torch.inference_mode()
def _say(stage, speech: Utterances, items: list[Utterance], seed: int) -> list[Tensor]:
    prompts = []
    for item in items:
        draw = np.random.default_rng([seed, *item.id.encode()])
        others = [o for o in speech.others[item.speaker] if o is not item] or [item]
        prompts.append(speech.piece(others[int(draw.integers(len(others)))].codes, draw))
    batch = {
        "text": [item.text for item in items],
        "duration": [item.duration for item in items],
        "given": [item.codes[: stage.config.known] for item in items],
        "prompt_codes": prompts,
    }
    with torch.autocast("cpu", torch.bfloat16):
        return [row.half() for row in stage.run(batch, [seed] * len(items))["latent"]]
