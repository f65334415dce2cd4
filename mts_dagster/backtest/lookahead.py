"""Does a strategy know the future? Run it on truncated bars and compare what it decided.

What belongs here: the check for strategies written in Python. The engine itself cannot look ahead; a strategy
can, by preparing indicators over bars that have not happened yet.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING

from mts_dagster.backtest.python_strategy import Strategy, run_bars

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from mts_dagster.backtest.config import Assumptions
    from mts_dagster.backtest.market import MarketData


def find_lookahead(
    make_strategy: Callable[[], Strategy], market: MarketData, assumptions: Assumptions, cuts: Sequence[int]
) -> pd.Timestamp | None:
    """Return the close of the first bar whose decisions change when the bars after a cut are taken away.

    Args:
        make_strategy: Makes a fresh strategy for each run.
        market: All bars.
        assumptions: Costs, fills, limits.
        cuts: Numbers of bars to keep, each tried by itself.

    Returns:
        The time of the first difference, ``None`` if there is none at any cut.
    """
    full = run_bars(make_strategy(), market, assumptions).decisions
    first: int | None = None
    for cut in cuts:
        short = run_bars(make_strategy(), market.part(0, cut), assumptions).decisions
        bar = first_difference(full[full["bar"] < cut], short)
        if bar is not None and (first is None or bar < first):
            first = bar
    return None if first is None else market.close_times()[first]


def first_difference(one: NDArray[np.void], other: NDArray[np.void]) -> int | None:
    """Return the bar of the first command in which two lists differ, ``None`` if they are equal."""
    for mine, theirs in zip_longest(one, other):
        if mine is None or theirs is None or mine.tobytes() != theirs.tobytes():
            return min(int(row["bar"]) for row in (mine, theirs) if row is not None)
    return None
