"""Examples in which speech is described: what is said, in words how it sounds, and its codes. No voice is given besides.

    L phones   M bytes   Q levels   T frames   A attributes

A description names some of the attributes by the third of the corpus that the recording lies in (attributes.py), in one of four wordings
each. The last wording of everything is never heard in training. It has no letters that the others have not, for who learns to read from
descriptions alone knows no others; what is new is how the words stand together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slm.condition.description import SOUNDS
from slm.data import attributes
from slm.data.aligned import Aligned
from slm.data.attributes import NAMES
from slm.data.batches import Batches, drawn
from slm.data.continued import starts, within
from slm.data.draw import permutation
from slm.data.madeup import MadeUpUtterances
from slm.data.utterances import Utterance
from slm.errors import SlmError

WORDS = {  # attribute -> bin, from low to high -> wordings, the last held out
    "rate": (
        ("slowly", "at a slow pace", "in slow speech", "at a slow speed"),
        ("at a normal pace", "neither fast nor slowly", "at a medium speed", "at a normal speed"),
        ("fast", "at a fast pace", "at a high speed", "in fast speech"),
    ),
    "pitch": (
        ("in a low voice", "with a deep voice", "at a low pitch", "with a low voice"),
        ("in a voice of medium height", "at a medium pitch", "with a voice neither low nor high", "at a pitch of medium height"),
        ("in a high voice", "with a bright, high voice", "at a high pitch", "with a high voice"),
    ),
    "melody": (
        ("in a monotone", "with hardly any melody", "with a flat tone", "in a flat monotone"),
        ("with some melody", "with a moderate tone", "somewhat expressively", "with a moderate melody"),
        ("expressively", "with a lively melody", "with a lively, changing tone", "in a lively, expressive tone"),
    ),
    "noise": (
        ("with no noise", "in a clean recording", "without any noise", "in a recording without noise"),
        ("with a little noise", "in a slightly noisy recording", "with slight noise", "in a recording with a little noise"),
        ("with much noise", "in a noisy recording", "in a recording full of noise", "in a recording with much noise"),
    ),
}
WHO = {
    "f": ("a woman", "a female speaker", "a female person", "a female"),
    "m": ("a man", "a male speaker", "a male person", "a male"),
    None: ("someone", "a speaker", "a person", "some speaker"),
}
FRAMES = ("{who} speaks {how}", "this is {who} speaking {how}", "{who} is speaking {how}", "this is how {who} speaks: {how}")


def describe(bins: dict[str, int], sex: str | None, draw: np.random.Generator, held_out: bool = False) -> str:
    """Some attributes, each with its bin, in words: in wordings that are drawn, or all in those that no training hears."""

    def one(wordings: tuple[str, ...]) -> str:
        return wordings[-1] if held_out else wordings[int(draw.integers(len(wordings) - 1))]

    named = [list(bins)[i] for i in draw.permutation(len(bins))]
    if not named:
        raise SlmError("a description names at least one attribute")
    how = [one(WORDS[name][bins[name]]) for name in named]
    text = one(FRAMES).format(who=one(WHO[sex]), how=", ".join(how[:-1]) + " and " * (len(how) > 1) + how[-1])
    return text[0].upper() + text[1:] + "."


@dataclass
class Described:
    """Config.

    levels: how many of the codec's are heard when attributes are measured, those that the model says. named: how probable it is that
    an attribute is named. longest: frames that rows are cut to, between two phones. bins: where the edges of the bins are kept; None:
    they are fitted anew. shuffled: each recording is described as another one sounds, a control.
    """

    of: Aligned | MadeUpUtterances = field(default_factory=Aligned)
    levels: int = 3
    named: float = 0.8
    longest: int = 450
    bins: str | None = "data/attributes.json"
    cache: str | None = "data/codes"
    shuffled: bool = False

    def build(self, tokenizers: dict[str, Any]) -> "Descriptions":
        items = self.of.build(tokenizers).batches.items
        values = heard(items, tokenizers["acoustic"], self.levels, self.cache)
        bins = attributes.kept(self.bins, values)
        return Descriptions(self, items, bins.of(values), sexes(self.of), tokenizers["description"])


class Descriptions:
    """`at(step)` -> batch with text [L], acoustic [Q,T], description [M], sounds [A]; a function of (seed, step)."""

    def __init__(self, config: Described, items: list[Utterance], bins: Tensor, sex: dict[str, str | None], letters: Any) -> None:
        """bins [n,A]; sex: "f" or "m" by id, where it is known; letters: the tokenizer of descriptions."""
        self.config, self.seed, self.letters = config, config.of.seed, letters
        self.batches = Batches(items, lambda u: min(config.longest, u.codes.shape[1]), max(config.longest, config.of.frames), self.seed)
        sounds = {item.id: (dict(zip(NAMES, row)), sex.get(item.id)) for item, row in zip(items, bins.tolist())}
        other = another(len(items), self.seed) if config.shuffled else range(len(items))
        self.sounds = {item.id: sounds[items[j].id] for item, j in zip(items, other)}

    def __len__(self) -> int:
        return len(self.batches)

    def at(self, step: int, rank: int = 0, world: int = 1) -> dict:
        return drawn(self.batches, self.row, self.seed, step, rank, world)

    def row(self, item: Utterance, draw: np.random.Generator) -> dict[str, Tensor]:
        row = {"text": item.text, "duration": item.duration, "acoustic": item.codes}
        row = within(row, int(draw.integers(starts(row, self.config.longest))), self.config.longest)
        told = {"description": self.letters.encode(self.words(item.id, draw)), SOUNDS: torch.tensor(list(self.sounds[item.id][0].values()))}
        return {"text": row["text"], "acoustic": row["acoustic"]} | told

    def words(self, id: str, draw: np.random.Generator) -> str:
        """A description of the recording: its sex in half of them, and some of its attributes."""
        bins, sex = self.sounds[id]
        said = draw.random(len(NAMES)) < self.config.named
        said[int(draw.integers(len(NAMES)))] = True
        return describe({name: bins[name] for name, on in zip(NAMES, said) if on}, sex if draw.random() < 0.5 else None, draw)


def another(count: int, seed: int) -> list[int]:
    """For each of `count` items, at least two, another one, each once."""
    order = permutation(count, seed)
    found = np.empty(count, int)
    found[order] = np.roll(order, 1)
    return found.tolist()


def sexes(of: Aligned | MadeUpUtterances) -> dict[str, str | None]:
    """ "f" or "m" by the id of a recording, for corpora that say so."""
    if isinstance(of, MadeUpUtterances):
        return {}
    from slm.data import cuts as cut_files

    known = {cut.id: cut.supervisions[0].gender for folder in of.folders for cut in cut_files.load(Path(folder)) if cut.supervisions}
    return {id: sex for id, sex in known.items() if sex in WHO}


def heard(items: list[Utterance], codec: Any, levels: int, cache: str | None) -> Tensor:
    """[n,A]: each item's attributes as its first levels sound; measured once and kept on disk."""
    from rich.console import Console
    from rich.progress import track

    from slm.codes import fingerprint
    from slm.data.cache import CodeCache

    stored = CodeCache(cache, f"attributes 1, {levels} levels of {fingerprint(codec)}") if cache else None
    found = []
    for item in track(items, "Measuring", console=Console(stderr=True), transient=True):
        told = stored.get(item.id) if stored else None
        if told is None or int(told["frames"]) != item.codes.shape[1]:
            phones = int((item.text > 0).sum())
            told = {"values": attributes.of_codes(codec, item.codes[:levels], phones), "frames": torch.tensor(item.codes.shape[1])}
            if stored:
                stored.put(item.id, told)
        found.append(told["values"])
    return torch.stack(found)
