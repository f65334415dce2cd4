"""Real history: BTC, ETH and BNB perpetuals of 2025 with their real funding, traded by the real VIX.

The rule: hold 20 % of equity in each coin from the next open on while the VIX of the day before was below 20, else
nothing. The engine's result is derived a second time below from the files alone, with plain Python and no code of the
engine, and the reviewed numbers are kept.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from mts_dagster.backtest.config import Assumptions, Fills, InstrumentRules, Venue
from mts_dagster.backtest.layout import EventKind
from mts_dagster.backtest.result import BacktestResult
from mts_dagster.backtest.run import Window, backtest_signals

if TYPE_CHECKING:
    from pathlib import Path

COINS = ("BNB", "BTC", "ETH")
FIRST, LAST = datetime(2025, 1, 2, tzinfo=UTC), datetime(2025, 10, 1, tzinfo=UTC)
DAY = timedelta(days=1)
CAPITAL, SHARE, FEE, SLIP = 100_000.0, 0.2, 5e-4, 1e-4

TERMS = Assumptions(
    initial_capital_usd=CAPITAL,
    venues={"usdm": Venue(maker_fee_bps=2.0, taker_fee_bps=5.0, kind="perpetual")},
    default_instrument=InstrumentRules(venue="usdm"),
    fills=Fills(slippage_bps=1.0),
    strict=True,
)

# Reviewed with the derivation below beside them: 100,000 - 78.19 of slippage and 390.95 of fees and 1,122.52 of
# funding, 2,702.33 of price moves in eight calm stretches of three coins, the last of them still open.
REVIEWED = {
    "end_equity_usd": 101_110.67,
    "funding_usd": -1_122.52,
    "commission_usd": 390.95,
    "slippage_usd": 78.19,
    "max_drawdown_pct": 21.5837,
    "sharpe": 0.1825,
    "trades": 21,
    "fills": 45,
}

Prices = dict[str, dict[datetime, tuple[float, float]]]  # open and close by day
Rates = dict[str, dict[datetime, float]]


@dataclass(frozen=True)
class History:
    """What the files say."""

    bars: pd.DataFrame
    funding: pd.DataFrame
    prices: Prices
    rates: Rates
    calm: dict[datetime, bool]  # by the day whose close decides


def known_calm(path: Path) -> dict[datetime, bool]:
    """Return for each day whether the last VIX of a day before it was below 20."""
    with path.open(encoding="utf-8") as lines:
        values = {row["observation_date"]: row["VIXCLS"] for row in csv.DictReader(lines)}
    calm, last = {}, float("nan")
    day = datetime(2024, 12, 1, tzinfo=UTC)
    while day < LAST:
        calm[day] = last < 20.0
        last = float(values.get(f"{day:%Y-%m-%d}") or last)
        day += DAY
    return calm


@pytest.fixture(scope="module")
def history(shared_data: Path) -> History:
    """Read the recordings."""
    frames, settled = [], []
    prices: Prices = {}
    rates: Rates = {}
    for coin in COINS:
        frame = pd.read_csv(shared_data / "ohlcv" / f"binance_usdm_{coin}USDT_1d_2024-2026.csv").iloc[:-1]
        frame["open_time"] = pd.to_datetime(frame["timestamp"], unit="ms", utc=True)
        frames.append(frame.assign(asset=coin, volume_base=frame["volume"]))
        rows = zip(frame["open_time"], frame["open"].tolist(), frame["close"].tolist(), strict=True)
        prices[coin] = {time.to_pydatetime(): (first, last) for time, first, last in rows}
        paid = pd.read_csv(shared_data / "funding" / f"binance_usdm_{coin}USDT_funding_2025-2026.csv")
        paid["settled_at"] = pd.to_datetime(paid["funding_time"], utc=True)
        settled.append(paid.assign(asset=coin))
        stamps = zip(paid["settled_at"], paid["funding_rate"].tolist(), strict=True)
        rates[coin] = {time.to_pydatetime(): rate for time, rate in stamps}
    calm = known_calm(shared_data / "macro" / "VIXCLS.csv")
    return History(pd.concat(frames), pd.concat(settled), prices, rates, calm)


@pytest.fixture(scope="module")
def result(history: History) -> BacktestResult:
    """Return the engine's result, from signals at each close."""
    days = [FIRST - DAY + DAY * i for i in range((LAST - FIRST).days + 1)]
    signals = pd.DataFrame(
        [
            {
                "timestamp": pd.Timestamp(day + DAY),
                "asset": coin,
                "direction": "long" if history.calm[day] else "flat",
                "position_size": SHARE if history.calm[day] else 0.0,
                "confidence": 1.0,
            }
            for day in days
            for coin in COINS
        ]
    )
    return backtest_signals(signals, history.bars, TERMS, funding=history.funding, window=Window(FIRST, LAST))


