"""Deterministic noise: numbers that depend on the seed, a name and an index, never on what was asked before.

What belongs here: keys, generators for a block of a series, and hashed uniforms for single points. Whatever
window a client asks for, the same point has the same value.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@lru_cache(maxsize=4096)
def key_of(seed: int, *names: str) -> int:
    """A 64-bit key for the series called ``names`` under ``seed``."""
    text = "\x1f".join((str(seed), *names)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def generator(key: int, block: int = 0) -> np.random.Generator:
    """The random generator of one block of the series with this key."""
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, block]))


def uniform(key: int, index: npt.ArrayLike) -> Floats:
    """One number in [0, 1) for every index, by the splitmix64 hash."""
    with np.errstate(over="ignore"):
        x = np.asarray(index, dtype=np.int64).astype(np.uint64) + np.uint64(key)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return (x >> np.uint64(11)).astype(np.float64) / float(1 << 53)
