"""One loop for every stage: losses in, checkpoints out, killed at any moment and resumed to the last bit.

Nothing hidden is carried from step to step: the batch and all randomness of a step are functions of (seed, step), so a
checkpoint is the parameters, their moving average, the optimisers and one number.

A stage is an nn.Module whose `forward(batch, player)` returns {name: scalar}; their sum is minimised. Most stages have one
player; an adversarial one has two, which own disjoint parameters and move in turn each step.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from slm.train.checkpoint import latest, restore, save
from slm.train.ema import Average
from slm.train.log import Log


@dataclass
class Train:
    """How a stage is trained.

    Args:
        steps: optimiser updates in all.
        lr: peak rate; it rises over `warmup` steps and falls linearly to `lr * floor` over the last `cooldown` share.
        precision: "bf16" autocasts matrix products (several times faster on CPUs with matrix units), "fp32" does not.
        accumulate: batches a update.
        ema: decay of the parameters' moving average, which is what a trained model speaks with; 0 turns it off.
        every: steps between checkpoints; show_every: between pictures and sounds (0: never).
        start: the folder of a text model that the stage goes on from (slm/stage/begin.py).
    """

    steps: int = 1000
    lr: float = 3e-4
    warmup: int = 200
    cooldown: float = 0.3
    floor: float = 0.02
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    clip: float = 1.0
    accumulate: int = 1
    ema: float = 0.999
    precision: str = "bf16"
    seed: int = 0
    every: int = 200
    show_every: int = 0
    rates: dict[str, float] = field(default_factory=dict)  # a player's learning rate as a multiple of `lr`
    start: str | None = None


class Data(Protocol):
    def at(self, step: int, rank: int = 0, world: int = 1) -> dict: ...


def rate_at(c: Train, step: int) -> float:
    """The learning rate's share at a step: a rise, a plateau, a linear fall."""
    rise = min(1.0, (step + 1) / max(1, c.warmup))
    left = (c.steps - step) / max(1.0, c.cooldown * c.steps)
    return rise * max(c.floor, min(1.0, left))


def optimiser(parameters: list[nn.Parameter], c: Train) -> torch.optim.AdamW:
    """AdamW; vectors (norms, biases, decays of a state space) are not decayed."""
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": c.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=c.lr, betas=c.betas, foreach=True)


def fit(stage: nn.Module, data: Data, c: Train, out: Path, resume: bool = False, quiet: bool = False) -> list[dict[str, float]]:
    """Train `stage` and return the losses of each step run. Checkpoints go to out/checkpoints, curves to out/log."""
    from accelerate import Accelerator, DistributedDataParallelKwargs

    torch.manual_seed(c.seed)
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)  # not every step asks every level's head
    precision = "bf16" if c.precision == "bf16" else "no"
    accelerator = Accelerator(mixed_precision=precision, cpu=not torch.cuda.is_available(), kwargs_handlers=[unused])
    players: dict[str, list[nn.Parameter]] = stage.players() if hasattr(stage, "players") else {"main": list(stage.parameters())}
    average = Average(stage, c.ema) if c.ema else None
    wrapped = accelerator.prepare(stage)
    optimisers = {name: accelerator.prepare(optimiser([p for p in ps if p.requires_grad], c)) for name, ps in players.items()}
    start = 0
    if resume and (last := latest(out)):
        start = restore(last, stage, optimisers, average, c)
    log = Log(out, start, c.steps, quiet or not accelerator.is_main_process)
    history = []
    wrapped.train()
    for step in range(start, c.steps):
        began = time.perf_counter()
        losses = _update(wrapped, data, c, step, accelerator, players, optimisers)
        if average:
            average.update(stage)
        history.append(losses)
        log.step(step, losses, rate_at(c, step) * c.lr, time.perf_counter() - began)
        done = step + 1
        if done % c.every == 0 or done == c.steps:
            if accelerator.is_main_process:
                save(out, done, stage, optimisers, average, c)
            accelerator.wait_for_everyone()
        if c.show_every and done % c.show_every == 0 and hasattr(stage, "show"):
            log.show(step, stage.show(data.at(0)))
    log.close()
    return history


def _update(wrapped, data, c: Train, step: int, accelerator, players, optimisers) -> dict[str, float]:
    shown: dict[str, float] = {}
    for name, parameters in players.items():
        others = [p for other, ps in players.items() if other != name for p in ps]
        for p in others:
            p.requires_grad_(False)
        optim = optimisers[name]
        for group in optim.param_groups:
            group["lr"] = c.lr * c.rates.get(name, 1.0) * rate_at(c, step)
        optim.zero_grad(set_to_none=True)
        for part in range(c.accumulate):
            rank, world, turn = accelerator.process_index, accelerator.num_processes, step * c.accumulate + part
            torch.manual_seed(c.seed * 1_000_003 + turn * world + rank)  # randomness belongs to the batch, whoever takes it
            batch = data.at(turn, rank, world)
            with accelerator.autocast():
                losses: dict[str, Tensor] = wrapped(_to(batch, accelerator.device), name)
            if losses:
                accelerator.backward(sum(losses.values()) / c.accumulate)
            for key, value in losses.items():
                shown[key] = shown.get(key, 0.0) + float(value.detach()) / c.accumulate
        if c.clip and losses:
            norm = float(accelerator.clip_grad_norm_(parameters, c.clip))
            shown[f"{name}_norm"] = norm
        if losses and math.isfinite(sum(shown.values())):  # a step with a non-finite loss or gradient moves nothing
            optim.step()
        for p in others:
            p.requires_grad_(True)
    return shown


def _to(batch: dict, device: torch.device) -> dict:
    """A batch's rows and rectangles, moved; the rest as it is."""
    moved = {key: [row.to(device) for row in value] for key, value in batch.items() if isinstance(value, list)}
    return moved | {key: value.to(device) for key, value in batch.items() if isinstance(value, Tensor)}
