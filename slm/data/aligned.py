"""Prepared folders with alignments, as examples for text to speech.

`slm prepare` writes FOLDER/cuts.jsonl.gz, `slm align` FOLDER/phones.jsonl: {"id", "phones": [[symbol, frames], …]} a line,
50 frames a second. The codes come from the recipe's codec and are cached on disk under its fingerprint.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slm.data.quick import Quick
from slm.data.rough import Rough
from slm.data.utterances import Utterance, Utterances, shorten
from slm.errors import SlmError


@dataclass
class Aligned:
    """Config of the data of a text-to-speech stage.

    folders: prepared and aligned corpora. frames: what a batch may hold. prompt: how many frames one has.
    longest: frames of one phone or pause at most. most: frames of what is to be said at most; of a longer utterance a piece.
    held_out: speakers that must not be heard in training.
    rough: share of prompts that come from recordings made worse (rough.py), as of a telephone.
    sound: whether rows hold, beside the codes of what is to be said, its audio.
    speeds: each recording is heard played that fast, as another speaker each time (quick.py).
    """

    folders: tuple[str, ...] = ("data/train", "data/synthetic")
    frames: int = 6000
    seed: int = 0
    prompt: tuple[int, int] = (50, 150)
    longest: int = 60
    most: int = 450
    cache: str = "data/codes"
    codec: str = "acoustic"
    held_out: tuple[str, ...] = ()
    rough: float = 0.0
    sound: bool = False
    speeds: tuple[float, ...] = (1.0,)

    def build(self, tokenizers: dict[str, Any]) -> Utterances:
        codec, text = tokenizers[self.codec], tokenizers["text"]
        items = [item for folder in self.folders for speed in self.speeds for item in self.read(Path(folder), codec, text, speed)]
        if not items:
            raise SlmError(f"no aligned utterance was found in {', '.join(self.folders)}; run slm prepare and slm align")
        return Utterances(items, codec.codebooks.embed, self.frames, self.seed, self.prompt, self.most, self.rough)

    def read(self, folder: Path, codec, text, speed: float = 1.0) -> list[Utterance]:
        from slm.data import cuts as cut_files
        from slm.data.cache import codes_of

        cuts = cut_files.load(folder)
        phones = read_phones(folder)
        cuts = [c for c in cuts if c.id in phones and cut_files.speaker_of(c) not in self.held_out]
        quick = Quick(codec, speed)
        found = codes_of(cuts, quick, self.cache, quick.made)
        worse = codes_of(cuts, (rough := Rough(quick)), self.cache, rough.made) if self.rough else {}
        ids = {symbol: i for i, symbol in enumerate(text.symbols)}
        items = []
        for cut in cuts:
            if cut.id not in found:
                continue
            symbols, frames = zip(*phones[cut.id])
            duration, codes = quick.lasting(torch.tensor(frames)), found[cut.id]
            if abs(int(duration.sum()) - codes.shape[1]) > 1:
                continue  # aligned to other audio
            duration[-1] += codes.shape[1] - duration.sum()
            if duration[-1] < 1:
                continue
            said = torch.tensor([ids[s] for s in symbols])
            heard = shorten(said, duration, worse[cut.id], self.longest)[2] if worse else None
            clip = cut_files.clip_of(cut, quick.rate) if self.sound else None
            sound = None if clip is None else shorten(said, duration, framed(clip, codec.hop, codes.shape[1]), self.longest)[2]
            row = shorten(said, duration, codes, self.longest)
            items.append(Utterance(cut.id + quick.mark, (cut_files.speaker_of(cut) or cut.id) + quick.mark, *row, heard, sound))
        return items


def framed(clip: np.ndarray, hop: int, frames: int) -> Tensor:
    """clip [N] -> [hop,frames], one frame a column; silence completes the last."""
    sound = torch.from_numpy(clip[: frames * hop])
    return torch.nn.functional.pad(sound, (0, frames * hop - len(sound))).view(frames, hop).T


def read_phones(folder: Path) -> dict[str, list]:
    """FOLDER/phones.jsonl -> id -> [[symbol, frames], …]. SlmError if it is missing or damaged."""
    path = folder / "phones.jsonl"
    if not path.exists():
        raise SlmError(f"there is no {path}: `slm align {folder}` makes one")
    try:
        return {row["id"]: row["phones"] for row in map(json.loads, path.read_text().splitlines())}
    except (ValueError, KeyError, TypeError):
        raise SlmError(f"{path} is not a file of alignments, or it is damaged") from None


def frame_classes(phones: Iterable[tuple[str, int]], frames: int) -> list[int]:
    """[[symbol, frames], …] of a recording -> the class of each of its first `frames` frames; -1 where nothing is known."""
    from slm_tokenizers.text.align import CLASS, plain

    said = [CLASS[plain(symbol)] for symbol, n in phones for _ in range(n)]
    return said[:frames] + [-1] * (frames - len(said))
