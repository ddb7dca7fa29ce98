"""Low-rank adaptation (LoRA, Hu et al., 2021): a trained linear layer stays as it is, and a product of two thin ones is added.

    y = W x + b + scale * up (down x)        scale = alpha / rank; up is 0 at the start, so that nothing changes yet

    lora.add(lm, ["attention.qkv"], rank=16, alpha=64)    only the thin layers learn, and ids that `lm.grow` added
    lora.save(lm, "adapter.safetensors")                  what has been learnt, and nothing else
    lora.merge(lm)                                        the layers as they were, with what has been learnt inside

A Transformer has queries, keys and values in one layer: rank 2R on it can learn whatever R on two of the three can.

R rank   I, O widths of a layer
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slm.backbone.language_model import LanguageModel, Table
from slm.errors import SlmError

GROWN = re.compile(r"(.*?)\.?tables\.(\d+)\.embed\.weight")


class Lora(nn.Module):
    """x [...,I] -> [...,O]: `base`, and `scale` times what was learnt; with scale 0, exactly `base`."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.base, self.alpha, self.scale = base, alpha, alpha / rank
        self.down = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.up = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.down, std=base.in_features**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        if self.scale == 0:
            return y
        return y + self.scale * F.linear(F.linear(self.dropout(x), self.down), self.up)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """`base` with what was learnt added to its weight, in float32 or wider."""
        wide = torch.promote_types(self.base.weight.dtype, torch.float32)
        learnt = self.scale * (self.up.to(wide) @ self.down.to(wide))
        self.base.weight.copy_(self.base.weight.to(wide) + learnt)
        return self.base


def add(module: nn.Module, names: Iterable[str], rank: int = 8, alpha: float = 16.0, dropout: float = 0.0) -> list[str]:
    """Wrap each linear layer of `module` whose path ends with one of `names`, such as "attention.qkv"; returns the paths.

    Everything else is frozen but the ids that a language model was grown by. SlmError: a rank below 1, or a name that is no
    linear layer's, or is one that is wrapped already.
    """
    if rank < 1:
        raise SlmError(f"LoRA: rank = {rank} must be at least 1.")
    paths = [path for path, layer in module.named_modules() if isinstance(layer, nn.Linear) and not path.endswith(".base")]
    found = {name: [path for path in paths if f".{path}".endswith(f".{name}")] for name in names}
    for name, at in found.items():
        if not at:
            legal = sorted({path.rpartition(".")[2] for path in paths})
            raise SlmError(f"LoRA: no linear layer is called {name!r}; there are {', '.join(legal) or 'none'}.")
    chosen = sorted({path for at in found.values() for path in at})
    for path in chosen:
        wrap(module, path, rank, alpha, dropout)
    freeze(module)
    return chosen


def scale(module: nn.Module, to: float) -> None:
    """Set the scale of all that was added: 0 is the model as it was."""
    for _, lora in wrapped(module):
        lora.scale = to


def merge(module: nn.Module) -> nn.Module:
    """Put every wrapped layer back, what was learnt inside it; what is frozen stays frozen. Returns `module`."""
    for path, lora in list(wrapped(module)):
        put(module, path, lora.merged())
    return module


def save(module: nn.Module, path: str | Path) -> None:
    """What was added and learnt, grown ids included, as one safetensors file."""
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in learnt(module).items()}
    if not tensors:
        raise SlmError(f"{path}: nothing was added to this {type(module).__name__} that could be saved.")
    save_file(tensors, str(path), metadata={at: str(lora.alpha) for at, lora in wrapped(module)})


@torch.no_grad()
def load(module: nn.Module, path: str | Path) -> nn.Module:
    """Add to `module`, the model as it was, what `save` wrote; ids are grown where they are lacking. Returns `module`.

    SlmError, before anything is changed by LoRA, if the file is damaged or was saved of another model.
    """
    from safetensors import safe_open

    from slm.reading import read_safetensors

    path = Path(path)
    tensors = read_safetensors(path)
    with safe_open(path, "pt") as file:
        alphas = file.metadata() or {}
    regrow(module, tensors, path)
    for at in alphas:
        _check(module, at, tensors, path)
    for at, alpha in alphas.items():
        wrap(module, at, len(tensors[f"{at}.down"]), float(alpha), 0.0)
    ours = learnt(module)
    odd = sorted(ours.keys() ^ tensors.keys()) or [name for name in tensors if ours[name].shape != tensors[name].shape]
    if odd:
        raise SlmError(f"{path}: an adapter of another model: {odd[0]} does not fit this {type(module).__name__}.")
    for name, tensor in tensors.items():
        ours[name].copy_(tensor)
    freeze(module)
    return module


def regrow(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Grow the language models in `module` by the tables in `tensors` that they lack."""
    for name in sorted(tensors, key=lambda name: (len(name), name)):
        if match := GROWN.fullmatch(name):
            try:
                owner = module.get_submodule(match[1])
            except AttributeError:
                owner = None
            if not isinstance(owner, LanguageModel) or int(match[2]) > len(owner.tables):
                raise SlmError(f"{path}: an adapter of another model: it has {name}, for which there is no place.")
            if int(match[2]) == len(owner.tables):
                owner.grow(len(tensors[name]))


def _check(module: nn.Module, at: str, tensors: dict[str, Tensor], path: Path) -> None:
    """SlmError unless `tensors` hold two thin layers for the linear layer `at`."""
    layer = dict(module.named_modules()).get(at)
    down, up = tensors.get(f"{at}.down"), tensors.get(f"{at}.up")
    if not isinstance(layer, nn.Linear) or down is None or up is None:
        raise SlmError(f"{path}: an adapter of another model: {at} is no linear layer of this {type(module).__name__}, or wrapped already.")
    if down.shape != (len(down), layer.in_features) or up.shape != (layer.out_features, len(down)):
        raise SlmError(f"{path}: an adapter of another model: {at} is {layer.in_features} -> {layer.out_features} wide here.")


def wrapped(module: nn.Module) -> Iterator[tuple[str, Lora]]:
    return ((path, part) for path, part in module.named_modules() if isinstance(part, Lora))


def learnt(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that LoRA leaves to learn: what it added, and the tables of grown ids."""
    ours = {f"{path}.{name}": getattr(lora, name) for path, lora in wrapped(module) for name in ("down", "up")}
    for path, part in module.named_modules():
        if isinstance(part, Table) and part.grown:
            ours |= {f"{path}.{name}": parameter for name, parameter in part.named_parameters()}
    return ours


def freeze(module: nn.Module) -> None:
    module.requires_grad_(False)
    for parameter in learnt(module).values():
        parameter.requires_grad_(True)


def wrap(module: nn.Module, path: str, rank: int, alpha: float, dropout: float) -> None:
    put(module, path, Lora(module.get_submodule(path), rank, alpha, dropout).train(module.training))


def put(module: nn.Module, path: str, part: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(module.get_submodule(parent), name, part)
