"""What can be done with the state of any backbone: fork, reorder, batch, unbatch, and a file and back.

A state is a tree of dataclasses and lists with tensors as leaves. The first axis of every leaf is the row (B); a field whose
metadata says `GROWS` holds leaves whose third axis has spare room at its end, which differs from state to state. Nothing
here knows what the numbers mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from slm.errors import SlmError

GROWS = {"grows": True}


def leaves(state: Any, name: str = "state", grows: bool = False) -> Iterator[tuple[str, Tensor, bool]]:
    """Every tensor of a state with its path and whether its third axis grows, always in the same order."""
    if isinstance(state, Tensor):
        yield name, state, grows
    elif isinstance(state, list):
        for i, item in enumerate(state):
            yield from leaves(item, f"{name}.{i}", grows)
    elif state is not None:
        for f in fields(state):
            yield from leaves(getattr(state, f.name), f"{name}.{f.name}", "grows" in f.metadata)


def rebuild(state: Any, tensors: Iterator[Tensor]) -> Any:
    """A state of the same form whose leaves are `tensors`, in the order of `leaves`."""
    if state is None:
        return None
    if isinstance(state, Tensor):
        return next(tensors)
    if isinstance(state, list):
        return [rebuild(item, tensors) for item in state]
    return type(state)(*[rebuild(getattr(state, f.name), tensors) for f in fields(state)])


def fork(state: Any) -> Any:
    """An independent copy: going on with one leaves the other as it was."""
    return rebuild(state, (leaf.clone() for _, leaf, _ in leaves(state)))


def reorder(state: Any, rows: Tensor) -> Any:
    """Rows [n] selected, repeated or put in another order, as an independent copy: the step of a beam search."""
    return rebuild(state, (leaf[rows.to(leaf.device)] for _, leaf, _ in leaves(state)))


def batch(states: list[Any]) -> Any:
    """The rows of several states of one backbone as one state, however much each has seen."""
    columns = list(zip(*([leaf for _, leaf, _ in leaves(state)] for state in states)))
    grows = [grows for _, _, grows in leaves(states[0])]
    return rebuild(states[0], (torch.cat(_level(column) if growing else column) for column, growing in zip(columns, grows)))


def unbatch(state: Any) -> list[Any]:
    """Each row as a state of its own."""
    _, first, _ = next(leaves(state))
    return [reorder(state, torch.tensor([row])) for row in range(len(first))]


def save(state: Any, path: str | Path) -> None:
    """The state as one safetensors file."""
    from safetensors.torch import save_file

    tensors = {name: leaf.detach().contiguous() for name, leaf, _ in leaves(state)}
    save_file(tensors, str(path))


def load(path: str | Path, like: Any) -> Any:
    """The state in a file, on the devices of `like`: a state of the same backbone, such as its `start(1)`.

    SlmError: the file holds the state of a backbone of another kind or size.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        stored = load_file(str(path))
    except (OSError, SafetensorError) as error:
        raise SlmError(f"{path} holds no state: {error}") from error
    wanted = {name: (leaf, grows) for name, leaf, grows in leaves(like)}
    if stored.keys() != wanted.keys():
        odd = sorted(stored.keys() ^ wanted.keys())[0]
        raise SlmError(f"{path} holds the state of another backbone: {odd} is {'in the file only' if odd in stored else 'missing'}")
    for name, (leaf, grows) in wanted.items():
        if _fixed(stored[name], grows) != _fixed(leaf, grows):
            raise SlmError(f"{path} holds the state of another backbone: a row of {name} is {_row(stored[name])}, not {_row(leaf)}")
    return rebuild(like, (stored[name].to(leaf.device) for name, (leaf, _) in wanted.items()))


def _level(leaves: tuple[Tensor, ...]) -> list[Tensor]:
    """The third axes of leaves [B,J,capacity,E] brought to one length by zeros."""
    longest = max(leaf.shape[2] for leaf in leaves)
    return [F.pad(leaf, (0, 0, 0, longest - leaf.shape[2])) for leaf in leaves]


def _fixed(leaf: Tensor, grows: bool) -> tuple[int, ...]:
    """The lengths of the axes that all states of a backbone share."""
    return tuple(leaf.shape[1:2] + leaf.shape[3:]) if grows else tuple(leaf.shape[1:])


def _row(leaf: Tensor) -> str:
    return str(list(leaf.shape[1:]))
