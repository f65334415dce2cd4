"""What holds for any input: a range equals its days, truncated history equals full history."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Rows = list[dict[str, Any]]
NewLake = Callable[[], duckdb.DuckDBPyConnection]
Insert = Callable[[duckdb.DuckDBPyConnection, str, Rows], None]
BuildIn = Callable[[duckdb.DuckDBPyConnection, date, date], None]

FIRST = datetime(2024, 1, 1, tzinfo=UTC)
DAYS = 4
MARTS = (
    "crypto_ohlcv",
    "ohlcv_daily",
    "macro_daily",
    "features_daily",
    "funding_daily",
    "arbitrage_daily",
    "market_structure_daily",
)
SCHEMAS = {"arbitrage_opportunities": "live", "market_structure": "live", "bid_ask_spreads": "live"}
PROPERTY = settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)

price = st.floats(1, 1000).map(lambda value: round(value, 3))
minutes = st.integers(0, DAYS * 24 * 60 - 1)
hours = st.integers(0, DAYS * 24 - 1)


def kline_row(coin: str, venue: str, interval: str, opened: datetime, value: float) -> dict[str, Any]:
    closed = opened + (timedelta(days=1) if interval == "1d" else timedelta(hours=1))
    return {
        "coin": coin,
        "venue": venue,
        "symbol": "S",
        "interval": interval,
        "open_time": opened,
        "close_time": closed,
        **dict.fromkeys(("open", "high", "low", "close", "volume_base", "volume_quote_usd"), value),
        "available_at": closed + timedelta(seconds=60),
    }


def sample_row(coin: str, minute: int, value: float) -> dict[str, Any]:
    moment = FIRST + timedelta(minutes=minute)
    known = moment + timedelta(seconds=10)
    return {"coin": coin, "sampled_at": moment, "price_usd": value, "volume_24h_usd": value, "available_at": known}


def vintage_row(indicator: str, day: int, lag: int, value: float | None) -> dict[str, Any]:
    observed = FIRST.date() + timedelta(days=day)
    known = FIRST + timedelta(days=day + lag, hours=22)
    row = {"indicator": indicator, "date": observed, "value": value, "pit_quality": "vintage"}
    return row | {"vintage_date": known.date(), "available_at": known}


def settlement_row(venue: str, hour: int, rate: float, interval_hours: float | None) -> dict[str, Any]:
    moment = FIRST + timedelta(hours=hour)
    row = {"coin": "bitcoin", "venue": venue, "symbol": "S", "settled_at": moment, "funding_rate": rate}
    row |= {"interval_hours": interval_hours, "kind": "special" if interval_hours is None else "regular"}
    return row | {"available_at": moment + timedelta(seconds=60)}


def book_row(exchange: str, minute: int, value: float) -> dict[str, Any]:
    moment = FIRST + timedelta(minutes=minute)
    row = {"timestamp": moment, "exchange": exchange, "symbol": "S", "coin": "bitcoin", "imbalance": value / 1000}
    row |= {"liquidity_score": value / 10, "bid_depth_10bps_usd": value, "ask_depth_10bps_usd": value}
    return row | {"impact_buy_10k_bps": value, "impact_sell_10k_bps": value, "available_at": moment}


def spread_row(exchange: str, minute: int, value: float) -> dict[str, Any]:
    moment = FIRST + timedelta(minutes=minute)
    row = {"timestamp": moment, "exchange": exchange, "symbol": "S", "coin": "bitcoin"}
    return row | {"spread_bps": value, "available_at": moment}


def opportunity_row(buy: str, minute: int, value: float, feasible: bool) -> dict[str, Any]:
    moment = FIRST + timedelta(minutes=minute)
    row: dict[str, Any] = {"opportunity_id": f"{buy} {minute}", "kind": "spread", "symbol": "S", "coin": "bitcoin"}
    row |= {"buy_exchange": buy, "sell_exchange": "okx", "opened_at": moment, "lifetime_ms": value}
    row |= {"peak_net_bps": value, "peak_net_usd": value, "feasible": feasible}
    return row | {"available_at": moment + timedelta(seconds=30)}


coins = st.sampled_from(["bitcoin", "tether"])
hourly = st.builds(
    lambda coin, venue, hour, value: kline_row(coin, venue, "1h", FIRST + timedelta(hours=hour), value),
    coins,
    st.sampled_from(["binance", "bybit"]),
    hours,
    price,
)
daily = st.builds(
    lambda venue, day, value: kline_row("bitcoin", venue, "1d", FIRST + timedelta(days=day), value),
    st.sampled_from(["binance", "bybit"]),
    st.integers(0, DAYS - 1),
    price,
)
klines = st.lists(hourly | daily, max_size=40, unique_by=lambda row: tuple(row.values())[:5])
samples = st.lists(
    st.builds(sample_row, coins, minutes, price),
    max_size=40,
    unique_by=lambda row: (row["coin"], row["sampled_at"]),
)
vintages = st.lists(
    st.builds(
        vintage_row,
        st.sampled_from(["VIXCLS", "DFF"]),
        st.integers(-3, DAYS),
        st.integers(0, 3),
        st.none() | price,
    ),
    max_size=15,
    unique_by=lambda row: (row["indicator"], row["date"], row["vintage_date"]),
)
venues = st.sampled_from(["binance", "bybit"])
settlements = st.lists(
    st.builds(settlement_row, venues, hours, st.floats(-1e-3, 1e-3), st.sampled_from([None, 1.0, 8.0])),
    max_size=30,
    unique_by=lambda row: (row["venue"], row["settled_at"]),
)
books, spreads, opportunities = (
    st.lists(build, max_size=30, unique_by=lambda row: tuple(row.values())[:2])
    for build in (
        st.builds(book_row, venues, minutes, price),
        st.builds(spread_row, venues, minutes, price),
        st.builds(opportunity_row, venues, minutes, price, st.booleans()),
    )
)
history = st.fixed_dictionaries(
    {
        "klines": klines,
        "price_points": samples,
        "macro_data": vintages,
        "funding_rates": settlements,
        "market_structure": books,
        "bid_ask_spreads": spreads,
        "arbitrage_opportunities": opportunities,
    }
)


def fill(con: duckdb.DuckDBPyConnection, insert: Insert, raw: dict[str, Rows]) -> None:
    for table, rows in raw.items():
        con.execute(f"delete from {SCHEMAS.get(table, 'raw')}.{table}")
        insert(con, table, rows)


def contents(con: duckdb.DuckDBPyConnection, until: datetime | None = None) -> dict[str, list[tuple[Any, ...]]]:
    """Rows of all marts, to the last bit; with ``until`` only those known by then."""
    known = f"where available_at <= '{until}'" if until else ""
    return {table: con.execute(f"from marts.{table} {known} order by all").fetchall() for table in MARTS}


@PROPERTY
@given(raw=history, cut=st.integers(1, DAYS - 1))
def test_a_range_equals_its_days(
    new_lake: NewLake, insert: Insert, build_in: BuildIn, raw: dict[str, Rows], cut: int
) -> None:
    """One window, two windows, or one window a day: the same rows."""
    first, last = FIRST.date(), FIRST.date() + timedelta(days=DAYS)
    bounds = [
        [first, last],
        [first, first + timedelta(days=cut), last],
        [first + timedelta(days=number) for number in range(DAYS + 1)],
    ]
    results = []
    for days in bounds:
        con = new_lake()
        fill(con, insert, raw)
        # Hours first: a day may be proven over by a bar of the day after it.
        for _ in range(2):
            for start, end in pairwise(days):
                build_in(con, start, end)
        results.append(contents(con))
    assert results[0] == results[1] == results[2]


@PROPERTY
@given(raw=history, known_minutes=st.integers(24 * 60, DAYS * 24 * 60 + 10))
def test_truncated_history_gives_the_same_rows(
    new_lake: NewLake, insert: Insert, build_in: BuildIn, raw: dict[str, Rows], known_minutes: int
) -> None:
    """What was known at a moment is the same whether or not later data is there."""
    moment = FIRST + timedelta(minutes=known_minutes)
    full, truncated = new_lake(), new_lake()
    fill(full, insert, raw)
    past = {table: [row for row in rows if row["available_at"] <= moment] for table, rows in raw.items()}
    fill(truncated, insert, past)
    for con in (full, truncated):
        build_in(con, FIRST.date(), FIRST.date() + timedelta(days=DAYS))
    assert contents(full, moment) == contents(truncated, moment)


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata"])
def test_session_zone_changes_nothing(new_lake: NewLake, insert: Insert, build_in: BuildIn, zone: str) -> None:
    """Days and hours are UTC's, also where the session's zone has summer time or half hours."""
    # The days around the change to summer time in New York.
    start = datetime(2024, 3, 9, tzinfo=UTC)
    raw = {
        "klines": [
            kline_row("bitcoin", "binance", "1h", start + timedelta(hours=hour), 1.0 + hour) for hour in range(72)
        ],
        "price_points": [
            row
            | {
                "sampled_at": row["sampled_at"] + (start - FIRST),
                "available_at": row["available_at"] + (start - FIRST),
            }
            for row in (sample_row("tether", minute, 1.0) for minute in range(0, 72 * 60, 25))
        ],
        "macro_data": [vintage_row("VIXCLS", (start - FIRST).days + day, 1, 20.0 + day) for day in range(-2, 3)],
        "funding_rates": [
            settlement_row(venue, (start - FIRST).days * 24 + hour, rate, 8.0)
            for venue, rate in (("binance", 1e-4), ("bybit", 2e-4))
            for hour in range(0, 72, 8)
        ],
        "market_structure": [
            book_row(exchange, (start - FIRST).days * 24 * 60 + minute, 1.0 + minute)
            for exchange in ("binance", "bybit")
            for minute in range(0, 72 * 60, 25)
        ],
    }
    results = []
    for name in ("UTC", zone):
        con = new_lake()
        con.execute(f"set timezone = '{name}'")
        fill(con, insert, raw)
        build_in(con, start.date(), start.date() + timedelta(days=3))
        coverage = con.execute("from marts.coverage_daily order by all").fetchall()
        results.append((contents(con), coverage))
    # Aware moments compare by instant.
    assert results[0] == results[1]
    assert [len(rows) for rows in results[0][0].values()] == [72 + 71, 5, 3, 5, 3, 3, 6]
