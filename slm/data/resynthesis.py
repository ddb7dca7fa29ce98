"""Crops of speech to make again: units or codes, how high they are said, and another recording of the voice.

    B rows   Q levels   T frames   N = T * hop samples   M samples of the voice

The voice comes from another recording of the speaker wherever there is one, so that nothing of what is said can be heard in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slm.data.audio import FULL
from slm.errors import SlmError


@dataclass
class Clip:
    audio: np.ndarray  # int16 [N]
    codes: Tensor  # [Q,T]
    hertz: Tensor  # [T], 0 where there is no voice
    speaker: str


@dataclass
class Resynthesis:
    """Config: `batch` crops of `seconds` from prepared folders, and `heard` seconds of the voice of each; recordings shorter than either
    are left out.

    codec: the tokenizer whose levels `levels` (first, stop) are told, of 20 ms a frame.
    """

    folders: tuple[str, ...] = ("data/train", "data/synthetic")
    seconds: float = 1.0
    heard: float = 2.0
    batch: int = 16
    codec: str = "units"
    levels: tuple[int, int] = (0, 1)
    held_out: tuple[str, ...] = ()
    cache: str = "data/codes"
    seed: int = 0

    def build(self, tokenizers: dict[str, Any]) -> "ResynthesisRows":
        codec = tokenizers[self.codec]
        return ResynthesisRows(self, [clip for folder in self.folders for clip in self.read(Path(folder), codec)], codec)

    def read(self, folder: Path, codec: Any) -> list[Clip]:
        from rich.console import Console
        from rich.progress import track

        from slm.data import cuts as cut_files
        from slm.data.cache import codes_of
        from slm.data.prosody import TRACKED, Tracker

        shortest = max(self.seconds, self.heard)
        cuts = [c for c in cut_files.load(folder) if cut_files.speaker_of(c) not in self.held_out and c.duration > shortest + 0.04]
        coded, tracked = codes_of(cuts, codec, self.cache), codes_of(cuts, Tracker(), self.cache, TRACKED, "hertz")
        clips = []
        for cut in track(cuts, f"Reading {folder}", console=Console(stderr=True), transient=True):
            heard = cut_files.clip_of(cut, codec.rate) if cut.id in coded and cut.id in tracked else None
            if heard is not None:
                levels, hertz = coded[cut.id][slice(*self.levels)], tracked[cut.id][0] / 10
                clips.append(even(Clip(heard, levels, hertz, cut_files.speaker_of(cut) or cut.id), codec.hop))
        return clips


@dataclass
class MadeUpResynthesis:
    """Config: the same rows from made-up speech of four speakers."""

    of: Resynthesis

    def build(self, tokenizers: dict[str, Any]) -> "ResynthesisRows":
        from slm.data import audio
        from slm.data.madeup import utterance
        from slm.nn.pitch import pitch

        codec, clips = tokenizers[self.of.codec], []
        for row in range(8):
            sound = utterance(0, row % 4 + 10 * (row // 4), 30, 40, codec.hop, codec.rate)[2]
            codes = codec.encode(sound[None])[0, slice(*self.of.levels)]
            hertz = pitch(sound[None], codec.rate, codec.hop)[0]
            clips.append(even(Clip(audio.narrow(sound[0]), codes, hertz, f"speaker {row % 4}"), codec.hop))
        return ResynthesisRows(self.of, clips, codec)


def even(clip: Clip, hop: int) -> Clip:
    """The clip as far as its audio, codes and pitch all reach."""
    frames = min(len(clip.audio) // hop, clip.codes.shape[1], len(clip.hertz))
    return Clip(clip.audio[: frames * hop], clip.codes[:, :frames], clip.hertz[:frames], clip.speaker)


class ResynthesisRows:
    """`at(step)` -> audio [B,1,N], codes [B,Q,T], pitch [B,T] in Hz, voice [B,1,M]; a function of (seed, step).

    SlmError if frames are not of 20 ms, or no recording is long enough.
    """

    def __init__(self, config: Resynthesis, clips: list[Clip], codec: Any) -> None:
        if codec.hop * 50 != codec.rate:
            raise SlmError(f"pitch is tracked 50 times a second, but these units come {codec.rate / codec.hop:g} times")
        self.config, self.hop = config, codec.hop
        self.frames, self.heard = round(config.seconds * 50), round(config.heard * 50)
        self.clips = [clip for clip in clips if len(clip.hertz) >= max(self.frames, self.heard)]
        if not self.clips:
            raise SlmError(f"no recording of {', '.join(config.folders)} is longer than {max(config.seconds, config.heard)} s")
        self.ends = np.cumsum([len(clip.hertz) for clip in self.clips])
        self.spoken: dict[str, list[int]] = {}
        for i, clip in enumerate(self.clips):
            self.spoken.setdefault(clip.speaker, []).append(i)

    def at(self, step: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
        draw = np.random.default_rng([self.config.seed, step * world + rank])
        rows = [self.row(draw) for _ in range(self.config.batch)]
        audio, codes, pitch, voice = (torch.stack(column) for column in zip(*rows))
        return {"audio": audio, "codes": codes, "pitch": pitch, "voice": voice}

    def row(self, draw: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A longer recording is drawn more often, as it holds more speech."""
        i = int(np.searchsorted(self.ends, draw.integers(self.ends[-1]), side="right"))
        clip = self.clips[i]
        at = int(draw.integers(len(clip.hertz) - self.frames + 1))
        there = slice(at, at + self.frames)
        other = self.clips[self.another(i, draw)]
        begin = int(draw.integers(len(other.hertz) - self.heard + 1))
        return self.cut(clip, at, self.frames), clip.codes[:, there], clip.hertz[there].float(), self.cut(other, begin, self.heard)

    def another(self, i: int, draw: np.random.Generator) -> int:
        """Another recording of the i-th's speaker; itself if it is the only one."""
        own = self.spoken[self.clips[i].speaker]
        return own[(own.index(i) + 1 + int(draw.integers(len(own) - 1))) % len(own)] if len(own) > 1 else i

    def cut(self, clip: Clip, at: int, frames: int) -> Tensor:
        """[1, frames * hop] from frame `at` on"""
        samples = clip.audio[at * self.hop : (at + frames) * self.hop]
        return torch.from_numpy(samples.astype(np.float32) / FULL)[None]
