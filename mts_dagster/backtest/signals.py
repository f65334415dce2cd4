"""From decisions to commands: trading signals and matrices of targets, by the bar that decides them.

What belongs here: checks of signals and their placement in time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import pandas as pd

from mts_dagster.backtest.layout import COMMAND, CommandKind, FloatArray, IntArray
from mts_dagster.backtest.market import MarketData, nanoseconds, read_only, require_columns
from mts_dagster.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIGNAL_COLUMNS: Final = ("timestamp", "asset", "direction", "position_size", "confidence")
NS_PER_S: Final = 1_000_000_000
LARGEST_DELAY: Final = 10  # of a bar is the longest delay, as a divisor
SIDES: Final = {"long": 1.0, "short": -1.0, "flat": 0.0}


def commands_from_signals(
    signals: pd.DataFrame, market: MarketData, decision_delay_s: float
) -> tuple[NDArray[np.void], int]:
    """Turn trading signals into commands.

    A signal belongs to the last close before the first open that is not earlier than its ``timestamp`` less
    the delay, and so can fill at that open.

    Signals of one instant are taken in the order of their confidence, then by name, which matters only when
    the limit of trades a day is about to be reached.

    Args:
        signals: ``timestamp`` (aware), ``asset``, ``direction`` (long, short, flat), ``position_size``
            (fraction of equity), ``confidence``; of one strategy.
        market: The bars they are traded on.
        decision_delay_s: See ``config.Fills``.

    Returns:
        The commands (dtype ``layout.COMMAND``), sorted, and how many signals lie outside the bars.

    Raises:
        UsageError: a column is missing, a value makes no sense, or two signals contradict each other.
    """
    require_columns(signals, SIGNAL_COLUMNS, "signals")
    check_signals(signals, market)
    times, bar, columns = _located(signals, market, decision_delay_s)
    inside = bar >= 0
    order = np.lexsort((columns, -signals["confidence"].to_numpy(np.float64), times))
    order = order[inside[order]]
    commands = np.zeros(len(order), COMMAND)
    commands["bar"] = bar[order]
    commands["kind"] = CommandKind.TARGET
    commands["asset"] = columns[order]
    commands["value"] = signed_sizes(signals, np.arange(len(signals)))[order]
    return read_only(commands), int((~inside).sum())


class Places(NamedTuple):
    """Where signals stand among the bars, the later of a bar after the earlier.

    Attributes:
        rows: Positions of the signals that belong to a bar.
        bars: The bar at whose close each of them is decided.
        columns: The asset of each.
    """

    rows: IntArray
    bars: IntArray
    columns: IntArray


def places_of(signals: pd.DataFrame, market: MarketData, decision_delay_s: float) -> Places:
    """Find the place of each signal among the bars, as ``commands_from_signals`` does.

    Raises:
        UsageError: as ``commands_from_signals``.
    """
    require_columns(signals, SIGNAL_COLUMNS, "signals")
    check_signals(signals, market)
    times, bar, columns = _located(signals, market, decision_delay_s)
    order = np.argsort(times, kind="stable")
    order = order[bar[order] >= 0]
    return Places(order, bar[order], columns[order])


def targets_at(places: Places, sizes: FloatArray, market: MarketData) -> FloatArray:
    """Return what signals say to hold from each close on, shape (bars, assets), for sweeps and walk-forward.

    Before an asset's first signal nothing is held, afterwards its last one stands. As only changes of a target are
    commands, a change that a limit rejects is not tried again, other than with ``commands_from_signals``.

    Args:
        places: Where the signals stand.
        sizes: The signed size of each of them, see ``signed_sizes``.
        market: The bars.
    """
    said = np.full((market.bars, len(market.assets)), np.nan)
    said[places.bars, places.columns] = sizes  # in order of time: the last of a bar stays
    latest = np.maximum.accumulate(np.where(np.isnan(said), 0, np.arange(market.bars)[:, None]), axis=0)
    targets: FloatArray = np.nan_to_num(np.take_along_axis(said, latest, axis=0))
    return targets


def signed_sizes(signals: pd.DataFrame, rows: IntArray) -> FloatArray:
    """Return the fraction of equity that the signals at positions ``rows`` say to hold, negative for short.

    Raises:
        UsageError: a direction or a size makes no sense.
    """
    codes, directions = pd.factorize(signals["direction"].array.take(rows), use_na_sentinel=False)
    wrong = [direction for direction in directions if direction not in SIDES]
    if wrong:
        raise UsageError(f"signal direction {wrong[0]!r} is none of {sorted(SIDES)}")
    sizes = signals["position_size"].to_numpy(np.float64)[rows]
    sensible = (sizes >= 0) & np.isfinite(sizes)
    if not sensible.all():
        row = signals.iloc[rows[int(np.argmin(sensible))]]
        raise UsageError(
            f"{row['asset']} at {row['timestamp']}: position_size {row['position_size']} is no fraction >= 0"
        )
    signed: FloatArray = np.array([SIDES[direction] for direction in directions], np.float64)[codes] * sizes
    return signed


def _located(signals: pd.DataFrame, market: MarketData, decision_delay_s: float) -> tuple[IntArray, IntArray, IntArray]:
    """Return time less delay, bar (-1 outside the bars) and asset of each signal."""
    delay = min(int(decision_delay_s * NS_PER_S), market.interval_ns // LARGEST_DELAY)
    times = nanoseconds(signals["timestamp"], "signals.timestamp") - delay
    bar = np.searchsorted(market.arrays.open_ns, times, side="left") - 1
    last_close = market.arrays.open_ns[-1] + market.interval_ns
    columns = pd.Categorical(signals["asset"], categories=list(market.assets)).codes.astype(np.int64)
    return times, np.where(times <= last_close, bar, -1), columns


def check_signals(signals: pd.DataFrame, market: MarketData) -> None:
    """Check that signals are of one strategy, name known assets, and are there once.

    Raises:
        UsageError: they do not; the message names the first offender and the values allowed.
    """
    if "strategy" in signals.columns and len(signals["strategy"].unique()) > 1:
        found = sorted(signals["strategy"].unique())
        raise UsageError(
            f"a run trades the signals of one strategy, these are of {found}: select one or aggregate them"
        )
    unknown = sorted(set(signals["asset"]) - set(market.assets))
    if unknown:
        raise UsageError(f"signals for {unknown} but no bars; there are bars for {list(market.assets)}")
    twice = signals.duplicated(["timestamp", "asset"])
    if twice.any():
        row = signals[twice].iloc[0]
        raise UsageError(
            f"{row['asset']} at {row['timestamp']}: two signals at the same time ({int(twice.sum())} such)"
        )


def commands_from_targets(targets: FloatArray | NDArray[np.int8], size: float = 1.0) -> NDArray[np.void]:
    """Turn a matrix of targets into commands, one for each change.

    Args:
        targets: Shape (bars,) or (bars, assets): what to hold from the close of each bar on, as signed
            fraction of equity after multiplication with ``size``. Before the first bar nothing is held. NaN
            is not allowed.
        size: Factor on every target.
    """
    assets = 1 if targets.ndim == 1 else targets.shape[1]
    flat = np.ascontiguousarray(targets).reshape(-1)
    changed = np.empty(len(flat), np.bool_)
    np.not_equal(flat[assets:], flat[:-assets], out=changed[assets:])
    np.not_equal(flat[:assets], 0, out=changed[:assets])
    where = np.flatnonzero(changed)
    commands = np.zeros(len(where), COMMAND)
    if assets == 1:
        commands["bar"] = where
    else:
        commands["bar"], commands["asset"] = np.divmod(where, assets)
    commands["value"] = flat[where].astype(np.float64) * size
    return read_only(commands)
