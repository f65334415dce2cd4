"""How functions of this package are compiled, and where the machine code is kept.

What belongs here: the two decorators and the place of the cache. This is the only module that imports numba; importing
it costs a quarter of a second, so nothing that Dagster loads at start may import it.

Numba keys a cached function by the source of its own file. The rules are spread over several files that are compiled
into one function, so a change of ``rules.py`` would leave a stale ``kernel.py`` behind. The cache folder is therefore
named after a digest of all of them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., object])

_SOURCES: Final = (
    "compiled.py",
    "layout.py",
    "rules.py",
    "fills.py",
    "acceptance.py",
    "matching.py",
    "intrabar.py",
    "kernel.py",
    "ledger.py",
    "moments.py",
)


def _digest() -> str:
    folder = Path(__file__).parent
    digest = hashlib.sha256(numba.__version__.encode())
    for name in _SOURCES:
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:16]


def _cache_folder() -> Path:
    """Return a writable folder for this state of the sources; older states beside the package are removed."""
    leaf = f"kernels-{_digest()}"
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        return Path(chosen) / leaf
    beside = Path(__file__).parent / "__pycache__"
    if os.access(beside if beside.exists() else beside.parent, os.W_OK):
        for old in beside.glob("kernels-*"):
            if old.name != leaf:
                shutil.rmtree(old, ignore_errors=True)
        return beside / leaf
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mts" / leaf


_CACHE: Final = str(_cache_folder())


def rule(function: F) -> F:
    """Compile a function that is called from compiled code only; it becomes part of its callers."""
    compiled: F = numba.njit(
        error_model="numpy", nogil=True, _nrt=False, no_cpython_wrapper=True, forceinline=True
    )(function)
    return compiled


def seldom(function: F) -> F:
    """Compile a rule that few bars need; it stays a call of its own, which keeps the hot loop and its compile time small."""
    compiled: F = numba.njit(error_model="numpy", nogil=True, _nrt=False, no_cpython_wrapper=True)(function)
    return compiled


def inlined(function: F) -> F:
    """Copy a function into its callers before types are known; needed to hand back a bundle that holds rows."""
    compiled: F = numba.njit(error_model="numpy", nogil=True, _nrt=False, inline="always")(function)
    return compiled


def kernel(function: F) -> F:
    """Compile a function that Python calls; its machine code is kept for later processes."""
    previous = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = (
        _CACHE  # read by numba at decoration; restored so that a user's own functions keep theirs
    )
    try:
        compiled: F = numba.njit(error_model="numpy", nogil=True, _nrt=False, cache=True)(function)
    finally:
        numba.config.CACHE_DIR = previous
    return compiled
