"""A batch is a dict of ragged rows: name -> one tensor a row. It is padded only inside a stage, by whoever needs a rectangle.

    audio [1,N]  text [L]  semantic [1,T]  acoustic [Q,T]  mel [M,T]  features, latent [T,D]  speaker [D]  pitch, duration, energy [L]

    B rows   N samples   L phones or bytes   T frames   Q codebooks   M mel bands   D width

Ids are torch.long. Rows of `features` and `latent` have time first: pad them with dim=0.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from slm.errors import SlmError

Batch = dict[str, list[Tensor]]


def collate(rows: Sequence[dict[str, Tensor]]) -> Batch:
    """One dict a row -> a batch. SlmError if a row lacks a name that another has."""
    names = rows[0].keys() if rows else ()
    for row in rows:
        if row.keys() != names:
            raise SlmError(f"Rows of a batch must have the same entries, not {sorted(names)} and {sorted(row)}.")
    return {name: [row[name] for row in rows] for name in names}


def coded(batch: Batch, codec: Any) -> Batch:
    """A batch with audio [B,1,N] -> the same with its codes [B,Q,T] and, where the codec has codebooks, their latent [B,T,D]."""
    codes, books = codec.encode(batch["audio"]), getattr(codec, "codebooks", None)
    told = {**batch, "codes": codes}
    return told if books is None else told | {"latent": books.decode(codes).transpose(1, 2)}


def to(batch: Batch, device: torch.device | str) -> Batch:
    """The same batch with every row on `device`."""
    return {name: [row.to(device, non_blocking=True) for row in rows] for name, rows in batch.items()}


def pad(rows: Sequence[Tensor], value: float = 0, dim: int = -1) -> tuple[Tensor, Tensor]:
    """Ragged rows -> (rectangle [B, …, longest, …], lengths [B] long): each row filled up with `value` at its end along `dim` of the row.

    Rows share dtype, device and every other size. SlmError if there is no row or those sizes differ.
    """
    if not rows:
        raise SlmError("A batch needs at least one row.")
    dim = dim % rows[0].dim()
    shape = list(rows[0].shape)
    for row in rows:
        if row.dim() != len(shape) or any(n != shape[i] for i, n in enumerate(row.shape) if i != dim):
            raise SlmError(
                f"Rows of shape {shape} and {list(row.shape)} differ outside dimension {dim}, so they cannot be padded together."
            )
    lengths = [row.shape[dim] for row in rows]
    shape[dim] = max(lengths)
    full = rows[0].new_full((len(rows), *shape), value)  # [B, …]
    for target, row, length in zip(full, rows, lengths):
        target.narrow(dim, 0, length).copy_(row)
    return full, torch.tensor(lengths, device=full.device)


def unpad(full: Tensor, lengths: Tensor, dim: int = -1) -> list[Tensor]:
    """[B, …, longest, …], lengths [B] -> the rows that `pad` was given (views)."""
    return [row.narrow(dim, 0, length) for row, length in zip(full, lengths.tolist())]
