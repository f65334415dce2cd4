"""Series derived from an equity curve for people to look at: drawdowns, months, thinned curves.

What belongs here: pure functions of arrays, shared by tear sheet and pictures. Nothing here is a metric.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from mts_dagster.backtest.layout import FloatArray, IntArray


def drawdown_pct(equity: FloatArray) -> FloatArray:
    """Return how far equity is under its highest close so far, in percent, never negative."""
    highest = np.maximum.accumulate(equity)
    fall: FloatArray = 100.0 * (1.0 - equity / highest)
    return fall


def extremes(values: FloatArray, points: int) -> IntArray:
    """Return about ``points`` positions that keep the shape: the ends, low and high of equal stretches."""
    if len(values) <= points:
        return np.arange(len(values))
    edges = np.linspace(0, len(values), points // 2, dtype=np.int64)
    kept = {0, len(values) - 1}
    for start, stop in pairwise(edges.tolist()):
        part = values[start:stop]
        kept.add(int(start + part.argmin()))
        kept.add(int(start + part.argmax()))
    return np.array(sorted(kept))


def monthly_returns_pct(times: pd.DatetimeIndex, equity: FloatArray) -> pd.DataFrame:
    """Return growth by month in percent, a row a year and a column a month; months without a bar are NaN.

    ``times`` are closes of bars. The close at midnight of the first belongs to the month that has just ended.
    """
    inside = times - pd.Timedelta(1, "ns")
    frame = pd.DataFrame({"year": inside.year, "month": inside.month, "equity": equity})
    ends = frame.groupby(["year", "month"], as_index=False)["equity"].last()
    ends["growth"] = 100.0 * (ends["equity"] / ends["equity"].shift(1, fill_value=float(equity[0])) - 1.0)
    table: pd.DataFrame = ends.pivot_table(index="year", columns="month", values="growth")
    return table.reindex(columns=range(1, 13))


def worst_drawdowns(times: pd.DatetimeIndex, equity: FloatArray, count: int) -> pd.DataFrame:
    """Return the deepest falls: peak, trough and recovery (NaT: never) in time, depth in percent, days."""
    depth = drawdown_pct(equity)
    under = np.concatenate(([False], depth > 0, [False]))
    peaks = np.flatnonzero(under[1:] & ~under[:-1]) - 1  # a fall starts at the bar before it
    stops = np.flatnonzero(~under[1:] & under[:-1])
    last = len(times) - 1
    found = []
    for peak, stop in zip(peaks.tolist(), stops.tolist(), strict=True):
        trough = peak + int(depth[peak:stop].argmax())
        days = (times[min(stop, last)] - times[peak]) / pd.Timedelta(1, "D")
        found.append((times[peak], times[trough], times[stop] if stop <= last else pd.NaT, depth[trough], days))
    frame = pd.DataFrame(found, columns=["peak_at", "trough_at", "recovered_at", "depth_pct", "days"])
    frame["depth_pct"] = frame["depth_pct"].astype(np.float64)  # without any fall the column has no type yet
    return frame.nlargest(count, "depth_pct").reset_index(drop=True)
