"""What a recipe returns: tokenizers, the stages that are trained one after another, their data, and how each is trained.

A recipe is a Python file with `recipe()` and `small()`; it is loaded by its path and never imported by name.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from slm.errors import SlmError
from slm.train.loop import Train


@dataclass
class Recipe:
    """A system.

    tokenizers: by stream name, a config, or the folder of a trained tokenizer (a string).
    stages: by name, configs, in the order in which they are trained and speak.
    data, train: by stage name.
    speaks: the stream whose tokenizer makes the sound.
    optional: tokenizers that only speaking needs; training goes on without one whose folder is not there, to the same weights.
    """

    tokenizers: dict[str, Any] = field(default_factory=dict)
    stages: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Train] = field(default_factory=dict)
    speaks: str = "acoustic"
    optional: tuple[str, ...] = ()

    def stage(self, name: str | None) -> str:
        """The stage called `name`, or the first. SlmError if there is none of that name."""
        if name is not None and name not in self.stages:
            raise SlmError(f"the recipe has no stage {name!r}; it has {', '.join(self.stages)}")
        return name or next(iter(self.stages))

    def alone(self, name: str) -> Recipe:
        """The recipe with that stage, its data and its training alone."""
        return replace(self, **{what: {name: getattr(self, what)[name]} for what in ("stages", "data", "train")})


def load(path: str | Path, promised: tuple[str, ...] = ("recipe", "small")) -> ModuleType:
    """The module of a recipe file, with the functions `promised`. It is code of the user's own choice, and it is run."""
    path = Path(path)
    if not path.is_file():
        raise SlmError(f"there is no recipe {path}")
    spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise SlmError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in promised:
        if not hasattr(module, name):
            raise SlmError(f"{path} has no function {name}(); it should have {' and '.join(f'{p}()' for p in promised)}")
    return module


def main(file: str) -> None:
    """Lets `python recipes/…/x.py --stage s` and `torchrun recipes/…/x.py` train what `slm train` would."""
    import sys

    from slm.cli import app

    app(["train", file, *sys.argv[1:]], prog_name="slm")
