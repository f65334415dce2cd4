"""From decisions to commands: trading signals and matrices of targets, by the bar that decides them.

What belongs here: checks of signals and their placement in time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from mts_dagster.backtest.layout import COMMAND, CommandKind, FloatArray
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
    delay = min(int(decision_delay_s * NS_PER_S), market.interval_ns // LARGEST_DELAY)
    times = nanoseconds(signals["timestamp"], "signals.timestamp") - delay
    bar = np.searchsorted(market.arrays.open_ns, times, side="left") - 1
    last_close = market.arrays.open_ns[-1] + market.interval_ns
    inside = (bar >= 0) & (times <= last_close)
    columns = pd.Categorical(signals["asset"], categories=list(market.assets)).codes.astype(np.int64)
    side = signals["direction"].map(SIDES).to_numpy(np.float64)
    value = side * signals["position_size"].to_numpy(np.float64)
    confidence = signals["confidence"].to_numpy(np.float64)
    order = np.lexsort((columns, -confidence, times))
    order = order[inside[order]]
    commands = np.zeros(len(order), COMMAND)
    commands["bar"] = bar[order]
    commands["kind"] = CommandKind.TARGET
    commands["asset"] = columns[order]
    commands["value"] = value[order]
    return read_only(commands), int((~inside).sum())


def targets_from_signals(signals: pd.DataFrame, market: MarketData, decision_delay_s: float) -> FloatArray:
    """Return what signals say to hold from each close on, shape (bars, assets), for sweeps and walk-forward.

    Before an asset's first signal nothing is held, afterwards its last one stands. As only changes of a target are
    commands, a change that a limit rejects is not tried again, other than with ``commands_from_signals``.

    Raises:
        UsageError: as ``commands_from_signals``.
    """
    commands, _ = commands_from_signals(signals, market, decision_delay_s)
    said = np.full((market.bars, len(market.assets)), np.nan)
    said[commands["bar"], commands["asset"]] = commands["value"]  # sorted by time: the last of a bar stays
    latest = np.maximum.accumulate(np.where(np.isnan(said), 0, np.arange(market.bars)[:, None]), axis=0)
    targets: FloatArray = np.nan_to_num(np.take_along_axis(said, latest, axis=0))
    return targets


def check_signals(signals: pd.DataFrame, market: MarketData) -> None:
    """Check that signals name known assets and directions, have sizes, and are there once.

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
    wrong = sorted(set(signals["direction"].astype(str)) - set(SIDES))
    if wrong:
        raise UsageError(f"signal direction {wrong[0]!r} is none of {sorted(SIDES)}")
    size = signals["position_size"].to_numpy(np.float64)
    if not ((size >= 0) & np.isfinite(size)).all():
        row = signals.iloc[int(np.argmin((size >= 0) & np.isfinite(size)))]
        raise UsageError(
            f"{row['asset']} at {row['timestamp']}: position_size {row['position_size']} is no fraction >= 0"
        )
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
