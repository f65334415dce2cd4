"""A whole backtest: from frames to a result with its pessimistic twin, reconciled, with its gaps declared.

What belongs here: the two doors of the package, ``backtest_signals`` for signals and ``backtest_strategy``
for a strategy in Python. Everything is computed in memory; storing the result is the caller's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mts_dagster.backtest.layout import MOMENTS, TOTALS, TRADE, EventKind, FloatArray, rows
from mts_dagster.backtest.ledger import list_trades, trace
from mts_dagster.backtest.market import MarketData, market_from_frames
from mts_dagster.backtest.metrics import Trials, metrics_of
from mts_dagster.backtest.moments import correlation, hold_equally, measure
from mts_dagster.backtest.python_strategy import Strategy, run_bars
from mts_dagster.backtest.reconcile import reconcile
from mts_dagster.backtest.result import BacktestResult, Curves, Outcome, Provenance
from mts_dagster.backtest.signals import commands_from_signals
from mts_dagster.backtest.simulation import Simulation, simulate

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    import pandas as pd
    from numpy.typing import NDArray

    from mts_dagster.backtest.config import Assumptions


@dataclass(frozen=True)
class Window:
    """What to trade, half-open [start, end); ``None`` means all. Bars before ``start`` only warm up."""

    start: datetime | None = None
    end: datetime | None = None


def perpetuals_of(bars: pd.DataFrame, assumptions: Assumptions) -> frozenset[str]:
    """Return the assets that pay funding under these assumptions."""
    return frozenset(name for name in bars["asset"].unique() if assumptions.venue(name).kind == "perpetual")


def prepare(
    bars: pd.DataFrame, funding: pd.DataFrame | None, assumptions: Assumptions, window: Window | None = None
) -> MarketData:
    """Align bars and funding for runs under these assumptions.

    Raises:
        UncoveredDataError: something is missing and the assumptions are strict.
        UsageError: a column is missing, a time has no zone, or nothing is left to trade.
        MarketDataError: bars or settlements contradict themselves.
    """
    window = window or Window()
    market = market_from_frames(
        bars, funding, perpetuals=perpetuals_of(bars, assumptions), start=window.start, end=window.end
    )
    if assumptions.strict:
        market.coverage.require_complete()
    return market


def buy_hold_of(market: MarketData) -> FloatArray:
    """Return the growth of equal shares in all assets."""
    growth = np.empty(market.bars)
    hold_equally(market.arrays.mark, growth)
    return growth


def lots_of(simulation: Simulation) -> FloatArray:
    """Return the lot size of each asset."""
    return np.array(np.asarray(simulation.terms.instruments)["lot"])  # a copy: one type for any number of assets


def trades_of(simulation: Simulation) -> NDArray[np.void]:
    """Return the trades of a run (dtype ``layout.TRADE``)."""
    events = simulation.events
    market = simulation.market
    table = np.empty(int((events["kind"] == EventKind.FILL).sum()), TRADE)
    open_index = np.full(len(market.assets), -1)
    count = list_trades(rows(events), lots_of(simulation), market.arrays.mark[-1], open_index, rows(table))
    return table[:count]


def outcome_of(simulation: Simulation, assumptions: Assumptions, buy_hold: FloatArray, trials: Trials) -> Outcome:
    """Derive everything from a finished simulation and check its books.

    Raises:
        ReconciliationError: the books do not add up.
    """
    market, events, equity = simulation.market, simulation.events, simulation.equity
    cash, gross, totals = np.empty(market.bars), np.empty(market.bars), np.zeros(1, TOTALS)
    held = np.zeros(len(market.assets))
    trace(rows(events), market.arrays.mark, equity, lots_of(simulation), held, cash, gross, rows(totals))
    moments = np.zeros(1, MOMENTS)
    measure(equity, rows(moments))
    curves = Curves(equity, gross, buy_hold)
    trades = trades_of(simulation)
    books = reconcile(simulation.capital, events, simulation.cash, float(equity[-1]), market.arrays.mark[-1])
    books.require()
    metrics = metrics_of(
        moments[0],
        totals[0],
        trades,
        interval_ns=market.interval_ns,
        buy_hold_return=float(buy_hold[-1] / buy_hold[0] - 1.0),
        buy_hold_correlation=correlation(equity, buy_hold),
        trials=trials,
    )
    return Outcome(assumptions, market, events, trades, curves, cash, len(simulation.waiting), metrics, books)


def backtest_signals(
    signals: pd.DataFrame,
    bars: pd.DataFrame,
    assumptions: Assumptions,
    *,
    funding: pd.DataFrame | None = None,
    window: Window | None = None,
    provenance: Provenance | None = None,
    trials: Trials | None = None,
) -> BacktestResult:
    """Trade the signals of one strategy over bars.

    Args:
        signals: Trading signals, see ``signals.commands_from_signals``.
        bars: Bars, see ``market.market_from_frames``.
        assumptions: Costs, fills, limits.
        funding: Funding settlements of perpetuals.
        window: What to trade.
        provenance: Stored with the result.
        trials: How many parameter sets were tried to find these signals.

    Raises:
        UsageError: the input lacks something or makes no sense.
        BacktestError: the input contradicts itself, is uncovered in a strict run, or the books do not add up.
    """
    market = prepare(bars, funding, assumptions, window)
    commands, outside = commands_from_signals(signals, market, assumptions.fills.decision_delay_s)
    buy_hold = buy_hold_of(market)
    trials = trials or Trials()

    def outcome(terms: Assumptions) -> Outcome:
        return outcome_of(simulate(market, commands, terms), terms, buy_hold, trials)

    return BacktestResult(provenance or Provenance(), outcome(assumptions), outcome(assumptions.pessimistic()), outside)


def backtest_strategy(
    make_strategy: Callable[[], Strategy],
    bars: pd.DataFrame,
    assumptions: Assumptions,
    *,
    funding: pd.DataFrame | None = None,
    window: Window | None = None,
    provenance: Provenance | None = None,
    trials: Trials | None = None,
) -> BacktestResult:
    """Run a strategy written in Python over bars.

    ``make_strategy`` makes a fresh strategy for each of the two outcomes. The other arguments and errors are
    those of ``backtest_signals``.
    """
    market = prepare(bars, funding, assumptions, window)
    buy_hold = buy_hold_of(market)
    trials = trials or Trials()

    def outcome(terms: Assumptions) -> Outcome:
        return outcome_of(run_bars(make_strategy(), market, terms), terms, buy_hold, trials)

    return BacktestResult(provenance or Provenance(), outcome(assumptions), outcome(assumptions.pessimistic()))
