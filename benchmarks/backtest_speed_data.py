"""The markets of ``backtest_speed``: seeded random walks, the same for every engine. Needs numpy alone."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

BARS = 1_000_000
PORTFOLIO_BARS, SYMBOLS = 2_000, 10
SWEEP_BARS = 50_000
FAST, SLOW = 20, 50
SWEEP_FAST, SWEEP_SLOW = range(5, 30), range(40, 140, 5)
FEE_RATE, CAPITAL = 5e-4, 100_000.0
SIGMA = 8e-4


def walk(bars: int, seed: int) -> tuple[Array, Array]:
    """Return opens and closes of a market that never gaps."""
    steps = np.random.default_rng(seed).normal(0.0, SIGMA, bars)
    close = 30_000 * np.exp(np.cumsum(steps))
    return np.concatenate([[30_000.0], close[:-1]]), close


def average(close: Array, window: int) -> Array:
    """Return the simple moving average, NaN before it is known."""
    total = np.concatenate([[0.0], np.cumsum(close)])
    found = np.full(len(close), np.nan)
    found[window - 1 :] = (total[window:] - total[:-window]) / window
    return found


def best(work: Callable[[], object], repetitions: int) -> float:
    """Return the fastest of several runs, in seconds; one run before them warms up."""
    work()
    fastest = float("inf")
    for _ in range(repetitions):
        begun = time.perf_counter()
        work()
        fastest = min(fastest, time.perf_counter() - begun)
    return fastest


def peak_bytes() -> float:
    """Return the largest memory this process has used."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def answer(**measured: float) -> None:
    """Hand measurements to the parent process."""
    sys.stdout.write(json.dumps(measured) + "\n")
