"""Stored books as the analytics take them: arrays by market, in time order.

What belongs here: reading ``live.order_book`` and ``live.live_tickers``. Nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mts_dagster.lake.slices import Slice
from mts_realtime.analytics.batch import Books, Times, pad_levels
from mts_realtime.analytics.microstructure import FloatArray

ROWS_AT_ONCE = 200_000
"""Books read into memory at a time: some 130 MB with 20 levels."""

# A book with an empty side has no spread and no mid; it says nothing to compare.
TWO_SIDED = "len(bid_prices) > 0 and len(ask_prices) > 0"
SYMBOLS = f"""
    select symbol, count(*) from live.order_book where timestamp >= ? and timestamp < ? and {TWO_SIDED}
    group by symbol order by symbol
"""  # noqa: S608 - a constant
BOOKS = f"""
    select symbol, exchange, coin, epoch_us(timestamp) as timestamp_us, epoch_us(received_at) as received_us,
        epoch_us(exchange_time) as exchange_us, epoch_us(available_at) as available_us,
        bid_prices, bid_sizes, ask_prices, ask_sizes
    from live.order_book
    where timestamp >= ? and timestamp < ? and list_contains(?, symbol) and {TWO_SIDED}
    order by symbol, exchange, timestamp
"""  # noqa: S608 - a constant
TURNOVERS = """
    select symbol, exchange, epoch_us(timestamp) as timestamp_us, turnover_24h_quote
    from live.live_tickers where timestamp >= ? and timestamp < ? and list_contains(?, symbol)
    order by symbol, exchange, timestamp
"""


@dataclass(frozen=True)
class StoredMarket:
    """The books of one symbol on one exchange.

    Attributes:
        symbol: our name of the instrument.
        coin: CoinGecko id, if known.
        books: its samples in time order.
        available_us: when each could first be known, microseconds since 1970.
    """

    symbol: str
    coin: str | None
    books: Books
    available_us: Times


@dataclass(frozen=True)
class Turnover:
    """Sampled 24 h turnovers of one market in time order."""

    timestamp_us: Times
    turnover_24h: FloatArray


def symbols_at_once(con: duckdb.DuckDBPyConnection, window: Slice, counts: str = SYMBOLS) -> Iterator[list[str]]:
    """The symbols of a window, as many at a time as have ``ROWS_AT_ONCE`` rows, at least one.

    Args:
        con: connection to the lake.
        window: times of the rows.
        counts: statement that gives symbols in order and how many rows each has; by default two-sided books.
    """
    batch: list[str] = []
    rows = 0
    for symbol, count in con.execute(counts, [window.start, window.end]).fetchall():
        if batch and rows + count > ROWS_AT_ONCE:
            yield batch
            batch, rows = [], 0
        batch.append(symbol)
        rows += count
    if batch:
        yield batch


def read_markets(con: duckdb.DuckDBPyConnection, window: Slice, symbols: list[str]) -> list[StoredMarket]:
    """Two-sided books of a window, all exchanges of a symbol together."""
    table = con.execute(BOOKS, [window.start, window.end, symbols]).to_arrow_table().combine_chunks()
    return [_market(table, start, end) for start, end in _groups(table)]


def read_turnovers(
    con: duckdb.DuckDBPyConnection, window: Slice, symbols: list[str]
) -> dict[tuple[str, str], Turnover]:
    """Tickers of a window by symbol and exchange."""
    table = con.execute(TURNOVERS, [window.start, window.end, symbols]).to_arrow_table().combine_chunks()
    times, turnovers = _numbers(table, "timestamp_us"), _numbers(table, "turnover_24h_quote")
    return {
        (table["symbol"][start].as_py(), table["exchange"][start].as_py()): Turnover(
            times[start:end], turnovers[start:end]
        )
        for start, end in _groups(table)
    }


def by_symbol(markets: list[StoredMarket]) -> Iterator[tuple[str, list[StoredMarket]]]:
    """The markets of each symbol."""
    for symbol, group in groupby(markets, key=lambda market: market.symbol):
        yield symbol, list(group)


def _groups(table: pa.Table) -> Iterator[tuple[int, int]]:
    """First and last row (exclusive) of each symbol and exchange of a sorted table."""
    if not table.num_rows:
        return
    changes = np.zeros(table.num_rows, dtype=bool)
    for name in ("symbol", "exchange"):
        codes = np.asarray(table[name].combine_chunks().dictionary_encode().indices)
        changes[1:] |= codes[1:] != codes[:-1]
    starts = [0, *np.flatnonzero(changes).tolist(), table.num_rows]
    yield from pairwise(starts)


def _market(table: pa.Table, start: int, end: int) -> StoredMarket:
    rows = table.slice(start, end - start)
    return StoredMarket(
        symbol=rows["symbol"][0].as_py(),
        coin=rows["coin"][len(rows) - 1].as_py(),
        books=Books(
            exchange=rows["exchange"][0].as_py(),
            timestamp_ns=_numbers(rows, "timestamp_us") * 1000,
            received_ns=_numbers(rows, "received_us") * 1000,
            exchange_time_ms=_numbers(rows, "exchange_us") / 1000.0,
            bid_prices=_levels(rows, "bid_prices"),
            bid_sizes=_levels(rows, "bid_sizes"),
            ask_prices=_levels(rows, "ask_prices"),
            ask_sizes=_levels(rows, "ask_sizes"),
        ),
        available_us=_numbers(rows, "available_us"),
    )


def _numbers(table: pa.Table, name: str) -> NDArray[Any]:
    return np.asarray(table[name])


def _levels(table: pa.Table, name: str) -> FloatArray:
    ladders = table[name].combine_chunks()
    # Offsets of a slice point into the whole column, and so do its values.
    return pad_levels(np.asarray(ladders.offsets, dtype=np.int64), np.asarray(ladders.values))
