"""Random numbers that depend on nothing but their address, so that a resumed run needs no generator's state.

Only NumPy's bit streams are used: those are promised to stay the same between versions, its distributions are not.
"""

import numpy as np

from slm.errors import SlmError


def draw(count: int, *address: int) -> np.ndarray:
    """`count` uint64 numbers, uniform over 64 bits, for an address such as (seed, epoch): whole numbers, 0 or more."""
    if min(address) < 0:
        raise SlmError(f"A seed, a step and an epoch are whole numbers from 0 on, not {min(address)}.")
    return np.random.PCG64(np.random.SeedSequence([len(address), *map(int, address)])).random_raw(count)


def fraction(number: np.uint64) -> float:
    """A uint64 -> [0, 1)."""
    return int(number) / 2**64


def permutation(count: int, *address: int) -> np.ndarray:
    """The numbers 0 … count-1 in an order drawn for the address."""
    return np.argsort(draw(count, *address), kind="stable")
