"""Hours computed from stored hours: spreads, market structure, arbitrage.

What belongs here: which stored rows go into which function of ``mts_realtime.analytics``, and how the results become
rows. The sidecar calls the same functions, so that the lake tells what the feed told, as far as a sample a second can.

An hour is replaced as a whole by what its inputs give, which may be nothing. Where there are no inputs at all, what is
stored stays: nothing is known that could replace it. Rows are computed some minutes, or some instruments, at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from mts_dagster.errors import ConfigError
from mts_dagster.lake.read import count_rows
from mts_dagster.lake.replace import replace_pieces
from mts_dagster.lake.shared import session
from mts_dagster.lake.slices import Slice
from mts_dagster.lake.transaction import Origin
from mts_dagster.live.books import StoredMarket, Turnover, by_symbol, read_markets, read_turnovers, symbols_at_once
from mts_dagster.live.ingest import alone, hours_of
from mts_dagster.live.pieces import cut, stored_rows_a_second
from mts_dagster.live.tables import ARBITRAGE_OPPORTUNITIES, BID_ASK_SPREADS, LIVE_FUNDING, MARKET_STRUCTURE, ORDER_BOOK
from mts_dagster.schemas import Table
from mts_dagster.settings import Settings
from mts_realtime.analytics.anomalies import flow_score
from mts_realtime.analytics.batch import (
    FundingEdge,
    FundingRow,
    FundingRules,
    Span,
    funding_opportunities,
    spread_opportunities,
    structure_of,
)
from mts_realtime.analytics.funding import quote_of
from mts_realtime.analytics.microstructure import FloatArray, mid, spread_bps, spread_usd
from mts_realtime.analytics.opportunities import Opportunity
from mts_realtime.detector import limits_of
from mts_realtime.errors import SettingsError
from mts_realtime.settings import RealtimeSettings, load_settings

ARROW_TYPES = {
    "VARCHAR": pa.string(),
    "TIMESTAMPTZ": pa.timestamp("us", tz="UTC"),
    "DOUBLE": pa.float64(),
    "BIGINT": pa.int64(),
    "BOOLEAN": pa.bool_(),
}
NS_PER_US = 1000
NS_PER_S = 1_000_000_000
HORIZON_MS = 1000
TOPS_AT_ONCE = 500_000
"""Rows without ladders computed in memory at a time: some 100 MB."""
ONE_EXCHANGE = "books and funding of one exchange only, so there is no pair to compare"

TOPS = """
    select epoch_us(timestamp) as timestamp, exchange, symbol, coin, bid_prices[1] as bid, ask_prices[1] as ask,
        bid_sizes[1] as bid_size_base, ask_sizes[1] as ask_size_base, epoch_us(available_at) as available_at
    from live.order_book
    where timestamp >= ? and timestamp < ? and len(bid_prices) > 0 and len(ask_prices) > 0
"""
FUNDING = """
    select symbol, exchange, coin, epoch_us(timestamp) as at_us, epoch_us(exchange_time) / 1000.0 as exchange_ms,
        mark_price, funding_rate, epoch_us(next_funding_time) / 1000.0 as next_ms, funding_interval_hours
    from live.live_funding where timestamp >= ? and timestamp < ? and list_contains(?, symbol)
    order by symbol, timestamp, exchange
"""
FUNDING_SYMBOLS = """
    select symbol, count(*) from live.live_funding where timestamp >= ? and timestamp < ?
    group by symbol order by symbol
"""
KNOWN_UNTIL = """
    select epoch_us(max(timestamp)) from (
        select timestamp from live.order_book where timestamp >= $1 and timestamp < $2
        union all
        select timestamp from live.live_funding where timestamp >= $1 and timestamp < $2
    )
"""
EXCHANGES = """
    select distinct exchange from (
        select exchange from live.order_book where timestamp >= $1 and timestamp < $2
        union all
        select exchange from live.live_funding where timestamp >= $1 and timestamp < $2
    ) order by exchange
