"""The models on real recordings, against numbers computed from the same files in plain Python, without SQL."""

from __future__ import annotations

import csv
import math
import os
import statistics
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pytest

from mts_dagster.settings import REPOSITORY

Rows = list[dict[str, Any]]

RECORDINGS = Path(os.environ.get("MTS_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
pytestmark = [
    pytest.mark.skipif(
        not RECORDINGS.is_dir(), reason=f"no recordings at {RECORDINGS}; set MTS_SHARED_DATA to their folder"
    ),
    pytest.mark.xdist_group("sql_model_recordings"),  # the marts are built once for all tests of this file
]

COINS = {"bitcoin": "BTCUSDT", "ethereum": "ETHUSDT", "binancecoin": "BNBUSDT"}
START, END = date(2024, 1, 10), date(2025, 11, 15)
TOLERANCE = 1e-9


@cache
def daily_candles(symbol: str) -> dict[date, tuple[float, float]]:
    """Close and quote volume a day, without the last candle, which is still running."""
    with (RECORDINGS / "ohlcv" / f"binance_usdm_{symbol}_1d_2024-2026.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[:-1]
    return {
        datetime.fromtimestamp(int(row["timestamp"]) / 1000, UTC).date(): (
            float(row["close"]),
            float(row["quote_volume"]),
        )
        for row in rows
    }


@cache
def macro_values(indicator: str) -> dict[date, float | None]:
    with (RECORDINGS / "macro" / f"{indicator}.csv").open(encoding="utf-8") as file:
        return {
            date.fromisoformat(row["observation_date"]): float(row[indicator]) if row[indicator] else None
            for row in csv.DictReader(file)
            if row["observation_date"] >= "2023-06-01"
        }


@cache
def published_at(day: date) -> datetime:
    """17:00 in Chicago on the next weekday."""
    following = day + timedelta(days=1)
    while following.weekday() > 4:
        following += timedelta(days=1)
    return datetime(following.year, following.month, following.day, 17, tzinfo=ZoneInfo("America/Chicago"))


def decided_at(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1, seconds=60)


def raw_rows() -> tuple[Rows, Rows]:
    klines = [
        {
            "coin": coin,
            "venue": "binance",
            "symbol": symbol,
            "interval": "1d",
            "open_time": datetime(day.year, day.month, day.day, tzinfo=UTC),
            "close_time": decided_at(day) - timedelta(seconds=60),
            **dict.fromkeys(("open", "high", "low", "close"), close),
            "volume_base": 1.0,
            "volume_quote_usd": volume,
            "available_at": decided_at(day),
        }
        for coin, symbol in COINS.items()
        for day, (close, volume) in daily_candles(symbol).items()
    ]
    macro = [
        {
            "indicator": indicator,
            "date": day,
            "value": value,
            "vintage_date": published_at(day).date(),
            "pit_quality": "assumed_lag",
            "available_at": published_at(day).astimezone(UTC),
        }
        for indicator in ("VIXCLS", "DGS10", "DFF")
        for day, value in macro_values(indicator).items()
    ]
    return klines, macro


@pytest.fixture(scope="module")
def built() -> dict[str, Any]:
    return {}


@pytest.fixture
def real(
    built: dict[str, Any],
    new_lake: Callable[[], duckdb.DuckDBPyConnection],
    insert: Callable[[duckdb.DuckDBPyConnection, str, Rows], None],
    build_in: Callable[[duckdb.DuckDBPyConnection, date, date], None],
) -> dict[str, dict[tuple[str, date], dict[str, Any]]]:
    """Rows of the marts built from the recordings, by coin or indicator and day; built once."""
    if not built:
        con = new_lake()
        klines, macro = raw_rows()
        insert(con, "klines", klines)
        insert(con, "macro_data", macro)
        build_in(con, START, END)
        for table, name in [("macro_daily", "indicator"), ("features_daily", "coin")]:
            cursor = con.execute(f"from marts.{table}")
            names = [entry[0] for entry in cursor.description or []]
            rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
            built[table] = {(row[name], row["date"]): row for row in rows}
    return built


def days() -> Iterator[date]:
    for number in range((END - START).days):
        yield START + timedelta(days=number)


def known_values(indicator: str, moment: datetime) -> dict[date, float]:
    return {
        day: value
        for day, value in macro_values(indicator).items()
        if value is not None and published_at(day) <= moment
    }


def same(found: float | None, expected: float | None) -> bool:
    if found is None or expected is None:
        return found is expected
    return math.isclose(found, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


@pytest.mark.parametrize("indicator", ["VIXCLS", "DGS10", "DFF"])
def test_forward_fill(real: dict[str, Any], indicator: str) -> None:
    """Each day carries the last value published by its end, for at most ten days."""
    values = macro_values(indicator)
    wrong = []
    for day in days():
        end = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
        known = max(seen for seen, value in values.items() if value is not None and published_at(seen) <= end)
        expected = values[known] if (day - known).days <= 10 else None
        row = real["macro_daily"][indicator, day]
        if (row["value"], row["observation_date"]) != (expected, known):
            wrong.append((day, expected, row))
    assert wrong == []
    assert len([key for key in real["macro_daily"] if key[0] == indicator]) == (END - START).days


@pytest.mark.parametrize("coin", COINS)
def test_price_features(real: dict[str, Any], coin: str) -> None:
    """Return, volatility, drawdown and volume z-score of every day."""
    candles = daily_candles(COINS[coin])
    closes = {day: close for day, (close, _) in candles.items()}
    wrong = []
    for day in days():
        row = real["features_daily"][coin, day]
        returns = [
            math.log(closes[seen] / closes[seen - timedelta(days=1)])
            for seen in (day - timedelta(days=back) for back in range(30))
            if seen - timedelta(days=1) in closes
        ]
        window = [closes[seen] for seen in (day - timedelta(days=back) for back in range(90)) if seen in closes]
        volumes = [candles[seen][1] for seen in (day - timedelta(days=back) for back in range(30)) if seen in candles]
        expected = {
            "close_usd": closes[day],
            "volatility_30d_ann_pct": statistics.stdev(returns) * math.sqrt(365) * 100 if len(returns) == 30 else None,
            "drawdown_90d_pct": (1 - closes[day] / max(window)) * 100,
            "volume_zscore_30d": (volumes[0] - statistics.mean(volumes)) / statistics.stdev(volumes)
            if len(volumes) == 30
            else None,
        }
        wrong += [(day, name, row[name], value) for name, value in expected.items() if not same(row[name], value)]
    assert wrong == []


@pytest.mark.parametrize("coin", COINS)
def test_vix_and_its_correlation(real: dict[str, Any], coin: str) -> None:
    """The VIX known at each decision, and the correlation over the last 30 steps known then."""
    closes = {day: close for day, (close, _) in daily_candles(COINS[coin]).items()}
    values = [(day, value) for day, value in macro_values("VIXCLS").items() if value is not None]
    wrong = []
    some = 0
    for day in days():
        row = real["features_daily"][coin, day]
        known = [(seen, value) for seen, value in values if published_at(seen) <= decided_at(day)]
        known = [(seen, value) for seen, value in known if seen >= day - timedelta(days=90)]
        pairs = [
            (math.log(closes[later] / closes[earlier]), math.log(value / previous))
            for (earlier, previous), (later, value) in pairwise(known)
            if earlier in closes and later in closes
        ][-30:]
        fresh = (day - known[-1][0]).days <= 10
        correlation = statistics.correlation(*zip(*pairs, strict=True)) if fresh and len(pairs) == 30 else None
        some += correlation is not None
        expected = {"vix": known[-1][1] if fresh else None, "vix_correlation": correlation}
        wrong += [(day, name, row[name], value) for name, value in expected.items() if not same(row[name], value)]
        assert row["vix_correlation_pairs"] == len(pairs)
    assert wrong == []
    assert some > 580
