"""Which stored settlements are judged, and up to when."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import duckdb

from mts_dagster.defs.quality.checks import funding_gaps

from .conftest import utc

Add = Callable[..., None]


def every_8_hours(settle: Add, venue: str, first: str, count: int, **given: object) -> None:
    for number in range(count):
        settle(venue, str((utc(first) + number * timedelta(hours=8)).replace(tzinfo=None)), 0.0001, **given)


def found(lake: duckdb.DuckDBPyConnection) -> list[tuple[str, str, int]]:
    return [(venue, symbol, gap.missing) for _, venue, symbol, gap in funding_gaps(lake)]


def test_a_venue_that_stops_is_found_once_the_other_goes_on(lake: duckdb.DuckDBPyConnection, settle: Add) -> None:
    """Bybit's last settlement is at 16:00, binance goes on: to 00:00 it may be late, to 08:00 one is missing."""
    every_8_hours(settle, "bybit", "2026-05-01 00:00", 3)
    every_8_hours(settle, "binance", "2026-05-01 00:00", 4)
    assert found(lake) == []
    settle("binance", "2026-05-02 08:00", 0.0001)
    assert found(lake) == [("bybit", "BTCUSDT", 1)]


def test_a_symbol_that_gave_way_to_another_owes_nothing(lake: duckdb.DuckDBPyConnection, settle: Add) -> None:
    """The coin's new symbol, listed two days later, goes on in its place."""
    every_8_hours(settle, "binance", "2026-05-01 00:00", 3, symbol="OLDUSDT")
    every_8_hours(settle, "binance", "2026-05-03 16:00", 6, symbol="NEWUSDT")
    assert found(lake) == []


def test_old_days_and_special_settlements_are_not_judged(lake: duckdb.DuckDBPyConnection, settle: Add) -> None:
    """A hole of April is outside the 35 days before 9 June; an adjustment at 12:00 does not make 4 hours of 8."""
    every_8_hours(settle, "binance", "2026-04-01 00:00", 3)
    every_8_hours(settle, "binance", "2026-05-03 00:00", 112)
    settle("binance", "2026-05-10 12:00", 0.01, None, kind="special")
    assert found(lake) == []
    lake.execute("delete from raw.funding_rates where settled_at = '2026-05-10 16:00:00Z'")
    assert found(lake) == [("binance", "BTCUSDT", 1)]


def test_an_empty_table_has_no_gap(lake: duckdb.DuckDBPyConnection) -> None:
    """Nothing is collected yet."""
    assert found(lake) == []