"""


@dataclass(frozen=True)
class Derived:
    """What was computed for one hour.

    Attributes:
        rows_stored: rows of the hour afterwards.
        rows_replaced: rows of the hour before.
        note: why there are no rows, where that is worth telling.
    """

    rows_stored: int
    rows_replaced: int
    note: str = ""


@dataclass(frozen=True)
class Hour:
    """What a computation is given: an open lake, an hour of it, the sidecar's settings, and the clock."""

    con: duckdb.DuckDBPyConnection
    window: Slice
    stream: RealtimeSettings
    now: datetime


Compute = Callable[[Hour], tuple[Iterator[pa.Table], str]]
"""The rows, some at a time and no key in two of them, and a note."""


def stream_settings_of(settings: Settings) -> RealtimeSettings:
    """The sidecar's settings of the same home: fees, limits, windows.

    Raises:
        ConfigError: one of them is wrong.
    """
    try:
        return load_settings(home=settings.home, landing_dir=settings.landing_dir)
    except SettingsError as error:
        raise ConfigError(str(error)) from error


def derive_spreads(settings: Settings, windows: Sequence[Slice], now: datetime, origin: Origin) -> list[Derived]:
    """Best bid and ask of every two-sided book."""
    return _derive(settings, BID_ASK_SPREADS, [ORDER_BOOK.table], windows, now, origin, _spreads)


def derive_structure(settings: Settings, windows: Sequence[Slice], now: datetime, origin: Origin) -> list[Derived]:
    """Measures of every two-sided book; statistics also see the samples just before the hour."""
    return _derive(settings, MARKET_STRUCTURE, [ORDER_BOOK.table], windows, now, origin, _structure)


def derive_arbitrage(settings: Settings, windows: Sequence[Slice], now: datetime, origin: Origin) -> list[Derived]:
    """Opportunities between exchanges, of books and of funding."""
    inputs = [ORDER_BOOK.table, LIVE_FUNDING.table]
    return _derive(settings, ARBITRAGE_OPPORTUNITIES, inputs, windows, now, origin, _arbitrage)


def _derive(
    settings: Settings,
    table: Table,
    inputs: Sequence[Table],
    windows: Sequence[Slice],
    now: datetime,
    origin: Origin,
    compute: Compute,
) -> list[Derived]:
    stream = stream_settings_of(settings)
    done = []
    with session(settings, read_only=False) as con:
        for window in hours_of(windows):
            with alone(settings, table) as folder:
                done.append(_derive_hour(Hour(con, window, stream, now), table, inputs, folder, origin, compute))
    return done


def _derive_hour(
    hour: Hour, table: Table, inputs: Sequence[Table], folder: Path, origin: Origin, compute: Compute
) -> Derived:
    if not any(count_rows(hour.con, source, [hour.window]) for source in inputs):
        stored = count_rows(hour.con, table, [hour.window])
        return Derived(stored, stored, "nothing is stored to compute it from")
    parts, note = compute(hour)
    part = _Part(_arrow_schema(table).empty_table())
    hour.con.register("mts_derived", part)
    try:
        replaced = replace_pieces(hour.con, table, [hour.window], _selects(part, parts), folder, origin)
    finally:
        hour.con.unregister("mts_derived")
    return Derived(replaced.rows_inserted, replaced.rows_deleted, note)


class _Part:
    """The rows that are stored next, under one name for all parts.

    A transaction keeps whatever was registered in it to its end, so what is registered is this, and not the rows.
    """

    def __init__(self, rows: pa.Table) -> None:
        self.rows = rows

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.rows.__arrow_c_stream__(requested_schema)


def _selects(part: _Part, parts: Iterator[pa.Table]) -> Iterator[str]:
    """A statement that gives the rows of each part, until the next one is asked for."""
    nothing = part.rows
    for rows in parts:
        part.rows = rows
        del rows
        yield "select * from mts_derived"
        part.rows = nothing  # gone before the next part is computed


def _arrow_schema(table: Table) -> pa.Schema:
    return pa.schema([(column.name, ARROW_TYPES[column.sql_type]) for column in table.columns])


