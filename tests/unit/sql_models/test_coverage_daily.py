"""Coverage: which hours of which day have a bar, so that no gap is silent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Add = Callable[..., None]
Build = Callable[[str, str], None]
Select = Callable[[str], list[dict[str, Any]]]
COUNTS = "hours_expected, hours_covered, hours_exchange, hours_sampled, hours_missing"


def coverage(select: Select, coin: str = "bitcoin") -> list[tuple[Any, ...]]:
    columns = f"day(date), {COUNTS}, daily_ohlc_method"
    rows = select(f"select {columns} from marts.coverage_daily where coin = '{coin}' order by date")
    return [tuple(row.values()) for row in rows]


def test_gaps_show(kline: Add, sample: Add, build: Build, select: Select) -> None:
    """A day without any bar has a row; first and last day are expected from and up to the bars at the ends."""
    kline("2024-01-01 22:00", 1.0)
    sample("2024-01-01 23:10", 1.0)
    sample("2024-01-02 00:00", 1.0)
    kline("2024-01-03 01:00", 1.0)
    build("2024-01-01", "2024-01-04")
    assert coverage(select) == [
        (1, 2, 2, 1, 1, 0, "sampled"),
        (2, 24, 0, 0, 0, 24, None),
        (3, 2, 1, 1, 0, 1, None),
    ]


def test_coin_that_stopped_shows(kline: Add, build: Build, select: Select) -> None:
    """A coin without bars is expected up to the newest bar of the others."""
    kline("2024-01-01 22:00", 1.0)
    kline("2024-01-02 01:00", 1.0, coin="ethereum")
    build("2024-01-01", "2024-01-03")
    assert [row[:6] for row in coverage(select)] == [(1, 2, 1, 1, 0, 1), (2, 2, 0, 0, 0, 2)]


def test_days_without_hours_show(kline: Add, build: Build, select: Select) -> None:
    """A day known from its daily candle alone lacks its hours."""
    kline("2024-01-01", 1.0, interval="1d")
    build("2024-01-01", "2024-01-02")
    assert coverage(select) == [(1, 24, 0, 0, 0, 24, "exchange")]
