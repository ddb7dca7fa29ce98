"""What all kernels share: the dtypes of a product of tiles, sizes of tiles, bounds of loops.

A product takes its operands in the dtype of the model (bfloat16 feeds the tensor cores) and accumulates in float32 or wider.
Triton's interpreter multiplies the bit patterns of bfloat16 (triton issue 11584), hence there operands are rounded to it and
fed as float32: the same numbers as on a GPU.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from slm.kernels import interpreted

_TYPES = {torch.float64: tl.float64, torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


class Formats(NamedTuple):
    """ROUND: operands are rounded to it.  FEED: and fed as it.  WIDE: everything else.  TOLD: how float32 is multiplied."""

    ROUND: tl.constexpr
    FEED: tl.constexpr
    WIDE: tl.constexpr
    TOLD: str


def formats(dtype: torch.dtype) -> Formats:
    """The formats of a model in `dtype`; float32 is multiplied as torch was told to, in full as three products on the tensor cores."""
    wide = _TYPES[torch.promote_types(dtype, torch.float32)]
    narrow = _TYPES[dtype]
    told = "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"
    return Formats(narrow, wide if interpreted() else narrow, wide, told)


def helper(function):
    """What kernels call: compiled with them, but left plain for the interpreter, in which every call of a compiled one costs 3 ms."""
    return function if interpreted() else triton.jit(function)


@helper
def product(a, b, ROUND: tl.constexpr, FEED: tl.constexpr, WIDE: tl.constexpr, TOLD: tl.constexpr):
    """a [I,J] @ b [J,K] -> [I,K] in WIDE."""
    return tl.dot(a.to(ROUND).to(FEED), b.to(ROUND).to(FEED), input_precision=TOLD, out_dtype=WIDE)


def block(size: int) -> int:
    """The tile that covers `size`: a power of two that the tensor cores take."""
    return max(16, triton.next_power_of_2(size))


def bound(count: int) -> int | tl.constexpr:
    """`count` as the bound of a loop: the interpreter wraps an int in an array, which numpy 2.4 no longer takes for a number."""
    return tl.constexpr(count) if interpreted() else count


def rows(x: Tensor) -> Tensor:
    """x [B,S,...], copied only if what a step holds does not lie side by side."""
    inner, width = x.stride()[2:], 1
    for size, stride in zip(reversed(x.shape[2:]), reversed(inner)):
        if size > 1 and stride != width:
            return x.contiguous()
        width *= size
    return x
