"""How functions of this package are compiled, and where the machine code is kept.

What belongs here: the two decorators and the place of the cache. This is the only module that imports numba;
importing it costs a quarter of a second, so nothing that Dagster loads at start may import it.

Numba keys a cached function by the source of its own file. The rules are spread over several files that are
compiled into one function, so a change of ``rules.py`` would leave a stale ``kernel.py`` behind. The cache
folder is therefore named after a digest of all of them.

Two options (``_nrt``, ``no_cfunc_wrapper``) are numba's own and promised for no later version, so its version is
bounded in the project file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar, cast

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


def _njit(function: F, **options: object) -> F:
    """Compile without reference counts: the kernel only borrows arrays, and counting took half its time."""
    decorate: Callable[[F], F] = cast("Any", numba.njit)(
        error_model="numpy", nogil=True, no_cfunc_wrapper=True, _nrt=False, **options
    )
    return decorate(function)


def rule(function: F) -> F:
    """Compile a function that is called from compiled code only; it becomes part of its callers."""
    return _njit(function, no_cpython_wrapper=True, forceinline=True)


def seldom(function: F) -> F:
    """Compile a rule that few bars need; as a call it keeps the hot loop and its compile time small."""
    return _njit(function, no_cpython_wrapper=True)


def inlined(function: F) -> F:
    """Copy a function into its callers before types are known; lets it return a bundle of rows."""
    return _njit(function, inline="always")


def kernel(function: F) -> F:
    """Compile a function that Python calls; its machine code is kept for later processes."""
    return _kept(function)


def summing(function: F) -> F:
    """Compile a ``kernel`` that may add in any order, so that sums over long arrays use vector instructions.

    NaN and infinity keep their meaning. Sums may differ in their last digits from one processor to another.
    """
    return _kept(function, fastmath={"reassoc", "contract"})


def _kept(function: F, **options: object) -> F:
    settings = cast("Any", numba.config)
    previous = settings.CACHE_DIR
    settings.CACHE_DIR = _CACHE  # read at decoration; restored so that a user's own functions keep theirs
    try:
        return _njit(function, cache=True, **options)
    finally:
        settings.CACHE_DIR = previous