def _spreads(hour: Hour) -> tuple[Iterator[pa.Table], str]:
    rows_a_second = stored_rows_a_second(hour.con, ORDER_BOOK.table, hour.window)
    return (_spread_rows(hour.con, piece) for piece in cut(hour.window, rows_a_second, TOPS_AT_ONCE)), ""


def _spread_rows(con: duckdb.DuckDBPyConnection, piece: Slice) -> pa.Table:
    tops = con.execute(TOPS, [piece.start, piece.end]).to_arrow_table()
    bid, ask = np.asarray(tops["bid"]), np.asarray(tops["ask"])
    measures = {"mid": mid(bid, ask), "spread_usd": spread_usd(bid, ask), "spread_bps": spread_bps(bid, ask)}
    for name, values in measures.items():
        tops = tops.append_column(name, pa.array(values))
    schema = _arrow_schema(BID_ASK_SPREADS)
    return tops.select(schema.names).cast(schema)


def _structure(hour: Hour) -> tuple[Iterator[pa.Table], str]:
    stream = hour.stream
    past = timedelta(seconds=stream.signal_window * stream.sample_interval_s)
    seen = replace(hour.window, start=hour.window.start - past)
    return (_structure_part(hour, seen, symbols) for symbols in symbols_at_once(hour.con, seen)), ""


def _structure_part(hour: Hour, seen: Slice, symbols: list[str]) -> pa.Table:
    turnovers = read_turnovers(hour.con, seen, symbols)
    return pa.concat_tables(
        _structure_rows(hour, market, turnovers.get((market.symbol, market.books.exchange)))
        for market in read_markets(hour.con, seen, symbols)
    )


def _structure_rows(hour: Hour, market: StoredMarket, turnover: Turnover | None) -> pa.Table:
    """Rows of one market: measured with its past, stored without it."""
    books, window = market.books, hour.stream.signal_window
    measures = structure_of(books, window, hour.stream.sample_interval_s)
    times_us = books.timestamp_ns // NS_PER_US
    measures["volume_zscore"] = _volume_scores(times_us, turnover, window)
    inside = times_us >= int(hour.window.start.timestamp()) * 1_000_000
    count = int(np.count_nonzero(inside))
    columns: dict[str, Any] = {
        "timestamp": times_us[inside],
        "exchange": [books.exchange] * count,
        "symbol": [market.symbol] * count,
        "coin": [market.coin] * count,
        "available_at": market.available_us[inside],
        **{name: pa.array(values[inside], from_pandas=True) for name, values in measures.items()},
    }
    schema = _arrow_schema(MARKET_STRUCTURE)
    return pa.table({field.name: pa.array(columns[field.name]).cast(field.type) for field in schema}, schema=schema)


def _volume_scores(times_us: Any, turnover: Turnover | None, window: int) -> FloatArray:  # noqa: ANN401 - an array
    """Score of the turnover at each book's own grid time; NaN where the ticker has no sample then."""
    scores = np.full(len(times_us), np.nan)
    if turnover is not None and len(turnover.timestamp_us):
        found = np.minimum(np.searchsorted(turnover.timestamp_us, times_us), len(turnover.timestamp_us) - 1)
        same = turnover.timestamp_us[found] == times_us
        scores[same] = flow_score(turnover.turnover_24h, window)[found[same]]
    return scores


def _arbitrage(hour: Hour) -> tuple[Iterator[pa.Table], str]:
    bounds = [hour.window.start, hour.window.end]
    exchanges = [name for (name,) in hour.con.execute(EXCHANGES, bounds).fetchall()]
    if len(exchanges) < 2:  # noqa: PLR2004 - a pair
        return iter(()), f"{ONE_EXCHANGE} ({', '.join(exchanges)})"
    return _arbitrage_parts(hour), ""


