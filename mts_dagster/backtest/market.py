"""From data frames to the arrays of the kernel: bars on one time axis and funding by bar.

What belongs here: checks of bars and funding, and their alignment. Decisions are in ``signals.py``, gaps in
``coverage.py``. Assets are ordered by name, so the order in which a caller lists them cannot change a result.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mts_dagster.backtest import coverage as cover
from mts_dagster.backtest.coverage import Coverage, Gap, instant
from mts_dagster.backtest.errors import MarketDataError
from mts_dagster.backtest.layout import AT_OPEN, INSIDE, SETTLEMENT, FloatArray, IntArray, Market
from mts_dagster.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

MINUTE_NS: Final = 60_000_000_000
PRICES: Final = ("open", "high", "low", "close")
BAR_COLUMNS: Final = ("open_time", "asset", *PRICES, "volume_base")
FUNDING_COLUMNS: Final = ("settled_at", "asset", "funding_rate")

A = TypeVar("A", bound=NDArray[Any])


def read_only(array: A) -> A:
    """Return a read-only view; numba compiles separate code for writable arrays, so all inputs are alike."""
    view = array.view()
    view.setflags(write=False)
    return view


@dataclass(frozen=True)
class MarketData:
    """Aligned bars and funding, ready for any number of simulations.

    Attributes:
        arrays: What the kernel reads.
        assets: Asset of each column.
        interval_ns: Length of a bar.
        funding: Settlements sorted by bar (dtype ``layout.SETTLEMENT``).
        coverage: What is missing.
    """

    arrays: Market
    assets: tuple[str, ...]
    interval_ns: int
    funding: NDArray[np.void] = field(default_factory=lambda: read_only(np.zeros(0, SETTLEMENT)))
    coverage: Coverage = field(default_factory=Coverage)

    @property
    def bars(self) -> int:
        """Number of bars on the time axis."""
        return len(self.arrays.open_ns)

    def part(self, start: int, stop: int) -> MarketData:
        """Return the bars [start, stop) with their funding; coverage is that of the whole."""
        whole = self.arrays
        arrays = Market(
            open=whole.open[start:stop],
            high=whole.high[start:stop],
            low=whole.low[start:stop],
            mark=whole.mark[start:stop],
            volume=whole.volume[start:stop],
            open_ns=whole.open_ns[start:stop],
        )
        inside = (self.funding["bar"] >= start) & (self.funding["bar"] < stop)
        funding = self.funding[inside].copy()
        funding["bar"] -= start
        return MarketData(arrays, self.assets, self.interval_ns, read_only(funding), self.coverage)

    def close_times(self) -> pd.DatetimeIndex:
        """Return when each bar closes, which is when its decisions are taken."""
        return utc_index(self.arrays.open_ns + self.interval_ns)


def utc_index(ns: IntArray) -> pd.DatetimeIndex:
    """Return nanoseconds since 1970 as an aware index."""
    return pd.DatetimeIndex(ns.view("datetime64[ns]"), tz="UTC")


def nanoseconds(times: pd.Series, what: str) -> IntArray:
    """Return aware timestamps as nanoseconds since 1970.

    Raises:
        UsageError: the column holds no aware timestamps.
    """
    if not isinstance(times.dtype, pd.DatetimeTZDtype):
        raise UsageError(f"{what} must hold timestamps with a time zone (UTC), this is {times.dtype}")
    if times.isna().any():
        raise MarketDataError(f"{what} has {int(times.isna().sum())} empty values")
    return pd.DatetimeIndex(times).as_unit("ns").asi8


def require_columns(frame: pd.DataFrame, columns: Collection[str], what: str) -> None:
    """Check that a frame has the columns it needs.

    Raises:
        UsageError: a column is missing; the message names it.
    """
    absent = [name for name in columns if name not in frame.columns]
    if absent:
        raise UsageError(f"{what} lacks the columns {absent}; it has {list(frame.columns)}")


def market_from_arrays(
    open_ns: IntArray,
    open: FloatArray,  # noqa: A002 - the field's word
    high: FloatArray,
    low: FloatArray,
    close: FloatArray,
    *,
    volume: FloatArray | None = None,
    assets: tuple[str, ...] = ("asset",),
) -> MarketData:
    """Take arrays that are already aligned and complete, of shape (bars,) or (bars, assets).

    This is the fast door for sweeps and research, without checks; ``market_from_frames`` checks and aligns.
    """
    shape = (len(open_ns), len(assets))

    def column(values: FloatArray) -> FloatArray:
        return read_only(np.ascontiguousarray(values, dtype=np.float64).reshape(shape))

    arrays = Market(
        open=column(open),
        high=column(high),
        low=column(low),
        mark=column(close),
        volume=column(close if volume is None else volume),
        open_ns=read_only(np.ascontiguousarray(open_ns, dtype=np.int64)),
    )
    interval = int(open_ns[1] - open_ns[0]) if len(open_ns) > 1 else MINUTE_NS
    return MarketData(arrays, assets, interval)


def check_bars(bars: pd.DataFrame) -> None:
    """Check that each bar is possible.

    Raises:
        MarketDataError: a price is missing or not positive, or high and low do not enclose open and close.
    """
    prices = bars[list(PRICES)].to_numpy(np.float64)
    possible = (
        (prices > 0).all(axis=1)  # also false for NaN
        & (prices[:, 1] >= prices.max(axis=1))
        & (prices[:, 2] <= prices.min(axis=1))
    )
    if not possible.all():
        row = bars.iloc[int(np.argmin(possible))]
        raise MarketDataError(
            f"{row['asset']} at {row['open_time']}: impossible bar open={row['open']} high={row['high']} "
            f"low={row['low']} close={row['close']} ({int((~possible).sum())} such bars)"
        )
    twice = bars.duplicated(["asset", "open_time"])
    if twice.any():
        row = bars[twice].iloc[0]
        raise MarketDataError(f"{row['asset']} at {row['open_time']}: the bar is there twice ({int(twice.sum())} such)")


def usual_step(open_ns: IntArray, columns: IntArray) -> int:
    """Return the most frequent distance between neighbouring bars of an asset.

    Raises:
        UsageError: no asset has two bars.
    """
    order = np.lexsort((open_ns, columns))
    steps = np.diff(open_ns[order])[np.diff(columns[order]) == 0]
    if not len(steps):
        raise UsageError("a backtest needs at least two bars of an asset to know their interval")
    values, counts = np.unique(steps, return_counts=True)
    return int(values[np.argmax(counts)])


def market_from_frames(
    bars: pd.DataFrame,
    funding: pd.DataFrame | None = None,
    *,
    perpetuals: Collection[str] = (),
    start: datetime | None = None,
    end: datetime | None = None,
) -> MarketData:
    """Check and align bars and funding.

    Args:
        bars: One row an asset and bar: ``open_time`` (aware), ``asset``, ``open``, ``high``, ``low``,
            ``close``, ``volume_base`` and, if known, ``available_at``. Any interval, the same for all assets.
        funding: One row a settlement: ``settled_at`` (aware), ``asset``, ``funding_rate`` (positive: long
            pays).
        perpetuals: Assets that owe funding; for them missing settlements are a gap.
        start: Open of the first bar to trade; the bar before it, where there is one, lets decisions of that
            instant in.
        end: Bars that open at or after it are left out.

    Raises:
        UsageError: a column is missing, a time has no zone, or nothing is left to trade.
        MarketDataError: bars contradict themselves.
    """
    require_columns(bars, BAR_COLUMNS, "bars")
    check_bars(bars)
    names = tuple(sorted(bars["asset"].unique()))
    open_ns = nanoseconds(bars["open_time"], "bars.open_time")
    columns = pd.Categorical(bars["asset"], categories=list(names)).codes.astype(np.int64)
    interval = usual_step(open_ns, columns)
    first = int(open_ns.min()) if start is None else int(pd.Timestamp(start).as_unit("ns").value)
    last = int(open_ns.max()) + interval if end is None else int(pd.Timestamp(end).as_unit("ns").value)
    used = (open_ns >= first - (interval if start is not None else 0)) & (open_ns < last)
    if not used.any():
        raise UsageError(
            f"no bars between {instant(first)} and {instant(last)}; there are bars from "
            f"{instant(int(open_ns.min()))} to {instant(int(open_ns.max()) + interval)}"
        )
    axis = np.unique(open_ns[used])
    arrays = align(bars[used], axis, np.searchsorted(axis, open_ns[used]), columns[used], len(names))
    gaps, expected = bar_gaps(bars, open_ns, columns, names, (first, last, interval))
    rows, owed, missing = place_funding(funding, names, perpetuals, axis, (first, last))
    gaps += missing
    coverage = Coverage(
        expected_bars=expected,
        missing_bars=sum(gap.count for gap in gaps if gap.kind == "bars"),
        late_bars=sum(gap.count for gap in gaps if gap.kind == "late bars"),
        expected_settlements=owed,
        missing_settlements=sum(gap.count for gap in missing),
        gaps=tuple(gaps),
    )
    return MarketData(arrays, names, interval, rows, coverage)


def align(bars: pd.DataFrame, axis: IntArray, rows: IntArray, columns: IntArray, assets: int) -> Market:
    """Spread rows over (bars, assets); what is not there is NaN, and its mark the last close."""

    def spread(name: str, absent: float) -> FloatArray:
        values = np.full((len(axis), assets), absent)
        values[rows, columns] = bars[name].to_numpy(np.float64)
        return values

    close = spread("close", np.nan)
    known = np.where(np.isnan(close), 0, np.arange(len(axis))[:, None])
    mark = np.take_along_axis(close, np.maximum.accumulate(known, axis=0), axis=0)
    return Market(
        open=read_only(spread("open", np.nan)),
        high=read_only(spread("high", np.nan)),
        low=read_only(spread("low", np.nan)),
        mark=read_only(mark),
        volume=read_only(np.nan_to_num(spread("volume_base", 0.0))),
        open_ns=read_only(axis),
    )


def bar_gaps(
    bars: pd.DataFrame,
    open_ns: IntArray,
    columns: IntArray,
    names: tuple[str, ...],
    window: tuple[int, int, int],
) -> tuple[list[Gap], int]:
    """Return missing and late bars of all assets and how many bars there should be."""
    start_ns, end_ns, interval_ns = window
    available = nanoseconds(bars["available_at"], "bars.available_at") if "available_at" in bars.columns else None
    gaps: list[Gap] = []
    expected = 0
    for column, name in enumerate(names):
        mine = (columns == column) & (open_ns >= start_ns) & (open_ns < end_ns)
        order = np.argsort(open_ns[mine])
        times = open_ns[mine][order]
        count, missing = cover.missing_bars(name, times, start_ns, end_ns, interval_ns)
        expected += count
        gaps += missing
        if available is not None:
            gaps += cover.late_bars(name, times, available[mine][order], interval_ns)
    return gaps, expected


def place_funding(
    funding: pd.DataFrame | None,
    names: tuple[str, ...],
    perpetuals: Collection[str],
    axis: IntArray,
    window: tuple[int, int],
) -> tuple[NDArray[np.void], int, list[Gap]]:
    """Return settlements by bar, how many there should be, and where some are missing.

    Venues settle on the full hour and stamp it some milliseconds later, so times are cut to the minute.

    Raises:
        UsageError: a column is missing or a time has no zone.
        MarketDataError: a rate is missing, or a settlement is there twice.
    """
    if funding is None:
        settled, columns, rates = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    else:
        require_columns(funding, FUNDING_COLUMNS, "funding")
        ours = funding[funding["asset"].isin(names)]
        settled = nanoseconds(ours["settled_at"], "funding.settled_at") // MINUTE_NS * MINUTE_NS
        columns = pd.Categorical(ours["asset"], categories=list(names)).codes.astype(np.int64)
        rates = ours["funding_rate"].to_numpy(np.float64)
        check_settlements(settled, columns, rates, names)
    gaps: list[Gap] = []
    expected = 0
    for column, name in enumerate(names):
        if name in perpetuals:
            count, missing = cover.missing_settlements(name, np.sort(settled[columns == column]), *window)
            expected += count
            gaps += missing
    inside = (
        (settled >= axis[0])
        & (settled < window[1])
        & np.isin(columns, [names.index(n) for n in names if n in perpetuals])
    )
    rows = np.zeros(int(inside.sum()), SETTLEMENT)
    rows["bar"] = np.searchsorted(axis, settled[inside], side="right") - 1
    rows["phase"] = np.where(axis[rows["bar"]] == settled[inside], AT_OPEN, INSIDE)
    rows["asset"] = columns[inside]
    rows["rate"] = rates[inside]
    order = np.lexsort((rows["asset"], settled[inside]))
    return read_only(rows[order]), expected, gaps


def check_settlements(settled: IntArray, columns: IntArray, rates: FloatArray, names: tuple[str, ...]) -> None:
    """Check that each settlement has a rate and is there once.

    Raises:
        MarketDataError: one does not; the message names it.
    """
    if np.isnan(rates).any():
        i = int(np.argmax(np.isnan(rates)))
        raise MarketDataError(f"{names[columns[i]]} at {instant(int(settled[i]))}: funding settlement without a rate")
    order = np.lexsort((settled, columns))
    twice = (np.diff(settled[order]) == 0) & (np.diff(columns[order]) == 0)
    if twice.any():
        i = int(order[int(np.argmax(twice))])
        raise MarketDataError(
            f"{names[columns[i]]} at {instant(int(settled[i]))}: the funding settlement is there twice"
        )
