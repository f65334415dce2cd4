"""What a backtest hands back: typed, with the frames of the five result tables.

What belongs here: the outcome of one simulation, the pair of outcomes (as assumed, pessimistic) that make a
result, and their frames. Times in the frames are aware UTC, money is in the quote currency.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd

from mts_dagster.backtest.layout import EventKind, FloatArray, IntArray, Reason
from mts_dagster.backtest.market import MarketData, utc_index

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mts_dagster.backtest.config import Assumptions
    from mts_dagster.backtest.coverage import Coverage
    from mts_dagster.backtest.metrics import Metrics
    from mts_dagster.backtest.reconcile import Reconciliation

BASE: Final = "base"
PESSIMISTIC: Final = "pessimistic"
KIND_NAMES: Final = np.array([kind.name.lower() for kind in EventKind], dtype=object)
REASON_NAMES: Final = np.array([reason.name.lower() for reason in Reason], dtype=object)
SIDE_NAMES: Final = np.array(["short", "", "long"], dtype=object)
DECIDED_AT_CLOSE: Final = (EventKind.SIGNAL, EventKind.ORDER, EventKind.REJECT)
CANCELLED_AT_CLOSE: Final = (Reason.REPLACED, Reason.STRATEGY)


@dataclass(frozen=True)
class Provenance:
    """Where a result comes from; stored with it, never interpreted here.

    Attributes:
        run_id: Name of the run, unique in ``backtest_runs``.
        strategy: Name of the strategy.
        lake_snapshot: Snapshot of the lake from which bars, funding and signals were read.
        code_version: Version of the code that ran.
    """

    run_id: str = "adhoc"
    strategy: str = "strategy"
    lake_snapshot: int | None = None
    code_version: str | None = None


@dataclass(frozen=True)
class Curves:
    """Series of a run, one value a bar."""

    equity: FloatArray
    gross: FloatArray  # sum of absolute positions
    buy_hold: FloatArray  # growth of equal shares in all assets, from 1


@dataclass(frozen=True)
class Outcome:
    """One simulation under one set of assumptions.

    Attributes:
        assumptions: What was assumed.
        market: What was traded.
        events: The log (dtype ``layout.EVENT``).
        trades: Trades (dtype ``layout.TRADE``).
        curves: Equity, exposure and benchmark by bar.
        cash: Cash by bar.
        waiting_orders: Orders that were still waiting at the end.
        metrics: The numbers.
        reconciliation: The books.
    """

    assumptions: Assumptions
    market: MarketData
    events: NDArray[np.void]
    trades: NDArray[np.void]
    curves: Curves
    cash: FloatArray
    waiting_orders: int
    metrics: Metrics
    reconciliation: Reconciliation

    def _assets(self, codes: IntArray) -> NDArray[np.object_]:
        return np.array(self.market.assets, dtype=object)[codes]

    def _opens(self, bars: IntArray) -> pd.DatetimeIndex:
        return utc_index(self.market.arrays.open_ns[bars])

    def equity_frame(self) -> pd.DataFrame:
        """Return one row a bar: ``timestamp`` (its close), equity, cash, exposure, drawdown, benchmark."""
        equity = self.curves.equity
        return pd.DataFrame(
            {
                "timestamp": self.market.close_times(),
                "equity_usd": equity,
                "cash_usd": self.cash,
                "gross_usd": self.curves.gross,
                "drawdown_pct": 100.0 * (1.0 - equity / np.maximum.accumulate(equity)),
                "buy_hold_usd": self.curves.buy_hold / self.curves.buy_hold[0] * equity[0],
            }
        )

    def events_frame(self) -> pd.DataFrame:
        """Return the log, one row an event.

        ``timestamp`` is the close of the bar for decisions and its open for what happened in it.

        ``seq`` is the order of events. ``quantity`` is signed, of a signal the target as a fraction of
        equity, of a funding payment the position it was paid on.
        """
        log = self.events
        cancelled = (log["kind"] == EventKind.CANCEL) & np.isin(log["reason"], CANCELLED_AT_CLOSE)
        at_close = np.isin(log["kind"], DECIDED_AT_CLOSE) | cancelled
        opens = self.market.arrays.open_ns[log["bar"]]
        return pd.DataFrame(
            {
                "seq": np.arange(len(log)),
                "timestamp": utc_index(opens + at_close * self.market.interval_ns),
                "bar_open_time": utc_index(opens),
                "kind": KIND_NAMES[log["kind"]],
                "reason": REASON_NAMES[log["reason"]],
                "asset": self._assets(log["asset"]),
                "order_id": pd.arrays.IntegerArray(log["order"].astype(np.int64), log["order"] < 0),
                "quantity": log["quantity"],
                "price_usd": log["price"],
                "fee_usd": log["fee"],
                "slippage_usd": log["slippage"],
                "cash_usd": log["cash"],
                "balance_usd": log["balance"],
            }
        )

    def fills_frame(self) -> pd.DataFrame:
        """Return one row a fill; ``bar_open_time`` is the open of the bar in which it happened."""
        frame = self.events_frame()
        fills = frame[frame["kind"] == "fill"]
        return fills.assign(
            side=np.where(fills["quantity"] > 0, "buy", "sell"),
            notional_usd=(fills["quantity"] * fills["price_usd"]).abs(),
        )[
            [
                "seq",
                "bar_open_time",
                "asset",
                "order_id",
                "side",
                "reason",
                "quantity",
                "price_usd",
                "notional_usd",
                "fee_usd",
                "slippage_usd",
                "cash_usd",
                "balance_usd",
            ]
        ].reset_index(drop=True)

    def trades_frame(self) -> pd.DataFrame:
        """Return one row a trade by opening; an open one has no ``closed_at`` and exits at the last mark."""
        trades = self.trades
        is_open = trades["closed_bar"] < 0
        closed_at = pd.Series(self._opens(np.maximum(trades["closed_bar"], 0))).mask(is_open)
        return pd.DataFrame(
            {
                "trade": np.arange(len(trades)),
                "asset": self._assets(trades["asset"]),
                "side": SIDE_NAMES[trades["side"] + 1],
                "opened_at": self._opens(trades["opened_bar"]),
                "closed_at": closed_at,
                "is_open": is_open,
                "exit_reason": np.where(is_open, "", REASON_NAMES[trades["exit_reason"]]),
                "quantity": trades["quantity"],
                "entry_price_usd": trades["entry_price"],
                "exit_price_usd": trades["exit_price"],
                "fees_usd": trades["fees"],
                "slippage_usd": trades["slippage"],
                "funding_usd": trades["funding"],
                "pnl_usd": trades["pnl"],
                "return_pct": 100.0 * trades["pnl"] / trades["entry_value"],
                "fills": trades["fills"],
            }
        )


@dataclass(frozen=True)
class BacktestResult:
    """A run: what was assumed, what came of it, and what came of it under worse costs.

    Attributes:
        provenance: Where it comes from.
        base: The outcome under the assumptions.
        pessimistic: The outcome under ``Assumptions.pessimistic``.
        signals_outside: Signals that lie before the first or after the last bar and were not traded.
    """

    provenance: Provenance
    base: Outcome
    pessimistic: Outcome
    signals_outside: int = 0

    @property
    def metrics(self) -> Metrics:
        """The numbers under the assumptions."""
        return self.base.metrics

    @property
    def coverage(self) -> Coverage:
        """What was missing from the input."""
        return self.base.market.coverage

    @cached_property
    def outcomes(self) -> dict[str, Outcome]:
        """Both outcomes by their name."""
        return {BASE: self.base, PESSIMISTIC: self.pessimistic}

    def runs(self) -> pd.DataFrame:
        """Return ``backtest_runs``: a row a variant with assumptions, metrics, coverage, books."""
        return pd.DataFrame([self._run_row(variant, outcome) for variant, outcome in self.outcomes.items()])

    def _run_row(self, variant: str, outcome: Outcome) -> dict[str, object]:
        market, cover, books = outcome.market, outcome.market.coverage, outcome.reconciliation
        times = market.close_times()
        return {
            "run_id": self.provenance.run_id,
            "variant": variant,
            "strategy": self.provenance.strategy,
            "started_at": times[0],
            "ended_at": times[-1],
            "assets": json.dumps(list(market.assets)),
            "interval_s": market.interval_ns // 1_000_000_000,
            "lake_snapshot": self.provenance.lake_snapshot,
            "code_version": self.provenance.code_version,
            "config_hash": outcome.assumptions.config_hash(),
            "assumptions": outcome.assumptions.model_dump_json(),
            **outcome.metrics.as_dict(),
            "waiting_orders": outcome.waiting_orders,
            "signals_outside": self.signals_outside,
            "coverage_complete": cover.complete,
            "coverage": cover.summary(),
            "missing_bars": cover.missing_bars,
            "late_bars": cover.late_bars,
            "missing_settlements": cover.missing_settlements,
            "cash_difference_usd": books.cash_difference_usd,
            "equity_difference_usd": books.equity_difference_usd,
        }

    def _joined(self, frames: dict[str, pd.DataFrame]) -> pd.DataFrame:
        for variant, frame in frames.items():
            frame.insert(0, "run_id", self.provenance.run_id)
            frame.insert(1, "variant", variant)
        return pd.concat(frames.values(), ignore_index=True)

    def equity(self) -> pd.DataFrame:
        """Return ``backtest_equity``, see ``Outcome.equity_frame``."""
        return self._joined({name: outcome.equity_frame() for name, outcome in self.outcomes.items()})

    def fills(self) -> pd.DataFrame:
        """Return ``backtest_fills``, see ``Outcome.fills_frame``."""
        return self._joined({name: outcome.fills_frame() for name, outcome in self.outcomes.items()})

    def trades(self) -> pd.DataFrame:
        """Return ``backtest_trades``, see ``Outcome.trades_frame``."""
        return self._joined({name: outcome.trades_frame() for name, outcome in self.outcomes.items()})

    def events(self) -> pd.DataFrame:
        """Return ``backtest_events``, see ``Outcome.events_frame``."""
        return self._joined({name: outcome.events_frame() for name, outcome in self.outcomes.items()})