@dataclass
class Derived:
    """The second derivation: one account, day by day."""

    cash: float = CAPITAL
    fees: float = 0.0
    funding: float = 0.0
    fills: int = 0


def derive(history: History) -> tuple[Derived, list[float]]:
    """Trade the rule with plain Python; return the account and equity at each close."""
    book = Derived()
    units = dict.fromkeys(COINS, 0.0)
    equity = [CAPITAL]
    day, wanted = FIRST, False
    while day < LAST:
        calm = history.calm[day - DAY]
        for coin in COINS:
            book.funding -= units[coin] * history.prices[coin][day][0] * history.rates[coin][day]
            book.cash -= units[coin] * history.prices[coin][day][0] * history.rates[coin][day]
        for coin in COINS:
            if calm == wanted:
                continue
            target = SHARE * equity[-1] / history.prices[coin][day - DAY][1] if calm else 0.0
            change = target - units[coin]
            price = history.prices[coin][day][0] * (1 + SLIP if change > 0 else 1 - SLIP)
            book.fees += abs(change) * price * FEE
            book.cash -= change * price + abs(change) * price * FEE
            book.fills += 1
            units[coin] = target
        wanted = calm
        for hours in (8, 16):
            for coin in COINS:
                paid = units[coin] * history.prices[coin][day][0] * history.rates[coin][day + timedelta(hours=hours)]
                book.funding -= paid
                book.cash -= paid
        equity.append(book.cash + sum(units[coin] * history.prices[coin][day][1] for coin in COINS))
        day += DAY
    return book, equity


def test_every_day_equals_the_second_derivation(history: History, result: BacktestResult) -> None:
    """272 closes and the opening balance, equal to a billionth."""
    _, equity = derive(history)
    assert result.base.curves.equity.tolist() == pytest.approx(equity, rel=1e-9)


def test_the_costs_equal_the_second_derivation(history: History, result: BacktestResult) -> None:
    """Fees and funding of every fill and settlement."""
    book, _ = derive(history)
    assert result.metrics.commission_usd == pytest.approx(book.fees, rel=1e-9)
    assert result.metrics.funding_usd == pytest.approx(book.funding, rel=1e-9)
    assert len(result.base.fills_frame()) == book.fills


def test_the_reviewed_numbers(result: BacktestResult) -> None:
    """A change here is a change of a rule."""
    metrics = result.metrics
    for name in ("end_equity_usd", "funding_usd", "commission_usd", "slippage_usd"):
        assert getattr(metrics, name) == pytest.approx(REVIEWED[name], abs=0.005)
    assert metrics.max_drawdown_pct == pytest.approx(REVIEWED["max_drawdown_pct"], abs=5e-5)
    assert metrics.sharpe == pytest.approx(REVIEWED["sharpe"], abs=5e-5)
    assert metrics.trades == REVIEWED["trades"]
    assert len(result.base.fills_frame()) == REVIEWED["fills"]


def test_the_input_is_complete(result: BacktestResult) -> None:
    """272 days of three coins and 816 settlements each: the strict run went through."""
    coverage = result.coverage
    assert (coverage.expected_bars, coverage.expected_settlements) == (3 * 272, 3 * 816)
    assert coverage.complete


def test_the_shown_trade_can_be_checked_by_hand(history: History, result: BacktestResult) -> None:
    """The first BTC trade: 20 % of 100,000 at the close before, filled one basis point above the open."""
    trade = result.base.trades_frame().query("asset == 'BTC'").iloc[0]
    opened = trade["opened_at"].to_pydatetime()
    close, open_price = history.prices["BTC"][opened - DAY][1], history.prices["BTC"][opened][0]
    assert trade["quantity"] == pytest.approx(SHARE * CAPITAL / close)
    assert trade["entry_price_usd"] == pytest.approx(open_price * (1 + SLIP))


def test_funding_is_paid_on_what_is_held(history: History, result: BacktestResult) -> None:
    """Every payment is minus position times open times the recorded rate."""
    events = result.base.events
    paid = events[events["kind"] == EventKind.FUNDING]
    opens = result.base.market.arrays.open
    rates = -paid["cash"] / (paid["quantity"] * opens[paid["bar"], paid["asset"]])
    recorded = {round(rate, 8) for coin in COINS for rate in history.rates[coin].values()}
    assert {round(float(rate), 8) for rate in rates} <= recorded | {-0.0}
    assert np.isfinite(rates).all()
