"""Daily bars: the venue's own candle, else the hours with their coverage, and never a running day."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import pytest

Add = Callable[..., None]
Build = Callable[[str, str], None]
Select = Callable[[str], list[dict[str, Any]]]
DAY_END_AND_DELAY = datetime(2024, 1, 2, 0, 1, tzinfo=UTC)


def days(select: Select) -> list[dict[str, Any]]:
    return select("select * from marts.ohlcv_daily order by coin, date")


def test_venues_daily_candle_comes_first(kline: Add, build: Build, select: Select) -> None:
    """With a closed daily candle the hours do not matter."""
    for hour in range(24):
        kline(f"2024-01-01 {hour:02}:00", 100.0 + hour)
    kline("2024-01-01", 42.0, interval="1d", open=40.0, high=45.0, low=39.0, volume_base=9.0, volume_quote_usd=380.0)
    build("2024-01-01", "2024-01-02")
    assert days(select) == [
        {
            "coin": "bitcoin",
            "date": date(2024, 1, 1),
            "open": 40.0,
            "high": 45.0,
            "low": 39.0,
            "close": 42.0,
            "volume_base": 9.0,
            "volume_quote_usd": 380.0,
            "volume_24h_usd": None,
            "source": "binance",
            "ohlc_method": "exchange",
            "hours_covered": 24,
            "available_at": DAY_END_AND_DELAY,
        }
    ]


def test_24_hours_make_a_day(kline: Add, build: Build, select: Select) -> None:
    """Without a daily candle 24 hourly ones are aggregated: first open, extremes, last close, summed volumes."""
    for hour in range(24):
        price = 100.0 + hour
        kline(f"2024-01-01 {hour:02}:00", price, open=price - 1, high=price + 2, low=price - 3, volume_base=2.0)
    build("2024-01-01", "2024-01-02")
    (day,) = days(select)
    assert [day[name] for name in ("open", "high", "low", "close")] == [99.0, 125.0, 97.0, 123.0]
    assert (day["volume_base"], day["volume_quote_usd"]) == (48.0, 24.0)
    assert (day["source"], day["ohlc_method"], day["hours_covered"]) == ("binance", "exchange_hourly", 24)
    assert day["available_at"] == DAY_END_AND_DELAY


def test_missing_hours_show_and_take_the_volume(kline: Add, build: Build, select: Select) -> None:
    """Fewer than 24 candles are a partial day: prices with their coverage, but no volume of the day."""
    for hour in (0, 5, 23):
        kline(f"2024-01-01 {hour:02}:00", 100.0 + hour)
    build("2024-01-01", "2024-01-02")
    (day,) = days(select)
    assert (day["ohlc_method"], day["hours_covered"]) == ("exchange_hourly_partial", 3)
    assert (day["open"], day["close"]) == (100.0, 123.0)
    assert (day["volume_base"], day["volume_quote_usd"]) == (None, None)


def test_one_sampled_hour_makes_a_sampled_day(kline: Add, sample: Add, build: Build, select: Select) -> None:
    """A day is as good as its weakest hour; hours of several origins are a mixed source."""
    for hour in range(23):
        kline(f"2024-01-01 {hour:02}:00", 100.0)
    sample("2024-01-01 23:20", 90.0, 7.0)
    sample("2024-01-02 00:00", 91.0)
    build("2024-01-01", "2024-01-02")
    (day,) = days(select)
    assert (day["source"], day["ohlc_method"], day["hours_covered"]) == ("mixed", "sampled", 24)
    assert (day["close"], day["volume_24h_usd"], day["volume_quote_usd"]) == (90.0, 7.0, None)


def test_trailing_volume_is_the_last_hours_only(sample: Add, build: Build, select: Select) -> None:
    """A trailing volume from earlier in the day says more about yesterday, so it is not the day's."""
    sample("2024-01-01 03:00", 10.0, 7.0)
    sample("2024-01-02 01:00", 11.0)
    sample("2024-01-02 02:00", 11.0)
    build("2024-01-01", "2024-01-03")
    first = days(select)[0]
    assert (first["date"], first["volume_24h_usd"], first["hours_covered"]) == (date(2024, 1, 1), None, 1)


@pytest.mark.parametrize("hours", [1, 14, 23])
def test_running_day_has_no_bar(kline: Add, build: Build, select: Select, hours: int) -> None:
    """While the last hour has no bar and nothing later is known, the day may still be running."""
    for hour in range(hours):
        kline(f"2024-01-01 {hour:02}:00", 100.0)
    build("2024-01-01", "2024-01-02")
    assert days(select) == []


def test_later_bar_proves_a_day_with_gaps(kline: Add, build: Build, select: Select) -> None:
    """A day whose last hours are missing is known once a later hour is, and no earlier."""
    kline("2024-01-01 20:00", 100.0)
    kline("2024-01-02 06:00", 101.0)
    build("2024-01-01", "2024-01-02")
    build("2024-01-02", "2024-01-03")
    build("2024-01-01", "2024-01-02")
    (day,) = days(select)
    assert (day["hours_covered"], day["available_at"]) == (1, datetime(2024, 1, 2, 7, 1, tzinfo=UTC))


def test_earliest_proof_counts(kline: Add, sample: Add, build: Build, select: Select) -> None:
    """The day is known to be over at the first moment at which any later bar is known, not the first bar's."""
    kline("2024-01-01 20:00", 100.0)
    sample("2024-01-02 00:30", 100.0)
    sample("2024-01-02 03:00", 100.0)
    kline("2024-01-02 01:00", 101.0)
    build("2024-01-01", "2024-01-03")
    assert days(select)[0]["available_at"] == datetime(2024, 1, 2, 2, 1, tzinfo=UTC)


def test_day_waits_for_a_sampled_hour(kline: Add, sample: Add, build: Build, select: Select) -> None:
    """While a sampled hour of the day has no bar yet, the day is not settled, though its last hour is there."""
    for hour in (*range(22), 23):
        kline(f"2024-01-01 {hour:02}:00", 100.0)
    sample("2024-01-01 22:30", 90.0)
    build("2024-01-01", "2024-01-02")
    assert days(select) == []
    sample("2024-01-02 05:00", 91.0)
    build("2024-01-01", "2024-01-02")
    (day,) = days(select)
    assert (day["hours_covered"], day["available_at"]) == (24, datetime(2024, 1, 2, 5, 0, 10, tzinfo=UTC))


def test_coins_do_not_mix(kline: Add, build: Build, select: Select) -> None:
    """Each coin has its own bar, and one coin's bars do not end another's day."""
    kline("2024-01-01", 42.0, interval="1d")
    kline("2024-01-01 05:00", 7.0, coin="ethereum")
    build("2024-01-01", "2024-01-02")
    assert [(day["coin"], day["close"]) for day in days(select)] == [("bitcoin", 42.0)]
