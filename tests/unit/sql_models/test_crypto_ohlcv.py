"""Hourly bars: which source is taken, what a sampled bar is made of, and when an hour counts as over."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

Add = Callable[..., None]
Build = Callable[[str, str], None]
Select = Callable[[str], list[dict[str, Any]]]


def bars(select: Select) -> list[dict[str, Any]]:
    return select("select * from marts.crypto_ohlcv order by coin, open_time")


def test_candle_is_taken_as_it_is(kline: Add, build: Build, select: Select) -> None:
    """A venue's closed hourly candle becomes the bar, with its volumes and its availability."""
    kline("2024-01-01 05:00", 42.0, open=40.0, high=44.0, low=39.0, volume_base=3.0, volume_quote_usd=125.0, trades=7)
    build("2024-01-01", "2024-01-02")
    assert bars(select) == [
        {
            "coin": "bitcoin",
            "open_time": datetime(2024, 1, 1, 5, tzinfo=UTC),
            "close_time": datetime(2024, 1, 1, 6, tzinfo=UTC),
            "open": 40.0,
            "high": 44.0,
            "low": 39.0,
            "close": 42.0,
            "volume_base": 3.0,
            "volume_quote_usd": 125.0,
            "volume_24h_usd": None,
            "trades": 7,
            "source": "binance",
            "ohlc_method": "exchange",
            "available_at": datetime(2024, 1, 1, 6, 1, tzinfo=UTC),
        }
    ]


@pytest.mark.parametrize(
    ("venues", "source", "close"),
    [(("binance", "bybit"), "binance", 1.0), (("bybit",), "bybit", 2.0), (("binance",), "binance", 1.0)],
)
def test_binance_comes_before_bybit(
    kline: Add, build: Build, select: Select, venues: tuple[str, ...], source: str, close: float
) -> None:
    """Binance's candle is taken where both venues have one, Bybit's where it stands alone."""
    for venue in venues:
        kline("2024-01-01 05:00", {"binance": 1.0, "bybit": 2.0}[venue], venue=venue)
    build("2024-01-01", "2024-01-02")
    assert [(bar["source"], bar["close"]) for bar in bars(select)] == [(source, close)]


def test_daily_candles_are_no_hours(kline: Add, build: Build, select: Select) -> None:
    """A candle of another length never becomes an hourly bar."""
    kline("2024-01-01 00:00", 42.0, interval="1d")
    build("2024-01-01", "2024-01-02")
    assert bars(select) == []


def test_sampled_bar(sample: Add, build: Build, select: Select) -> None:
    """Samples in [hour, hour + 1) give first, highest, lowest and last price, flagged, without traded volume."""
    for minute, price, volume in [("00:00", 10.0, 1.0), ("20:00", 13.0, 2.0), ("59:59", 11.0, 3.0)]:
        sample(f"2024-01-01 05:{minute}", price, volume)
    sample("2024-01-01 06:00:00", 99.0)
    build("2024-01-01", "2024-01-02")
    (bar,) = bars(select)
    assert [bar[name] for name in ("open", "high", "low", "close")] == [10.0, 13.0, 10.0, 11.0]
    assert (bar["volume_base"], bar["volume_quote_usd"], bar["trades"]) == (None, None, None)
    assert (bar["volume_24h_usd"], bar["source"], bar["ohlc_method"]) == (3.0, "coingecko", "sampled")


def test_candle_comes_before_samples(kline: Add, sample: Add, build: Build, select: Select) -> None:
    """An hour with a candle is not sampled, its neighbours without one are."""
    for hour in range(3, 7):
        sample(f"2024-01-01 0{hour}:30", 10.0)
    kline("2024-01-01 04:00", 20.0)
    build("2024-01-01", "2024-01-02")
    assert [(bar["open_time"].hour, bar["source"]) for bar in bars(select)] == [
        (3, "coingecko"),
        (4, "binance"),
        (5, "coingecko"),
    ]


def test_running_hour_has_no_bar(sample: Add, build: Build, select: Select) -> None:
    """The hour of the newest sample may still be running, so it has no bar, however late in it the sample is."""
    sample("2024-01-01 04:10", 10.0)
    sample("2024-01-01 05:59:59", 11.0)
    build("2024-01-01", "2024-01-02")
    assert [bar["open_time"].hour for bar in bars(select)] == [4]


def test_last_hour_of_the_window_is_proven_by_the_next_day(sample: Add, build: Build, select: Select) -> None:
    """A sample behind the window proves the window's last hour."""
    sample("2024-01-01 23:30", 10.0)
    build("2024-01-01", "2024-01-02")
    assert bars(select) == []
    sample("2024-01-02 00:04", 11.0)
    build("2024-01-01", "2024-01-02")
    assert [bar["close"] for bar in bars(select)] == [10.0]


@pytest.mark.parametrize(
    ("next_sample", "known_at"),
    [
        ("2024-01-01 06:00:05", datetime(2024, 1, 1, 6, 1, tzinfo=UTC)),
        ("2024-01-01 06:04:00", datetime(2024, 1, 1, 6, 4, 10, tzinfo=UTC)),
        ("2024-01-01 09:00:00", datetime(2024, 1, 1, 9, 0, 10, tzinfo=UTC)),
    ],
)
def test_sampled_bar_is_known_when_its_hour_is_known_to_be_over(
    sample: Add, build: Build, select: Select, next_sample: str, known_at: datetime
) -> None:
    """Available a minute after the hour, or when the first later sample is known if that is later."""
    sample("2024-01-01 05:30", 10.0)
    sample(next_sample, 11.0)
    build("2024-01-01", "2024-01-02")
    assert bars(select)[0]["available_at"] == known_at


def test_another_coins_samples_prove_nothing(sample: Add, build: Build, select: Select) -> None:
    """Each coin is fetched on its own, so only its own later sample shows that its hour is complete."""
    sample("2024-01-01 05:30", 10.0)
    sample("2024-01-01 07:30", 11.0, coin="tether")
    build("2024-01-01", "2024-01-02")
    assert bars(select) == []


def test_only_the_window_is_returned(kline: Add, sample: Add, build: Build, select: Select) -> None:
    """Bars of the days around the window are not part of it."""
    for day in (1, 2, 3):
        kline(f"2024-01-0{day} 05:00", float(day))
        sample(f"2024-01-0{day} 07:30", float(day))
        sample(f"2024-01-0{day} 08:30", float(day))
    build("2024-01-02", "2024-01-03")
    assert [(bar["open_time"].day, bar["open_time"].hour) for bar in bars(select)] == [(2, 5), (2, 7), (2, 8)]
