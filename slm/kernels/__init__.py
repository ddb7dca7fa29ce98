"""Fused Triton kernels. Each has a plain torch twin elsewhere in the tree that defines it; none is ever required.

`usable(tensor)` is the one door between the two, and who calls a kernel asks there: the norms and rotations of `slm.nn`, the scan, step
and convolution of `slm.backbone`, the losses and searches. This module imports neither torch nor Triton until a GPU is at work.
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
    """Should a kernel, and not its twin, take this tensor? On a GPU yes, unless SLM_KERNELS=0; on a CPU no, unless `use` says so.

    Triton launches on the current GPU alone, and float64, which is for proofs, stays with the twins there.
    """
    if not (tensor.is_cuda or _wanted) or _wanted is False or not installed():
        return False
    if not tensor.is_cuda:
        return interpreted()
    import torch

    asked = _wanted or os.environ.get("SLM_KERNELS") != "0"
    return asked and tensor.element_size() <= 4 and tensor.get_device() == torch.cuda.current_device()


@contextmanager
def use(wanted: bool):
    """Inside it kernels run wherever they can, in the interpreter too, or nowhere: for tests and `slm verify`."""
    global _wanted
    before, _wanted = _wanted, wanted
    try:
        yield
    finally:
        _wanted = before
