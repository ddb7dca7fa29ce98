"""Codes on disk: one small safetensors file an item, below a folder named after the fingerprint of the tokenizer that made them.

    FOLDER/FINGERPRINT/ab/abcdef….safetensors      ab…: hash of the item's name

Codes of another fingerprint lie in another folder and are never seen. A file is written whole or not at all; one that is damaged all the
same counts as absent and is made again.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from slm.data import audio
from slm.data import cuts as cut_files
from slm.data.corpus import Skip
from slm.data.replacing import replacing
from slm.errors import SlmError

if TYPE_CHECKING:
    from lhotse import CutSet
    from lhotse.cut import Cut

NARROW = (torch.uint8, torch.int16, torch.int32)  # ids are long in memory and as narrow on disk as they fit


class AudioTokenizer(Protocol):
    """What `encode_corpus` asks of a tokenizer."""

    rate: int

    def encode(self, audio: Tensor) -> Tensor:
        """audio [B,1,N] -> codes [B,Q,T] long"""


class CodeCache:
    """Named tensors of items, by the item's name, for one fingerprint (any text that changes when the codes would)."""

    def __init__(self, folder: str | Path, fingerprint: str):
        if not fingerprint:
            raise SlmError("A code cache needs the tokenizer's fingerprint.")
        self.fingerprint = fingerprint
        self.folder = Path(folder) / blake2b(fingerprint.encode(), digest_size=16).hexdigest()

    def get(self, item: str) -> dict[str, Tensor] | None:
        """The item's tensors, integers as long; None if it is not there or cannot be read."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            tensors = load(self._path(item).read_bytes())
        except (SafetensorError, FileNotFoundError):
            return None
        return {name: tensor.long() if tensor.dtype in NARROW else tensor for name, tensor in tensors.items()}

    def put(self, item: str, tensors: dict[str, Tensor]) -> None:
        """Store all tensors of an item, in place of what was there."""
        from safetensors.torch import save

        path = self._path(item)
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors = {name: _narrow(tensor.detach().cpu()).contiguous() for name, tensor in tensors.items()}
        data = save(tensors, metadata={"item": item, "fingerprint": self.fingerprint})
        with replacing(path) as temporary:
            temporary.write_bytes(data)

    def __contains__(self, item: str) -> bool:
        return self.get(item) is not None

    def _path(self, item: str) -> Path:
        name = blake2b(item.encode(), digest_size=16).hexdigest()
        return self.folder / name[:2] / f"{name}.safetensors"


def _narrow(tensor: Tensor) -> Tensor:
    if tensor.dtype != torch.long:
        return tensor
    low, high = (int(tensor.min()), int(tensor.max())) if tensor.numel() else (0, 0)
    fits = (dtype for dtype in NARROW if torch.iinfo(dtype).min <= low and high <= torch.iinfo(dtype).max)
    return tensor.to(next(fits, torch.long))


@dataclass
class Encoded:
    """What `encode_corpus` did: clips encoded now, clips that were there already, clips that could not be read."""

    new: int = 0
    cached: int = 0
    skipped: list[Skip] = field(default_factory=list)


def encode_corpus(cuts: "CutSet", tokenizer: AudioTokenizer, cache: CodeCache, name: str = "codes") -> Encoded:
    """Make sure that the cache holds {name: codes [Q,T]} of every cut that can be read, under `cuts.key_of(cut)`."""
    from rich.console import Console
    from rich.progress import track

    done, device = Encoded(), _device(tokenizer)
    cuts = list(cuts)
    for cut in track(cuts, "Encoding", console=Console(stderr=True)):
        stored = cache.get(cut_files.key_of(cut))
        if stored is not None and name in stored:
            done.cached += 1
            continue
        try:
            samples, rate = cut_files.audio_of(cut)  # [1,N]
            samples = audio.resample(samples, rate, tokenizer.rate)
        except SlmError as error:
            done.skipped.append(Skip(cut.id, str(error)))
            continue
        with torch.inference_mode():
            codes = tokenizer.encode(samples[None].to(device))[0]  # [Q,T]
        cache.put(cut_files.key_of(cut), {name: codes})
        done.new += 1
    return done


def codes_of(
    cuts: Iterable["Cut"], tokenizer: AudioTokenizer, folder: str | Path, made: str = "", name: str = "codes"
) -> dict[str, Tensor]:
    """id of every cut that can be read -> its codes [Q,T], from the cache in `folder`, encoded now where they are not there.

    made: what tells these codes from others, for what is no tokenizer with weights; by default the tokenizer's fingerprint.
    """
    from slm.codes import fingerprint

    cuts, cache = list(cuts), CodeCache(folder, made or fingerprint(tokenizer))
    encode_corpus(cuts, tokenizer, cache, name)
    stored = {cut.id: cache.get(cut_files.key_of(cut)) for cut in cuts}
    return {id: found[name] for id, found in stored.items() if found is not None}


def _device(tokenizer: AudioTokenizer) -> torch.device:
    parameters = tokenizer.parameters() if isinstance(tokenizer, torch.nn.Module) else iter(())
    first = next(parameters, None)
    return torch.device("cpu") if first is None else first.device
