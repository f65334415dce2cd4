"""Tables for strategies: single rows with known numbers, a seeded market, and one from recorded history."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mts_dagster.lake.read import DTYPES
from mts_dagster.settings import REPOSITORY, Settings, load_settings
from mts_dagster.sql_models import load_project
from mts_dagster.strategies import FEATURES, Market, Strategy, decide

COINS = ("bitcoin", "ethereum", "binancecoin")
SHARED = Path(os.environ.get("MTS_SHARED_DATA", Path(__file__).resolve().parents[4] / "shared" / "data"))
BAR_DELAY = pd.Timedelta(seconds=60)
QUIET: dict[str, float | str | None] = {
    "coin": "bitcoin",
    "close_usd": 100.0,
    "return_pct": 0.0,
    "volatility_30d_ann_pct": 40.0,
    "drawdown_90d_pct": 0.0,
    "vix": 15.0,
    "vix_correlation": 0.0,
    "vix_correlation_pairs": 30,
    "volume_zscore_30d": 0.0,
}

# Tables besides the features: what a row of them holds where a test does not say.
QUIET_TABLES: dict[str, dict[str, object]] = {
    "funding_daily": {
        "long_venue": "binance",
        "short_venue": "bybit",
        "differential_pct_per_year": 0.0,
        "long_hours_covered": 24.0,
        "short_hours_covered": 24.0,
        "fees_bps": 21.0,
    },
    "arbitrage_daily": {
        "kind": "spread",
        "hours_covered": 24.0,
        "opportunities": 0,
        "lasting_opportunities": 0,
        "lifetime_median_ms": 900.0,
        "peak_net_median_bps": 0.5,
        "best_buy_exchange": "bybit",
        "best_sell_exchange": "binance",
    },
    "market_structure_daily": {
        "exchange": "binance",
        "samples": 86_400,
        "hours_covered": 24.0,
        "hours_sampled": 24,
        "hours_bid_heavy": 12,
        "hours_ask_heavy": 12,
        "imbalance_mean": 0.0,
        "liquidity_score_mean": 50.0,
    },
}

Rows = Callable[..., pd.DataFrame]
TableRows = Callable[..., pd.DataFrame]
DecideOne = Callable[..., "pd.Series[Any]"]


def _with_times(frame: pd.DataFrame) -> pd.DataFrame:
    """Daily rows are known a minute after the day's end."""
    known = frame["date"].dt.tz_localize("UTC") + pd.Timedelta(days=1) + BAR_DELAY
    return frame.assign(available_at=known.astype("datetime64[us, UTC]"))


@pytest.fixture(scope="session")
def rows() -> Rows:
    """Build ``features_daily``: consecutive days from 2024-03-01, quiet but for the columns given."""

    def build(first: str = "2024-03-01", **columns: object) -> pd.DataFrame:
        length = max((len(values) for values in columns.values() if isinstance(values, list)), default=1)
        days = pd.date_range(first, periods=length, unit="us")
        return _with_times(pd.DataFrame({"date": days, **QUIET, **columns}, index=range(length)))

    return build


@pytest.fixture(scope="session")
def table_rows() -> TableRows:
    """Build a daily table from what differs from a quiet bitcoin row of 2024-03-01; each is known after its day."""
    models = load_project(REPOSITORY / "dbt_like_sql").models

    def build(name: str, *given: dict[str, object]) -> pd.DataFrame:
        if not given:
            columns = models[name].columns
            return pd.DataFrame({column.name: pd.Series(dtype=DTYPES[column.sql_type]) for column in columns})
        quiet = {"coin": "bitcoin", "date": "2024-03-01", **QUIET_TABLES[name]}
        frame = pd.DataFrame([{**quiet, **row} for row in given])
        return _with_times(frame.assign(date=frame["date"].astype("datetime64[us]")))

    return build


@pytest.fixture(scope="session")
def decide_one(rows: Rows, table_rows: TableRows) -> DecideOne:
    """Let a strategy decide on one bitcoin row, quiet but for the columns given; its other tables are empty."""

    def run(
        strategy: Strategy[Any], tables: dict[str, pd.DataFrame] | None = None, **columns: float | None
    ) -> pd.Series[Any]:
        empty = {name: table_rows(name) for name in strategy.inputs if name != FEATURES}
        features = rows(**{name: [value] for name, value in columns.items()})
        market = Market({**empty, **(tables or {}), FEATURES: features})
        decisions = decide(strategy, market, date(2024, 3, 1), date(2024, 3, 2))
        assert len(decisions) == 1
        return decisions.iloc[0]

    return run


@pytest.fixture(scope="session")
def settings() -> Settings:
    """The settings as delivered, whatever the environment says."""
    return load_settings(strategy_folders=())


def _features(closes: pd.DataFrame, volumes: pd.DataFrame, vix: pd.Series[float]) -> pd.DataFrame:
    """Features of one day a row and one coin a column; VIX of a day is known from the next day on."""
    known_vix = vix.reindex(closes.index).ffill().shift(1)
    fear = np.log(known_vix).diff()
    parts = []
    for coin in closes:
        close, volume = closes[coin], volumes[coin]
        returns = np.log(close).diff()
        correlation = returns.shift(1).rolling(30).corr(fear)
        parts.append(
            pd.DataFrame(
                {
                    "coin": coin,
                    "close_usd": close,
                    "return_pct": close.pct_change() * 100,
                    "volatility_30d_ann_pct": returns.rolling(30).std() * np.sqrt(365) * 100,
                    "drawdown_90d_pct": (1 - close / close.rolling(90, min_periods=1).max()) * 100,
                    "vix": known_vix,
                    "vix_correlation": correlation.clip(-1, 1),
                    "vix_correlation_pairs": (returns.shift(1) * fear).rolling(30, min_periods=0).count(),
                    "volume_zscore_30d": (volume - volume.rolling(30).mean()) / volume.rolling(30).std(),
                }
            ).rename_axis("date")
        )
    return _with_times(pd.concat(parts).reset_index())


