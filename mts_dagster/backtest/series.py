"""Series derived from an equity curve for people to look at: drawdowns, months, and fewer points of the same shape.

What belongs here: pure functions of arrays, shared by tear sheet and pictures. Nothing here is a metric.
"""

from __future__ import annotations

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
    """Return at most ``points`` positions that keep the shape: lowest and highest of equal stretches, and both ends."""
    if len(values) <= points:
        return np.arange(len(values))
    edges = np.linspace(0, len(values), points // 2, dtype=np.int64)
    kept = {0, len(values) - 1}
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        part = values[start:stop]
        kept.add(int(start + part.argmin()))
        kept.add(int(start + part.argmax()))
    return np.array(sorted(kept))


def monthly_returns_pct(times: pd.DatetimeIndex, equity: FloatArray) -> pd.DataFrame:
    """Return growth by month in percent, a row a year and a column a month; months without a bar are NaN.

    ``times`` are closes of bars. The close at midnight of the first belongs to the month that has just ended.
    """
    series = pd.Series(equity, index=times - pd.Timedelta(1, "ns"))
    ends = series.groupby([series.index.year, series.index.month]).last()
    growth = 100.0 * (ends / ends.shift(1, fill_value=equity[0]) - 1.0)
    return growth.unstack().reindex(columns=range(1, 13))


def worst_drawdowns(times: pd.DatetimeIndex, equity: FloatArray, count: int) -> pd.DataFrame:
    """Return the deepest falls: ``peak_at``, ``trough_at``, ``recovered_at`` (NaT if never), ``depth_pct``, ``days``."""
    depth = drawdown_pct(equity)
    under = np.concatenate(([False], depth > 0, [False]))
    starts = np.flatnonzero(under[1:] & ~under[:-1]) - 1  # the peak is the bar before
    stops = np.flatnonzero(~under[1:] & under[:-1])
    found = []
    for peak, recovered in zip(starts, stops, strict=True):
        trough = int(peak + depth[peak:recovered].argmax())
        back = times[recovered] if recovered < len(times) else pd.NaT
        days = (times[min(recovered, len(times) - 1)] - times[peak]) / pd.Timedelta(1, "D")
        found.append((times[peak], times[trough], back, float(depth[trough]), float(days)))
    frame = pd.DataFrame(found, columns=["peak_at", "trough_at", "recovered_at", "depth_pct", "days"])
    return frame.nlargest(count, "depth_pct").reset_index(drop=True)
