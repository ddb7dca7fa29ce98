"""From a recipe to a folder that speaks.

OUT/STAGE/checkpoints   while it trains          OUT/STAGE/losses.jsonl, OUT/STAGE/log   what it showed
OUT/config.json, OUT/STAGE.safetensors, OUT/codec/                                       what `slm speak --model OUT` loads
OUT/STAGE/config.json, OUT/STAGE/model.safetensors                                       an encoder or units, for `slm_tokenizers.load`
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from slm import recipe as recipes
from slm.config import change
from slm.errors import SlmError
from slm.recipe import Recipe
from slm.stage.begin import begin
from slm.stage.lm import Stream
from slm.train.checkpoint import latest, read
from slm.train.loop import fit


def tokenizers(recipe: Recipe) -> dict[str, Any]:
    """The recipe's tokenizers: trained ones from their folders, the others built, the same each time.

    Optional ones come last and draw apart, so that with and without them a stage begins as the same.
    """
    torch.manual_seed(0)
    built = {name: _made(made) for name, made in recipe.tokenizers.items() if name not in recipe.optional}
    spare = {name: made for name, made in recipe.tokenizers.items() if name in recipe.optional}
    with torch.random.fork_rng(devices=[]):
        built |= {name: _made(made) for name, made in spare.items() if not isinstance(made, str) or Path(made).exists()}
    for tokenizer in built.values():
        if hasattr(tokenizer, "as_stored"):
            tokenizer.as_stored()
        if isinstance(tokenizer, nn.Module):
            tokenizer.eval().requires_grad_(False)
    return built


def _made(made: Any) -> Any:
    from slm.codes import load_tokenizer

    return load_tokenizer(made) if isinstance(made, str) else made.build()


def streams(built: dict[str, Any], card: int = 64) -> dict[str, Stream]:
    """What stages must know of each stream: the tokenizers', durations below `card` frames, and the codec's first level as `semantic`
    where no tokenizer has that name."""
    known = {"duration": Stream(card)}
    for name, tokenizer in built.items():
        books = getattr(tokenizer, "codebooks", None)
        known[name] = Stream(tokenizer.card, tokenizer.n_q, None if books is None else books.embed)
        if books is not None and "semantic" not in built:
            known["semantic"] = Stream(tokenizer.card)
    return known


def train_recipe(
    path: str | Path,
    stage: str | None,
    out: str | Path,
    changes: list[str] = (),
    resume: bool = False,
    small: bool = False,
    quiet: bool = False,
) -> list[dict[str, float]]:
    """Train one stage of the recipe at `path` and write what speaks. Returns the losses of the steps that were run."""
    module = recipes.load(path)
    recipe: Recipe = module.small() if small else module.recipe()
    for text in changes:
        recipe = change(recipe, text)
    return train_stage(recipe, stage, Path(out), resume, quiet)


def train_stage(recipe: Recipe, stage: str | None, out: Path, resume: bool = False, quiet: bool = False) -> list[dict[str, float]]:
    """As `train_recipe`, with a recipe at hand."""
    name = recipe.stage(stage)
    run = out / name
    if not resume and (latest(run) or (run / "config.json").exists()):
        raise SlmError(f"{run} already holds a run; give --resume to go on with it, or another --out")
    built = tokenizers(recipe)
    module = recipe.stages[name].build(streams(built))
    data = recipe.data[name].build(built)
    train = recipe.train[name]
    if train.start and not latest(run):
        begin(module, train.start)
    # what is not learned by gradients, such as clusters, fits itself
    history = module.fit(data, train) if hasattr(module, "fit") else fit(module, data, train, run, resume, quiet)
    last = latest(run)
    if last and (last / "average.safetensors").exists():
        module.load_state_dict(read(last / "average.safetensors"))
    module.eval()
    finish(recipe, name, module, built, out)
    return history


def finish(recipe: Recipe, name: str, module: nn.Module, built: dict[str, Any], out: Path) -> None:
    """Write the trained stage: a codec or a vocoder as a folder of its own, a stage of a system into the system's folder.

    What is neither, such as an encoder, has `write` and goes beside its checkpoints.
    """
    from slm import model

    if hasattr(module, "generator"):
        module.generator.write(out)
    elif hasattr(module, "write"):
        module.write(out / name)
    else:
        model.save_stage(recipe, name, module, built, out)
