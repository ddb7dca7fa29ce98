"""Files as a broken download or a stranger leaves them: whatever reads weights must refuse each in one sentence, and run nothing."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from slm.errors import SlmError


def refuses_every_cut(load: Callable[[Path], object], saved: Path, tmp: Path) -> None:
    """`load` names the weights of `saved`, a file or a folder with model.safetensors, when they end too early or are not there."""
    copy = tmp / saved.name
    shutil.copytree(saved, copy) if saved.is_dir() else shutil.copy(saved, copy)
    weights = copy / "model.safetensors" if saved.is_dir() else copy
    whole = weights.read_bytes()
    for size in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        weights.write_bytes(whole[:size])
        refuses(load, copy, weights.name)
    weights.unlink()
    refuses(load, copy, weights.name)


def refuses_a_pickle(load: Callable[[Path], object], path: Path, write: Callable, held: Callable[[object], object]) -> None:
    """`load` refuses what `write` leaves at `path` of `held(object)`, an object that would be called; it never is."""
    trap = path.parent / "ran"
    with open(path, "wb") as file:
        write(held(Harmful(trap)), file)
    refuses(load, path, path.name)
    assert not trap.exists()


def refuses(load: Callable[[Path], object], path: Path, says: str) -> None:
    with pytest.raises(SlmError, match=says) as raised:
        load(path)
    assert "\n" not in str(raised.value)


class Harmful:
    """Unpickled, it makes a file."""

    def __init__(self, trap: Path):
        self.trap = trap

    def __reduce__(self):
        return (Path.touch, (self.trap,))
