"""Fused Triton kernels. Each has a plain torch twin elsewhere in the tree that defines it; none is ever required.

`usable(tensor)` is the one switch between the two. This module imports neither torch nor Triton.
"""

import os
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec

_wanted: bool | None = None


@cache
def installed() -> bool:
    return find_spec("triton") is not None


def interpreted() -> bool:
    """Triton's interpreter runs kernels on a CPU, slowly; Triton reads the variable when it is imported, so set it before."""
    return installed() and os.environ.get("TRITON_INTERPRET") == "1"


def usable(tensor) -> bool:
    """Should a kernel, and not its twin, take this tensor? On a GPU yes, unless SLM_KERNELS=0; on a CPU no, unless `use` says so."""
    if not installed() or _wanted is False:
        return False
    if _wanted:
        return tensor.is_cuda or interpreted()
    return tensor.is_cuda and os.environ.get("SLM_KERNELS") != "0"


@contextmanager
def use(wanted: bool):
    """Inside it kernels run wherever they can, in the interpreter too, or nowhere: for tests and `slm verify`."""
    global _wanted
    before, _wanted = _wanted, wanted
    try:
        yield
    finally:
        _wanted = before
