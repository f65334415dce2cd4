"""Every directional strategy on real history: BTC, ETH and BNB perpetuals of 2025, real VIX, real funding.

Each result is derived a second time from its signals and the files alone, by plain Python without any code of the
engine, and must agree at every close. The reviewed numbers beside are those of that derivation.

What the derivation does, day by day: settle funding of midnight on what was carried; trade what the decisions of the
close before ask for, at the open and a basis point worse, 5 bps fee, sizes from the equity and the close of the
decision, changes of at most half a percent of equity in the same direction left out; settle the funding of 08:00 and
16:00 on what is held now, at the day's open; mark at the close.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mts_dagster.backtest.config import Assumptions, Fills, InstrumentRules
from mts_dagster.backtest.result import BacktestResult
from mts_dagster.backtest.run import Window, backtest_signals
from mts_dagster.settings import load_settings
from mts_dagster.strategies import FEATURES, Market, decide
from mts_dagster.strategies.registry import load_strategies

COINS = {"bitcoin": "BTC", "ethereum": "ETH", "binancecoin": "BNB"}
FIRST, LAST = datetime(2025, 1, 2, tzinfo=UTC), datetime(2025, 10, 1, tzinfo=UTC)
DAY = timedelta(days=1)
CAPITAL, FEE, SLIP, THRESHOLD = 100_000.0, 5e-4, 1e-4, 0.005
TERMS = Assumptions(
    initial_capital_usd=CAPITAL,
    default_instrument=InstrumentRules(venue="binance_usdm"),
    fills=Fills(slippage_bps=1.0),
    rebalance_threshold=THRESHOLD,
    strict=True,
)
STRATEGIES = {
    name: strategy
    for name, strategy in load_strategies(load_settings(strategy_folders=())).items()
    if not strategy.hedged and strategy.inputs == (FEATURES,)
}
# Total return in percent, deepest drawdown in percent, closed trades, funding in USD: from the derivation below,
# agreed with by the engine.
REVIEWED = {
    "buy_hold": (23.9136, 33.5124, 0, -1963.70),
    "mean_reversion": (2.0530, 2.4329, 9, -1.57),
    "momentum": (7.8289, 3.5831, 61, -292.66),
    "vix_correlation": (1.3291, 1.9031, 7, -50.57),
    "volume_spike": (-1.0606, 1.4271, 26, -1.29),
}


@dataclass(frozen=True)
class History:
    """What the files say."""

    features: pd.DataFrame
    bars: pd.DataFrame
    funding: pd.DataFrame


def known_vix(path: Path, days: pd.DatetimeIndex) -> pd.Series[float]:
    """The last VIX of a day before each day: a close counts from the next day on."""
    with path.open(encoding="utf-8") as lines:
        rows = [(row["observation_date"], row["VIXCLS"]) for row in csv.DictReader(lines) if row["VIXCLS"]]
    values = pd.Series([float(value) for _, value in rows], index=pd.DatetimeIndex([day for day, _ in rows]))
    return values.reindex(days).ffill().shift(1)


def logs(values: pd.Series[float]) -> pd.Series[float]:
    return pd.Series(np.log(values.to_numpy(np.float64)), values.index)


@pytest.fixture(scope="module")
def history(shared_data: Path) -> History:
    """Read the recordings and compute the features with pandas alone."""
    bars, funding, features = [], [], []
    for coin, symbol in COINS.items():
        frame = pd.read_csv(shared_data / "ohlcv" / f"binance_usdm_{symbol}USDT_1d_2024-2026.csv").iloc[:-1]
        frame["open_time"] = pd.to_datetime(frame["timestamp"], unit="ms", utc=True)
        bars.append(frame.assign(asset=coin, volume_base=frame["volume"]))
        paid = pd.read_csv(shared_data / "funding" / f"binance_usdm_{symbol}USDT_funding_2025-2026.csv")
        paid["settled_at"] = pd.to_datetime(paid["funding_time"], utc=True)
        funding.append(paid.assign(asset=coin))
        days = pd.DatetimeIndex(frame["open_time"].dt.tz_localize(None)).as_unit("us")
        close, volume = (pd.Series(frame[name].to_numpy(np.float64), days) for name in ("close", "volume"))
        returns, vix = logs(close).diff(), known_vix(shared_data / "macro" / "VIXCLS.csv", days)
        fear = logs(vix).diff()
        features.append(
            pd.DataFrame(
                {
                    "coin": coin,
                    "close_usd": close,
                    "return_pct": close.pct_change() * 100,
                    "volatility_30d_ann_pct": returns.rolling(30).std() * np.sqrt(365) * 100,
                    "drawdown_90d_pct": (1 - close / close.rolling(90, min_periods=1).max()) * 100,
                    "vix": vix,
                    "vix_correlation": returns.shift(1).rolling(30).corr(fear).clip(-1, 1),
                    "vix_correlation_pairs": (returns.shift(1) * fear).rolling(30, min_periods=0).count(),
                    "volume_zscore_30d": (volume - volume.rolling(30).mean()) / volume.rolling(30).std(),
                }
            ).rename_axis("date")
        )
    table = pd.concat(features).reset_index()
    known = table["date"].dt.tz_localize("UTC") + pd.Timedelta(days=1, minutes=1)
    return History(table.assign(available_at=known.astype("datetime64[us, UTC]")), pd.concat(bars), pd.concat(funding))


def decisions(name: str, history: History) -> pd.DataFrame:
    """What the strategy says from the close before the window on; buy-and-hold keeps a tenth in cash for its fees."""
    strategy = STRATEGIES[name]
    if name == "buy_hold":
        strategy = type(strategy)(strategy.config.model_copy(update={"invested_fraction": 0.9}))
    start: date = (FIRST - DAY).date()
    return decide(strategy, Market({FEATURES: history.features}), start, LAST.date())


@dataclass
class Book:
    """One account."""

    cash: float
    units: dict[str, float]
    funding: float = 0.0

    def settle(self, history: dict[tuple[str, datetime], float], opens: dict[str, float], time: datetime) -> None:
        """Longs pay a positive rate, at the open of the day."""
        for coin, units in self.units.items():
            paid = units * opens[coin] * history[coin, time]
            self.cash -= paid
            self.funding -= paid

    def trade(self, coin: str, units: float, price: float) -> None:
        """Move to ``units``, a basis point worse than ``price``."""
        change = units - self.units[coin]
        filled = price * (1 + SLIP if change > 0 else 1 - SLIP)
        self.cash -= change * filled + abs(change) * filled * FEE
        self.units[coin] = units


def derive(signals: pd.DataFrame, history: History) -> tuple[list[float], Book]:
    """Trade the signals with plain Python; return equity at each close, the capital first, and the book."""
    bars, paid = history.bars.to_dict("records"), history.funding.to_dict("records")
    opens = {(row["asset"], row["open_time"]): row["open"] for row in bars}
    closes = {(row["asset"], row["open_time"]): row["close"] for row in bars}
    rates = {(row["asset"], row["settled_at"]): row["funding_rate"] for row in paid}
    sides = {"long": 1.0, "short": -1.0, "flat": 0.0}
    said = {
        (row["asset"], row["date"].tz_localize("UTC")): sides[row["direction"]] * row["position_size"]
        for row in signals.to_dict("records")
    }
    book, targets, equity = Book(CAPITAL, dict.fromkeys(COINS, 0.0)), dict.fromkeys(COINS, 0.0), [CAPITAL]
    day = pd.Timestamp(FIRST)
    while day < LAST:
        prices = {coin: opens[coin, day] for coin in COINS}
        book.settle(rates, prices, day)
        for coin in COINS:
            target, last = said[coin, day - DAY], targets[coin]
            if target == last == 0.0 or (target * last > 0 and abs(target - last) <= THRESHOLD):
                continue
            targets[coin] = target
            book.trade(coin, target * equity[-1] / closes[coin, day - DAY], prices[coin])
        for hours in (8, 16):
            book.settle(rates, prices, day + timedelta(hours=hours))
        equity.append(book.cash + sum(book.units[coin] * closes[coin, day] for coin in COINS))
        day += DAY
    return equity, book


@pytest.fixture(scope="module")
def results(history: History) -> dict[str, tuple[BacktestResult, list[float], Book]]:
    """Both results of every strategy."""
    found = {}
    for name in STRATEGIES:
        signals = decisions(name, history)
        result = backtest_signals(signals, history.bars, TERMS, funding=history.funding, window=Window(FIRST, LAST))
        found[name] = result, *derive(signals, history)
    return found


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_close_equals_the_second_derivation(
    name: str, results: dict[str, tuple[BacktestResult, list[float], Book]]
) -> None:
    """272 closes after the opening balance, to a billionth; funding to the same."""
    result, equity, book = results[name]
    assert result.base.curves.equity.tolist() == pytest.approx(equity, rel=1e-9)
    assert result.metrics.funding_usd == pytest.approx(book.funding, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_reviewed_numbers(name: str, results: dict[str, tuple[BacktestResult, list[float], Book]]) -> None:
    """Return and drawdown from the derived curve; a change here is a change of a rule."""
    result, equity, book = results[name]
    gained, fall, trades, funding = REVIEWED[name]
    curve = np.array(equity)
    assert 100 * (curve[-1] / curve[0] - 1) == pytest.approx(gained, abs=5e-5)
    assert 100 * (1 - curve / np.maximum.accumulate(curve)).max() == pytest.approx(fall, abs=5e-5)
    assert book.funding == pytest.approx(funding, abs=0.005)
    assert result.metrics.total_return_pct == pytest.approx(gained, abs=5e-5)
    assert result.metrics.max_drawdown_pct == pytest.approx(fall, abs=5e-5)
    assert result.metrics.trades == trades


@pytest.mark.parametrize("name", STRATEGIES)
def test_worse_costs_are_worse(name: str, results: dict[str, tuple[BacktestResult, list[float], Book]]) -> None:
    """The pessimistic run trades the same signals and ends lower, unless nothing was traded."""
    result, _, _ = results[name]
    base, worse = result.metrics, result.pessimistic.metrics
    if base.commission_usd:
        assert worse.end_equity_usd < base.end_equity_usd
        assert worse.commission_usd > base.commission_usd
