"""Run a strategy over a window so that each decision rests on rows known at its time, and check what it returns.

What belongs here: ``decide``, the one way in for assets, backtests and tests. It means: *at each decision time,
show the strategy the rows with* ``available_at <= time`` *alone, and keep what it says about that time.* Doing
literally that costs one run for each decision, so it is done literally only where it can make a difference:

- One run over the whole window decides all times at which the known rows of all tables are complete up to a period. A
  causal strategy cannot tell the difference there.
- Times at which a row of an earlier or the same period is still unknown (late data) get a run of their own.
- That the strategy is causal is not believed: at some times the later rows are taken away, and every decision up
  to then has to stay as it was. The test kit (``testing``) does the same at many more times.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import Any

import numpy as np
import pandas as pd
from pandera.errors import SchemaErrors

from mts_dagster.schemas import TradingSignals
from mts_dagster.strategies.base import Strategy
from mts_dagster.strategies.errors import LookAheadError, StrategyError
from mts_dagster.strategies.market import Market

AUDIT_CUTS = 3
SIGNAL_COLUMNS = tuple(TradingSignals.to_schema().columns)
_KEY = ["timestamp", "asset"]
_NUMBERS = ["confidence", "position_size", "price"]
_TEXTS = ["direction", "risk_level", "reason"]
_RELATIVE_TOLERANCE = 1e-9


def decide(strategy: Strategy[Any], market: Market, start: date, end: date, *, checked: bool = True) -> pd.DataFrame:
    """Decisions of a strategy for the days ``[start, end)``.

    Args:
        strategy: the configured strategy.
        market: its input tables, from ``strategy.lookback_days`` before ``start`` on. Rows of other coins and rows
            of periods from ``end`` on are not shown to the strategy.
        start: first day decided on, inclusive.
        end: last day decided on, exclusive.
        checked: whether to look for look-ahead and to enforce the contract of signals. False saves most of the
            time: where the caller looks at more moments himself, or has checked the strategy before.

    Returns:
        ``TradingSignals`` in order of time and asset.

    Raises:
        StrategyError: an input is missing, the strategy failed, or its signals break their contract.
        LookAheadError: a decision rests on rows that were not known at its time.
    """
    market = market.prepared(strategy.inputs, strategy.config.assets).between(date.min, end)
    decisions = _run(strategy, market)
    late = market.incomplete_at(decisions["timestamp"])
    if checked:
        _audit(strategy, market, decisions[~late])
    inside = on_days(decisions, start, end)
    moments = decisions.loc[inside & late, "timestamp"].unique()
    alone = [_run_at(strategy, market, moment) for moment in moments]
    exact = _in_order(pd.concat([decisions[~late], *alone])) if alone else decisions
    within = exact[on_days(exact, start, end)].reset_index(drop=True)
    return conform(strategy, within) if checked else within


def analysed(strategy: Strategy[Any], market: Market) -> pd.DataFrame:
    """The strategy's analysis.

    Raises:
        StrategyError: it failed.
    """
    with _failure_of(strategy):
        return strategy.analyse(market)


def signalled(strategy: Strategy[Any], analysis: pd.DataFrame) -> pd.DataFrame:
    """The strategy's signals on an analysis, as it returns them.

    Raises:
        StrategyError: it failed, or columns are missing, unknown or of naive times.
    """
    with _failure_of(strategy):
        signals = strategy.signals(analysis)
    owed = set(SIGNAL_COLUMNS) if strategy.worded else {*SIGNAL_COLUMNS} - {"reason"}
    if not owed <= set(signals.columns) <= set(SIGNAL_COLUMNS):
        missing = [column for column in SIGNAL_COLUMNS if column not in signals.columns]
        extra = [str(column) for column in signals.columns if column not in SIGNAL_COLUMNS]
        raise _broken(strategy, f"columns missing: {missing}, not in the contract: {extra}")
    if getattr(signals["timestamp"].dtype, "tz", None) is None:
        raise _broken(strategy, f"column timestamp must be an aware time in UTC, is {signals['timestamp'].dtype}")
    return signals


def on_days(decisions: pd.DataFrame, start: date, end: date) -> pd.Series[bool]:
    """Which decisions are for the days ``[start, end)``."""
    return (decisions["date"] >= pd.Timestamp(start)) & (decisions["date"] < pd.Timestamp(end))


def first_difference(expected: pd.DataFrame, found: pd.DataFrame) -> str:
    """The first decision in which two frames of signals differ, in words; empty if none does.

    Both frames are in the order that ``decide`` gives. Numbers count as equal within 1e-9 of their size.
    """
    ours, theirs = (pd.MultiIndex.from_frame(frame[_KEY]) for frame in (expected, found))
    for index, other, change in ((ours, theirs, "is missing"), (theirs, ours, "appears")):
        alone = index.difference(other)
        if len(alone):
            timestamp, asset = alone.to_frame(index=False).iloc[0]
            return f"the decision on {_named(timestamp, asset)} {change}"
    numbers = np.isclose(expected[_NUMBERS], found[_NUMBERS], rtol=_RELATIVE_TOLERANCE, atol=0, equal_nan=True)
    texts = expected[_TEXTS].to_numpy(dtype=object) == found[_TEXTS].to_numpy(dtype=object)
    differs = ~(numbers.all(axis=1) & texts.all(axis=1))
    if not differs.any():
        return ""
    row = int(differs.argmax())
    before, after = expected.iloc[row], found.iloc[row]
    return (
        f"the decision on {_named(before['timestamp'], before['asset'])} changes from "
        f"{_worded(before)} to {_worded(after)}"
    )


def conform(strategy: Strategy[Any], decisions: pd.DataFrame) -> pd.DataFrame:
    """The decisions with the exact types of their contract.

    Raises:
        StrategyError: names the rule that is broken, how often, and the first row.
    """
    try:
        frame = TradingSignals.validate(decisions, lazy=True)
    except SchemaErrors as error:
        failures = error.failure_cases
        first = failures.iloc[0]
        count = int(((failures["column"] == first["column"]) & (failures["check"] == first["check"])).sum())
        where = "" if pd.isna(first["index"]) else f", first {_row_named(decisions.loc[first['index']])}"
        raise _broken(
            strategy,
            f"column {first['column']} fails {first['check']} in {count} rows{where}: {first['failure_case']}",
        ) from None
    flat = frame["direction"] == "flat"
    _refuse(strategy, frame, frame["strategy"] != strategy.name, "column strategy is not the strategy's name")
    _refuse(strategy, frame, frame["config_hash"] != strategy.config_hash, "config_hash is not the config's")
    _refuse(strategy, frame, ~frame["asset"].isin(strategy.config.assets), "the asset is not in the config")
    _refuse(strategy, frame, frame.duplicated(_KEY), "there are two decisions for one asset and time")
    _refuse(strategy, frame, frame["available_at"] < frame["timestamp"], "available_at is before the decision")
    if strategy.hedged:
        _refuse(strategy, frame, frame["direction"] == "short", "a hedged pair is held or not, it cannot be short")
    _refuse(strategy, frame, flat != (frame["position_size"] == 0), "size must be 0 when flat and above 0 otherwise")
    return frame


def _run(strategy: Strategy[Any], market: Market) -> pd.DataFrame:
    """One run over all rows shown: the columns of the contract, in order."""
    return _in_order(signalled(strategy, analysed(strategy, market)))


@contextmanager
def _failure_of(strategy: Strategy[Any]) -> Iterator[None]:
    """Name the strategy in whatever its code raises."""
    try:
        yield
    except StrategyError:
        raise
    except Exception as error:
        raise StrategyError(f"strategy {strategy.name} failed with {type(error).__name__}: {error}") from error


def _run_at(strategy: Strategy[Any], market: Market, moment: pd.Timestamp) -> pd.DataFrame:
    """What the strategy says about ``moment`` when shown what was known then."""
    decisions = _run(strategy, market.known_at(moment))
    return decisions[decisions["timestamp"] == moment]


def _in_order(decisions: pd.DataFrame) -> pd.DataFrame:
    return decisions[list(SIGNAL_COLUMNS)].sort_values(_KEY, kind="stable", ignore_index=True)


def _audit(strategy: Strategy[Any], market: Market, decisions: pd.DataFrame) -> None:
    """Take later rows away at some decision times; the decisions up to then must stay as they were."""
    for moment in _audited_moments(decisions):
        expected = decisions[decisions["timestamp"] <= moment]
        found = _run(strategy, market.known_at(moment))
        found = found[(found["timestamp"] <= moment) & ~market.incomplete_at(found["timestamp"])]
        difference = first_difference(expected, found)
        if difference:
            raise LookAheadError(
                f"strategy {strategy.name} looks ahead: without the rows that became known only after "
                f"{moment:%Y-%m-%d %H:%M:%S} UTC {difference}"
            )


def _audited_moments(decisions: pd.DataFrame) -> list[pd.Timestamp]:
    """Evenly spread decision times that have rows after them; those that hold a position, if there are any."""
    inner = decisions[decisions["timestamp"] < decisions["timestamp"].max()]
    held = inner[inner["direction"] != "flat"]
    moments = list((inner if held.empty else held)["timestamp"].unique())
    if not moments:
        return []
    positions = np.linspace(0, len(moments) - 1, AUDIT_CUTS + 1).astype(int)[1:]
    return [moments[position] for position in np.unique(positions)]


def _refuse(strategy: Strategy[Any], frame: pd.DataFrame, wrong: pd.Series[bool], what: str) -> None:
    if wrong.any():
        raise _broken(strategy, f"{what} in {int(wrong.sum())} rows, first {_row_named(frame[wrong].iloc[0])}")


def _broken(strategy: Strategy[Any], what: str) -> StrategyError:
    return StrategyError(f"signals of strategy {strategy.name} break their contract: {what}")


def _named(timestamp: pd.Timestamp, asset: str) -> str:
    return f"{asset} at {timestamp:%Y-%m-%d %H:%M:%S} UTC"


def _row_named(row: pd.Series[Any]) -> str:
    return _named(row["timestamp"], row["asset"])


def _worded(row: pd.Series[Any]) -> str:
    numbers = f"confidence {row['confidence']:.4g}, size {row['position_size']:.4g}"
    return f"{row['direction']} ({numbers}, {row['reason']})"
