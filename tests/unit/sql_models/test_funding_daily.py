"""The carry of hedged pairs by day: annual rates from settlements of any interval, and what is left after fees."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import pytest

from mts_realtime.analytics.funding import FundingQuote, compare

Add = Callable[..., None]
Build = Callable[[str, str], None]
Select = Callable[[str], list[dict[str, Any]]]


def test_a_pair_of_a_day(settle: Add, build: Build, select: Select) -> None:
    """Binance pays 3 x 0.0001 in 24 h: 10.95 % a year; Bybit 3 x 0.0003: 32.85 %. The pair earns 21.9 %.

    Fees are 2 x (5.0 + 5.5) = 21 bps. 21.9 % a year are 0.25 bps an hour: 6 bps in a day, 84 hours for the fees.
    """
    for hour in ("00", "08", "16"):
        settle("binance", f"2024-01-05 {hour}:00", 0.0001)
        settle("bybit", f"2024-01-05 {hour}:00", 0.0003)
    build("2024-01-05", "2024-01-06")
    (row,) = select("select * from marts.funding_daily")
    assert row == {
        "coin": "bitcoin",
        "date": date(2024, 1, 5),
        "long_venue": "binance",
        "short_venue": "bybit",
        "long_rate_pct_per_year": pytest.approx(10.95),
        "short_rate_pct_per_year": pytest.approx(32.85),
        "differential_pct_per_year": pytest.approx(21.9),
        "long_settlements": 3,
        "short_settlements": 3,
        "long_hours_covered": 24.0,
        "short_hours_covered": 24.0,
        "fees_bps": 21.0,
        "holding_hours": 24.0,
        "expected_net_bps": pytest.approx(6.0 - 21.0),
        "break_even_hours": pytest.approx(84.0),
        "available_at": datetime(2024, 1, 6, 0, 1, tzinfo=UTC),
    }


def test_intervals_may_differ(settle: Add, build: Build, select: Select) -> None:
    """24 hourly rates of 0.00001 are 8.76 % a year, less than 3 of 0.0001 for 8 hours each."""
    for hour in range(24):
        settle("bybit", f"2024-01-05 {hour:02}:00", 0.00001, 1.0)
    for hour in (0, 8, 16):
        settle("binance", f"2024-01-05 {hour:02}:00", 0.0001)
    build("2024-01-05", "2024-01-06")
    (row,) = select("select * from marts.funding_daily")
    assert (row["long_venue"], row["long_settlements"]) == ("bybit", 24)
    assert row["long_rate_pct_per_year"] == pytest.approx(8.76)


def test_a_changed_interval_within_the_day(settle: Add, build: Build, select: Select) -> None:
    """0.0008 for 8 hours and 0.0001 for one: 0.0009 in 9 hours are 87.6 % a year, and 9 hours are covered."""
    settle("binance", "2024-01-05 00:00", 0.0008, 8.0)
    settle("binance", "2024-01-05 01:00", 0.0001, 1.0)
    settle("bybit", "2024-01-05 00:00", 0.0)
    build("2024-01-05", "2024-01-06")
    (row,) = select("select * from marts.funding_daily")
    assert row["short_rate_pct_per_year"] == pytest.approx(87.6)
    assert (row["short_hours_covered"], row["long_hours_covered"]) == (9.0, 8.0)


def test_special_settlements_and_unknown_intervals_do_not_count(settle: Add, build: Build, select: Select) -> None:
    """A dividend of 1 % would be a carry of 400 % a year."""
    settle("binance", "2024-01-05 00:00", 0.0002)
    settle("binance", "2024-01-05 13:30", -0.01, None, kind="special")
    settle("binance", "2024-01-05 16:00", 0.5, None)
    settle("bybit", "2024-01-05 00:00", 0.0001)
    build("2024-01-05", "2024-01-06")
    (row,) = select("select * from marts.funding_daily")
    assert (row["short_venue"], row["short_settlements"]) == ("binance", 1)
    assert row["short_rate_pct_per_year"] == pytest.approx(21.9)


def test_negative_rates_earn_on_the_long_side(settle: Add, build: Build, select: Select) -> None:
    """Shorts pay where the rate is negative: the pair is long there, and the difference is the sum of both."""
    settle("binance", "2024-01-05 00:00", -0.0001)
    settle("bybit", "2024-01-05 00:00", 0.0001)
    build("2024-01-05", "2024-01-06")
    (row,) = select("select * from marts.funding_daily")
    assert (row["long_venue"], row["differential_pct_per_year"]) == ("binance", pytest.approx(21.9))


def test_equal_rates_are_one_row_that_never_breaks_even(settle: Add, build: Build, select: Select) -> None:
    """A pair has one row a day, whatever its order."""
    settle("bybit", "2024-01-05 00:00", 0.0001)
    settle("binance", "2024-01-05 00:00", 0.0001)
    build("2024-01-05", "2024-01-06")
    (row,) = select("select * from marts.funding_daily")
    assert (row["long_venue"], row["differential_pct_per_year"], row["break_even_hours"]) == ("binance", 0.0, None)


def test_one_exchange_alone_is_no_pair(settle: Add, build: Build, select: Select) -> None:
    """Nothing to hedge with."""
    settle("binance", "2024-01-05 00:00", 0.0001)
    build("2024-01-05", "2024-01-06")
    assert select("select * from marts.funding_daily") == []


def test_midnight_belongs_to_the_day_that_begins(settle: Add, build: Build, select: Select) -> None:
    """The settlement of 00:00 is for the hours before it, and is known when the day before has closed."""
    for venue in ("binance", "bybit"):
        settle(venue, "2024-01-06 00:00", 0.0001)
    build("2024-01-05", "2024-01-07")
    assert [row["date"] for row in select("select date from marts.funding_daily")] == [date(2024, 1, 6)]


@pytest.mark.parametrize(("binance", "bybit"), [(0.0001, 0.0003), (0.0002, -0.0001), (-0.0003, -0.0001)])
def test_it_says_what_the_live_analytics_say(
    settle: Add, build: Build, select: Select, binance: float, bybit: float
) -> None:
    """Legs, differential, fees and break-even of a day of equal rates are those of the live comparison."""
    for hour in (0, 8, 16):
        settle("binance", f"2024-01-05 {hour:02}:00", binance)
        settle("bybit", f"2024-01-05 {hour:02}:00", bybit)
    build("2024-01-05", "2024-01-06")
    (row,) = select("select * from marts.funding_daily")
    here, there = (
        FundingQuote(exchange=name, rate=rate, interval_hours=8.0, hours_to_settlement=8.0, taker_fee_bps=fee)
        for name, rate, fee in (("binance", binance, 5.0), ("bybit", bybit, 5.5))
    )
    live = compare(here, there, holding_hours=24.0)
    assert (row["long_venue"], row["short_venue"]) == (live.long_exchange, live.short_exchange)
    assert row["differential_pct_per_year"] == pytest.approx(live.differential_pct)
    assert row["fees_bps"] == live.fees_bps
    assert row["expected_net_bps"] == pytest.approx(live.net_bps)
    assert row["break_even_hours"] == pytest.approx(live.break_even_hours)
