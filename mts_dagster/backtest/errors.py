"""What can go wrong in a backtest, as errors of the MTS family.

What belongs here: errors that only the backtest package raises. A wrong argument is ``UsageError`` and a
wrong config file ``ConfigError``, both from ``mts_dagster.errors``.
"""

from __future__ import annotations

from mts_dagster.errors import MtsError


class BacktestError(MtsError):
    """A backtest cannot be run or its result cannot be trusted."""


class MarketDataError(BacktestError):
    """Bars or funding settlements contradict themselves; the message names asset and time."""


class UncoveredDataError(BacktestError):
    """Bars or funding settlements are missing and the run was asked to be strict."""


class ReconciliationError(BacktestError):
    """The books do not add up: start + fills + fees + funding differs from the end."""