def _arbitrage_parts(hour: Hour) -> Iterator[pa.Table]:
    schema, span = _arrow_schema(ARBITRAGE_OPPORTUNITIES), _span(hour)
    for symbols in symbols_at_once(hour.con, hour.window):
        yield pa.Table.from_pylist(_edge_rows(hour, span, symbols), schema=schema)
    for symbols in symbols_at_once(hour.con, hour.window, FUNDING_SYMBOLS):
        yield pa.Table.from_pylist(_funding_rows(hour, span, symbols), schema=schema)


def _span(hour: Hour) -> Span:
    """The hour is known to its end once that has passed, before that up to the newest row."""
    end_ns = int(hour.window.end.timestamp()) * NS_PER_S
    if hour.now >= hour.window.end:
        return Span(end_ns, end_ns)
    (newest_us,) = hour.con.execute(KNOWN_UNTIL, [hour.window.start, hour.window.end]).fetchall()[0]
    return Span(end_ns, newest_us * NS_PER_US)


def _edge_rows(hour: Hour, span: Span, symbols: list[str]) -> list[dict[str, Any]]:
    stream = hour.stream
    limits, step_ns = limits_of(stream), stream.sample_interval_ns
    rows = []
    for symbol, pair in by_symbol(read_markets(hour.con, hour.window, symbols)):
        books = [market.books for market in pair]
        lives = spread_opportunities(symbol, books, stream.taker_fees_bps, limits, span, step_ns)
        rows += [_row("spread", life, pair[0].coin) for life in lives]
    return rows


def _funding_rows(hour: Hour, span: Span, symbols: list[str]) -> list[dict[str, Any]]:
    stream = hour.stream
    rules = FundingRules(
        divergence_pct=stream.funding_divergence_pct,
        holding_hours=stream.funding_holding_hours,
        notional_usd=stream.arbitrage_max_notional_usd,
        silence_ns=round(stream.silence_s * NS_PER_S),
    )
    heard: dict[str, list[FundingRow]] = {}
    coins: dict[str, str | None] = {}
    fees = stream.taker_fees_bps
    for symbol, exchange, coin, at_us, exchange_ms, mark, rate, next_ms, hours in hour.con.execute(
        FUNDING, [hour.window.start, hour.window.end, symbols]
    ).fetchall():
        quote = quote_of(
            exchange,
            rate=rate,
            interval_hours=hours,
            next_funding_ms=next_ms,
            exchange_time_ms=exchange_ms,
            taker_fee_bps=fees[exchange],
        )
        heard.setdefault(symbol, []).append(
            FundingRow(exchange=exchange, at_ns=at_us * NS_PER_US, mark_price=mark, quote=quote)
        )
        coins[symbol] = coin
    return [
        _row("funding", life, coins[symbol])
        for symbol, rows in heard.items()
        for life in funding_opportunities(symbol, rows, rules, span)
    ]


def _row(kind: str, life: Opportunity, coin: str | None) -> dict[str, Any]:
    """An ended life as a row."""
    peak, expired_ns = life.peak, life.updated_ns if life.expired_ns is None else life.expired_ns
    funding = peak if isinstance(peak, FundingEdge) else None
    return {
        "opportunity_id": f"{kind}-{life.id}",
        "kind": kind,
        "symbol": life.symbol,
        "coin": coin,
        "buy_exchange": life.buy_exchange,
        "sell_exchange": life.sell_exchange,
        "opened_at": life.opened_ns // NS_PER_US,
        "expired_at": expired_ns // NS_PER_US,
        "lifetime_ms": life.lifetime_ms,
        "update_count": life.updates,
        "expired_reason": life.expired_reason,
        "peak_net_bps": peak.net_bps,
        "peak_gross_bps": peak.gross_bps,
        "peak_net_usd": peak.net_usd,
        "peak_size_base": peak.size_base,
        "peak_buy_price": peak.buy_price,
        "peak_sell_price": peak.sell_price,
        "confidence": life.assessment.confidence,
        "feasible": peak.net_bps > 0.0,
        "net_bps_after_1000ms": life.net_bps_after.get(HORIZON_MS),
        "differential_pct_per_year": funding and funding.differential_pct,
        "break_even_hours": funding and funding.break_even_hours,
        "available_at": expired_ns // NS_PER_US,
    }
