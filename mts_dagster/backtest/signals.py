"""From decisions to commands: trading signals and matrices of targets, by the bar that decides them.

What belongs here: checks of signals and their placement in time.
"""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias, TypeVar, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mts_dagster.backtest.layout import COMMAND, CommandKind, FloatArray, IntArray
from mts_dagster.backtest.market import MarketData, nanoseconds, read_only, require_columns
from mts_dagster.errors import UsageError

Targets: TypeAlias = NDArray[np.float64] | NDArray[np.int8]  # see commands_from_targets
Decided: TypeAlias = Targets | NDArray[np.void]  # targets, or commands
Some = TypeVar("Some", bound=Decided)

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
    places = places_of(signals, np.arange(len(signals)), market, decision_delay_s)
    return commands_at(places, signals), len(signals) - len(places.rows)


class Places(NamedTuple):
    """Where signals stand among the bars.

    Attributes:
        rows: Positions of the signals that belong to a bar.
        times: When each of them is decided, less the delay, nanoseconds since 1970.
        bars: The bar at whose close it is decided.
        columns: Its asset.
    """

    rows: IntArray
    times: IntArray
    bars: IntArray
    columns: IntArray


def places_of(signals: pd.DataFrame, rows: IntArray, market: MarketData, decision_delay_s: float) -> Places:
    """Find the places of the signals at positions ``rows``; arguments and errors as ``commands_from_signals``."""
    require_columns(signals, SIGNAL_COLUMNS, "signals")
    chosen = signals.iloc[rows]
    check_signals(chosen, market)
    delay = min(int(decision_delay_s * NS_PER_S), market.interval_ns // LARGEST_DELAY)
    times = nanoseconds(chosen["timestamp"], "signals.timestamp") - delay
    bars = np.searchsorted(market.arrays.open_ns, times, side="left") - 1
    columns = pd.Categorical(chosen["asset"], categories=list(market.assets)).codes.astype(np.int64)
    inside = (bars >= 0) & (times <= market.arrays.open_ns[-1] + market.interval_ns)
    return Places(rows[inside], times[inside], bars[inside], columns[inside])


def commands_at(places: Places, signals: pd.DataFrame) -> NDArray[np.void]:
    """Turn the signals of known places into commands (dtype ``layout.COMMAND``), sorted.

    Raises:
        UsageError: a direction or a size makes no sense.
    """
    sizes = signed_sizes(signals, places.rows)
    confidence = signals["confidence"].to_numpy(np.float64)[places.rows]
    order = np.lexsort((places.columns, -confidence, places.times))
    commands = np.zeros(len(order), COMMAND)
    commands["bar"] = places.bars[order]
    commands["kind"] = CommandKind.TARGET
    commands["asset"] = places.columns[order]
    commands["value"] = sizes[order]
    return read_only(commands)


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


def part_of(decided: Some, start: int, stop: int) -> Some:
    """Return what is decided at the closes of the bars ``[start, stop)``, counted from ``start``."""
    if decided.dtype != COMMAND:
        return cast("Some", decided[start:stop])
    commands = cast("NDArray[np.void]", decided)
    part = commands[(commands["bar"] >= start) & (commands["bar"] < stop)]
    part["bar"] -= start
    return cast("Some", read_only(part))