def _invented_tables(days: pd.DatetimeIndex) -> dict[str, pd.DataFrame]:
    """Funding, arbitrage and books of every day and coin but some; each has times that are worth a position."""
    generator = np.random.default_rng(11)
    index = pd.MultiIndex.from_product([days, COINS], names=["date", "coin"])
    frame = index.to_frame(index=False)[generator.random(len(index)) > 0.05].reset_index(drop=True)
    count, wave = len(frame), np.sin(np.arange(len(frame)) / 60)
    first_cheaper = wave + generator.normal(0, 0.2, count) > 0
    covered = np.where(generator.random(count) > 0.05, 24.0, 9.0)
    funding = frame.assign(
        long_venue=np.where(first_cheaper, "binance", "bybit"),
        short_venue=np.where(first_cheaper, "bybit", "binance"),
        differential_pct_per_year=np.abs(wave) * 25 + generator.random(count) * 2,
        long_hours_covered=covered,
        short_hours_covered=24.0,
        fees_bps=21.0,
    )
    opportunities = generator.integers(0, 80, count)
    arbitrage = frame.assign(
        kind="spread",
        hours_covered=covered,
        opportunities=opportunities,
        lasting_opportunities=opportunities // 2,
        lifetime_median_ms=900.0,
        peak_net_median_bps=generator.random(count) * 4,
        best_buy_exchange="bybit",
        best_sell_exchange="binance",
    )
    books = [
        frame.assign(
            exchange=exchange,
            samples=generator.integers(40_000, 86_400, count),
            hours_covered=covered,
            hours_sampled=24,
            hours_bid_heavy=np.where(wave > 0, 20, 4),
            hours_ask_heavy=np.where(wave > 0, 4, 20),
            imbalance_mean=np.clip(wave * 0.6 + generator.normal(0, 0.1, count), -1, 1),
            liquidity_score_mean=generator.random(count) * 80,
        )
        for exchange in ("binance", "bybit")
    ]
    tables = {"funding_daily": funding, "arbitrage_daily": arbitrage, "market_structure_daily": pd.concat(books)}
    return {name: _with_times(table) for name, table in tables.items()}


@pytest.fixture(scope="session")
def market() -> Market:
    """A seeded market of 300 days in which every strategy finds days to trade."""
    generator = np.random.default_rng(7)
    days = pd.date_range("2024-01-01", periods=300, unit="us")
    shock = generator.normal(0, 0.06, (300, 1)) * np.repeat([0.4, 1.5, 0.7], 100)[:, None]
    steps = shock * 0.6 + generator.normal(0, 0.02, (300, 3))
    closes = pd.DataFrame(np.exp(np.cumsum(steps, axis=0)) * [40_000, 2_500, 300], days, list(COINS))
    volumes = pd.DataFrame(generator.lognormal(20, 0.8, (300, 3)), days, list(COINS))
    fear = shock[:, 0] * np.repeat([-0.25, -0.25, 0.25], 100) + generator.normal(0, 0.005, 300)
    vix = pd.Series(22 * np.exp(np.cumsum(fear)), days)
    return Market({FEATURES: _features(closes, volumes, vix), **_invented_tables(days)})


@pytest.fixture(scope="session")
def bars(market: Market) -> pd.DataFrame:
    """Daily bars of the seeded market; a bar opens at the close before it."""
    closes = market.frames[FEATURES].sort_values(["coin", "date"])
    opens = closes.groupby("coin")["close_usd"].shift(1).fillna(closes["close_usd"])
    return pd.DataFrame(
        {
            "open_time": closes["date"].dt.tz_localize("UTC"),
            "asset": closes["coin"],
            "open": opens,
            "high": np.maximum(opens, closes["close_usd"]),
            "low": np.minimum(opens, closes["close_usd"]),
            "close": closes["close_usd"],
            "volume_base": 1.0,
        }
    )


@pytest.fixture(scope="session")
def recorded_market() -> Market:
    """BTC, ETH and BNB with VIX from 2024-01-10 to 2025-06-30, from the recordings."""
    if not SHARED.is_dir():
        pytest.skip(f"recorded data not found at {SHARED}; set MTS_SHARED_DATA")
    bars = {
        coin: pd.read_csv(SHARED / "ohlcv" / f"binance_usdm_{symbol}USDT_1d_2024-2026.csv")
        for coin, symbol in zip(COINS, ("BTC", "ETH", "BNB"), strict=True)
    }
    for frame in bars.values():
        frame.index = pd.to_datetime(frame["timestamp"], unit="ms").astype("datetime64[us]")
    closes, volumes = (
        pd.DataFrame({coin: frame[column].astype(float) for coin, frame in bars.items()}).truncate(after="2025-06-30")
        for column in ("close", "volume")
    )
    vix = pd.read_csv(SHARED / "macro" / "VIXCLS.csv", index_col=0, parse_dates=True)["VIXCLS"].dropna()
    return Market({FEATURES: _features(closes, volumes, vix)})
