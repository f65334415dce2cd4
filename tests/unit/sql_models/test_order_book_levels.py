"""The view of order books by level."""

from __future__ import annotations

import duckdb

from tests.unit.sql_models.conftest import insert_rows, utc


def test_each_level_is_a_row(lake: duckdb.DuckDBPyConnection) -> None:
    """Two bids and one ask: the best has level 1, and price and quantity stay together."""
    book = {
        "timestamp": utc("2026-11-20T13:00:01"),
        "exchange": "bybit",
        "symbol": "BTCUSDT",
        "bid_prices": [99.0, 98.0],
        "bid_sizes": [1.0, 2.0],
        "ask_prices": [101.0],
        "ask_sizes": [3.0],
        "available_at": utc("2026-11-20T13:00:01"),
    }
    insert_rows(lake, "order_book", [book])
    rows = lake.execute(
        "select side, level, price, quantity from marts.order_book_levels order by side desc, level"
    ).fetchall()
    assert rows == [("bid", 1, 99.0, 1.0), ("bid", 2, 98.0, 2.0), ("ask", 1, 101.0, 3.0)]
