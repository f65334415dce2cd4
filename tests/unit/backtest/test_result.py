"""A result: its frames, its books, its pessimistic twin, and where it comes from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from mts_dagster.backtest.errors import ReconciliationError, UncoveredDataError
from mts_dagster.backtest.layout import EVENT, EventKind
from mts_dagster.backtest.reconcile import reconcile
from mts_dagster.backtest.result import BacktestResult, Provenance
from mts_dagster.backtest.run import Window, backtest_signals, backtest_strategy
from tests.unit.backtest.playing import HOUR, START, Script, frame_of

if TYPE_CHECKING:
    from mts_dagster.backtest.config import Assumptions
    from tests.unit.backtest.playing import Assume, Bar

FLAT = (100.0, 101.0, 99.0, 100.0)
UP = (110.0, 111.0, 109.0, 110.0)


def signal_frame(*rows: tuple[int, str, float]) -> pd.DataFrame:
    """Return signals on BTC so many hours after the first open."""
    frame = pd.DataFrame(rows, columns=["hour", "direction", "position_size"])
    return frame.assign(timestamp=START + HOUR * frame["hour"], asset="BTC", confidence=1.0)


@pytest.fixture(scope="module")
def terms(assume: Assume) -> Assumptions:
    """Return spot assumptions with fees and slippage."""
    return assume(taker_fee_bps=5.0, slippage_bps=2.0, kind="spot")


@pytest.fixture(scope="module")
def result(terms: Assumptions) -> BacktestResult:
    """Return one closed and one open trade over six bars, of which the last signal is never filled."""
    bars = frame_of({"BTC": [FLAT, FLAT, UP, UP, UP, UP]})
    signals = signal_frame((1, "long", 0.5), (2, "flat", 0.0), (3, "long", 0.4), (6, "flat", 0.0))
    return backtest_signals(signals, bars, terms, provenance=Provenance("run-1", "demo", 17, "abc"))


def test_each_variant_has_a_row_with_its_provenance(result: BacktestResult) -> None:
    """Snapshot, code version and the hash of the assumptions lead back to what was run."""
    runs = result.runs()
    assert runs["variant"].tolist() == ["base", "pessimistic"]
    assert runs["run_id"].tolist() == ["run-1", "run-1"]
    assert (runs["lake_snapshot"] == 17).all()
    assert runs["config_hash"].nunique() == 2
    assert json.loads(runs["assumptions"][0])["fills"]["slippage_bps"] == 2.0
    assert runs["started_at"][0] == START + HOUR
    assert runs["coverage_complete"].all()
    assert runs["waiting_orders"].tolist() == [1, 1]


def test_the_pessimistic_twin_pays_more(result: BacktestResult) -> None:
    """Fees times 1.5 and slippage 2 x 2 + 5 = 9 bps on the same decisions."""
    base, worse = result.base, result.pessimistic
    assert worse.assumptions.fills.slippage_bps == 9.0
    assert worse.assumptions.venue("BTC").taker_fee_bps == 7.5
    assert worse.metrics.end_equity_usd < base.metrics.end_equity_usd
    assert worse.fills_frame()["price_usd"][0] == pytest.approx(100 * 1.0009)


def test_the_equity_frame_has_a_row_for_each_close(result: BacktestResult) -> None:
    """Cash and positions add up to equity while the position is long."""
    frame = result.equity().query("variant == 'base'")
    assert frame["timestamp"].tolist() == [START + HOUR * i for i in range(1, 7)]
    assert frame["equity_usd"].to_numpy() == pytest.approx((frame["cash_usd"] + frame["gross_usd"]).to_numpy())
    assert frame["buy_hold_usd"].tolist() == pytest.approx([1000, 1000, 1100, 1100, 1100, 1100])
    assert frame["drawdown_pct"].min() == 0.0


def test_the_fills_frame_tells_cost_and_cash_of_each_fill(result: BacktestResult) -> None:
    """5 bought at 100.02: fee 5 bps of 500.1."""
    first = result.fills().query("variant == 'base'").iloc[0]
    assert (first["side"], first["quantity"], first["reason"]) == ("buy", 5.0, "signal")
    assert first["bar_open_time"] == START + HOUR
    assert first["fee_usd"] == pytest.approx(0.25005)
    assert first["cash_usd"] == pytest.approx(-500.1 - 0.25005)
    assert first["balance_usd"] == pytest.approx(1000 - 500.35005)


def test_the_trades_frame_tells_closed_and_open_trades_apart(result: BacktestResult) -> None:
    """The first trade is closed at 109.978; the second is open and counted at the last mark of 110."""
    frame = result.trades().query("variant == 'base'")
    closed, still_open = frame.iloc[0], frame.iloc[1]
    assert closed["closed_at"] == START + 2 * HOUR
    assert closed["pnl_usd"] == pytest.approx(5 * (109.978 - 100.02) - 0.25005 - 5 * 109.978 * 5e-4)
    assert pd.isna(still_open["closed_at"])
    assert bool(still_open["is_open"])
    assert still_open["exit_price_usd"] == 110.0


def test_events_follow_market_signal_order_fill(result: BacktestResult) -> None:
    """A signal and its order carry the close at which they were made, the fill the bar after it."""
    events = result.events().query("variant == 'base'").head(3)
    assert events["kind"].tolist() == ["signal", "order", "fill"]
    assert events["timestamp"].tolist() == [START + HOUR] * 3
    assert events["bar_open_time"].tolist() == [START, START, START + HOUR]
    assert events["order_id"].tolist() == [0, 0, 0]


def test_the_engines_own_fills_have_no_order_id(assume: Assume) -> None:
    """A stop-loss belongs to no order of the strategy."""
    bars = frame_of({"BTC": [FLAT, FLAT, (100.0, 100.0, 90.0, 95.0)]})
    outcome = backtest_signals(signal_frame((1, "long", 0.5)), bars, assume(stop_loss_pct=5.0, kind="spot")).base
    fills = outcome.fills_frame()
    assert fills["reason"].tolist() == ["signal", "stop_loss"]
    assert fills["order_id"].isna().tolist() == [False, True]


def test_a_strict_run_over_gaps_is_refused(assume: Assume) -> None:
    """The same run that declares its gap refuses under strict."""
    bars: dict[str, list[Bar | None]] = {"BTC": [FLAT, FLAT, None, FLAT]}
    signals = signal_frame((1, "long", 0.5))
    declared = backtest_signals(signals, frame_of(bars), assume(kind="spot"))
    assert declared.coverage.missing_bars == 1
    assert not declared.runs()["coverage_complete"].any()
    with pytest.raises(UncoveredDataError):
        backtest_signals(signals, frame_of(bars), assume(kind="spot", strict=True))


def test_missing_funding_of_a_perpetual_is_declared(assume: Assume) -> None:
    """Forty-eight hourly bars owe six settlements."""
    bars = frame_of({"BTC": [FLAT] * 48})
    assert backtest_signals(signal_frame((1, "long", 0.5)), bars, assume()).coverage.missing_settlements == 6


def test_a_window_trades_only_inside_it(terms: Assumptions) -> None:
    """From 02:00 to 05:00: the signal of 02:00 fills at the first open of the window."""
    bars = frame_of({"BTC": [FLAT, FLAT, UP, UP, UP, UP]})
    window = Window(START + 2 * HOUR, START + 5 * HOUR)
    signals = signal_frame((1, "short", 0.5), (2, "long", 0.5), (5, "flat", 0.0))
    found = backtest_signals(signals, bars, terms, window=window)
    assert found.fills()["bar_open_time"].unique().tolist() == [START + 2 * HOUR]
    assert found.base.metrics.bars == 4
    assert found.signals_outside == 1


def test_a_strategy_in_python_gives_the_same_kind_of_result(terms: Assumptions) -> None:
    """Signals and a script that says the same end with the same log."""
    bars = frame_of({"BTC": [FLAT, FLAT, UP, UP]})
    by_signal = backtest_signals(signal_frame((1, "long", 0.5), (2, "flat", 0.0)), bars, terms)
    steps = {0: lambda b: b.target("BTC", 0.5), 1: lambda b: b.target("BTC", 0.0)}
    by_script = backtest_strategy(lambda: Script(steps), bars, terms)
    pd.testing.assert_frame_equal(by_signal.events(), by_script.events())


def log_of(*rows: tuple[EventKind, float, float, float, float]) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    """Return a log of (kind, quantity, price, fee, cash)."""
    log = np.zeros(len(rows), EVENT)
    for i, (kind, quantity, price, fee, cash) in enumerate(rows):
        log[i]["kind"], log[i]["quantity"], log[i]["price"] = kind, quantity, price
        log[i]["fee"], log[i]["cash"] = fee, cash
    return log


def test_the_books_are_start_plus_fills_plus_fees_plus_funding() -> None:
    """1000 - 500 - 0.25 - 0.1 = 499.65 in cash and 5 units at 102."""
    log = log_of((EventKind.FILL, 5.0, 100.0, 0.25, -500.25), (EventKind.FUNDING, 5.0, 100.0, 0.0, -0.1))
    books = reconcile(1000.0, log, 499.65, 499.65 + 510.0, np.array([102.0]))
    assert (books.fills_usd, books.fees_usd, books.funding_usd) == (-500.0, -0.25, -0.1)
    assert books.cash_difference_usd == pytest.approx(0.0, abs=1e-9)
    books.require()


@pytest.mark.parametrize(("cash", "equity"), [(499.65 + 2e-6, 1009.65 + 2e-6), (499.65, 1009.65 - 2e-6)])
def test_books_that_do_not_add_up_are_refused(cash: float, equity: float) -> None:
    """Two millionths of a dollar are too many, in cash or in equity."""
    log = log_of((EventKind.FILL, 5.0, 100.0, 0.25, -500.25), (EventKind.FUNDING, 5.0, 100.0, 0.0, -0.1))
    with pytest.raises(ReconciliationError, match=r"books differ by 0\.000002"):
        reconcile(1000.0, log, cash, equity, np.array([102.0])).require()
