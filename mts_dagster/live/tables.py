"""Contracts of the live tables: what the sidecar's datasets are called in the lake, and what is derived from them.

What belongs here: columns, keys and descriptions. Columns of a dataset that lands as it is come from
``mts_realtime.datasets``, the one place that describes them. No table here is written from pandas frames, so none has
a pandera class; what must hold of the rows is checked by ``mts_dagster.defs.realtime.checks``.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from mts_dagster.schemas import AVAILABLE_AT, Column, Table
from mts_realtime.datasets import SCHEMAS

SCHEMA = "live"


@dataclass(frozen=True)
class Landed:
    """A dataset of the sidecar and the table that it is stored in.

    Attributes:
        dataset: name in the landing folder.
        table: its table; the dataset's columns, and those that say where a row comes from.
        available: SQL expression over the dataset's columns for when a row could first be known.
    """

    dataset: str
    table: Table
    available: str


def _sql_type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"{_sql_type(kind.value_type)}[]"
    if pa.types.is_timestamp(kind):
        return "TIMESTAMPTZ"
    if pa.types.is_integer(kind):
        return "BIGINT"
    return "DOUBLE" if pa.types.is_floating(kind) else "VARCHAR"


def _text(name: str, description: str, *, nullable: bool = False) -> Column:
    return Column(name, "VARCHAR", description, nullable)


def _time(name: str, description: str) -> Column:
    return Column(name, "TIMESTAMPTZ", description, nullable=False)


def _number(name: str, description: str, *, unit: str | None = None, nullable: bool = False) -> Column:
    return Column(name, "DOUBLE", description, nullable, unit)


_COIN = _text("coin", "CoinGecko id of the symbol's coin, null where no coin is known for it.", nullable=True)
_AVAILABLE_AT = _time("available_at", AVAILABLE_AT)


def _landed(dataset: str, name: str, key: tuple[str, ...], description: str, available: str) -> Landed:
    schema = SCHEMAS[dataset]
    columns = [
        Column(field.name, _sql_type(field.type), field.metadata[b"description"].decode(), field.nullable)
        for field in schema
    ]
    if "symbol" in schema.names:
        columns.append(_COIN)
    columns += [_text("segment", "File name of the segment that the row came in."), _AVAILABLE_AT]
    table = Table(SCHEMA, name, tuple(columns), key, time_column="timestamp", description=description)
    return Landed(dataset, table, available)


ORDER_BOOK = _landed(
    "order_book",
    "order_book",
    ("timestamp", "exchange", "symbol"),
    "Sampled order books, best levels first, one row for each second in which the book was known.",
    "greatest(timestamp, received_at)",
)
LIVE_FUNDING = _landed(
    "funding",
    "live_funding",
    ("timestamp", "exchange", "symbol", "exchange_time"),
    "Running estimates of the coming funding settlements as they changed, and a sample a second in between.",
    "timestamp",
)
LIVE_TICKERS = _landed(
    "tickers",
    "live_tickers",
    ("timestamp", "exchange", "symbol"),
    "Sampled tickers: last price, trailing 24 h volume, open interest.",
    "greatest(timestamp, received_at)",
)
STREAM_GAPS = _landed(
    "gaps",
    "stream_gaps",
    ("timestamp", "dataset", "exchange", "symbol", "topic", "gap_start"),
    "Stretches of time for which the stream has no rows, and why. What is neither stored nor here is a fault.",
    "gap_end",
)
LIVE_OPPORTUNITIES = _landed(
    "opportunities",
    "live_opportunities",
    ("timestamp", "opportunity_id"),
    "Arbitrage opportunities as the sidecar saw them on every change of the books, one row for each that ended.",
    "timestamp",
)
LIVE_SIGNALS = _landed(
    "signals",
    "live_signals",
    ("timestamp", "kind", "symbol", "exchanges"),
    "Signals that the sidecar raised.",
    "timestamp",
)
LANDED = (ORDER_BOOK, LIVE_FUNDING, LIVE_TICKERS, STREAM_GAPS, LIVE_OPPORTUNITIES, LIVE_SIGNALS)

_MARKET = (
    _time("timestamp", "Grid time of the sampled book."),
    _text("exchange", "Name of the exchange."),
    _text("symbol", "Our name of the instrument, equal on all exchanges."),
    _COIN,
)

BID_ASK_SPREADS = Table(
    SCHEMA,
    "bid_ask_spreads",
    (
        *_MARKET,
        _number("bid", "Best bid.", unit="quote currency"),
        _number("ask", "Best ask.", unit="quote currency"),
        _number("bid_size_base", "Size at the best bid."),
        _number("ask_size_base", "Size at the best ask."),
        _number("mid", "Halfway between best bid and best ask.", unit="quote currency"),
        _number("spread_usd", "Best ask minus best bid; USDT is taken as USD."),
        _number("spread_bps", "The same relative to the mid."),
        _AVAILABLE_AT,
    ),
    key=("timestamp", "exchange", "symbol"),
    time_column="timestamp",
    description="Best bid and ask of every sampled book that has both, and the spread between them.",
)

MARKET_STRUCTURE = Table(
    SCHEMA,
    "market_structure",
    (
        *_MARKET,
        _number("mid", "Halfway between best bid and best ask.", unit="quote currency"),
        _number("micro_price", "Mid weighted by the opposite best sizes.", unit="quote currency"),
        _number("bid_depth_10bps_usd", "Value of the bids within 10 bps of the mid, of the stored levels."),
        _number("ask_depth_10bps_usd", "Value of the asks within 10 bps of the mid, of the stored levels."),
        _number("imbalance", "(bids - asks) / (bids + asks) over the stored levels.", unit="-1..1"),
        _number("impact_buy_10k_bps", "Cost of buying 10,000 USD at once, distance from the mid.", nullable=True),
        _number("impact_sell_10k_bps", "Cost of selling 10,000 USD at once, distance from the mid.", nullable=True),
        _number("liquidity_score", "Depth of the thinner side, discounted by the spread.", unit="0..100"),
        _number("spread_zscore", "Spread in bps against the samples before it.", unit="z", nullable=True),
        _number("spread_trend_bps_per_minute", "Slope of the spread over the samples up to it.", nullable=True),
        _number("volume_zscore", "Turnover since the sample before, against its past.", unit="z", nullable=True),
        _AVAILABLE_AT,
    ),
    key=("timestamp", "exchange", "symbol"),
    time_column="timestamp",
    description="What each sampled book says about its market: depth, imbalance, cost of trading, anomalies.",
)

ARBITRAGE_OPPORTUNITIES = Table(
    SCHEMA,
    "arbitrage_opportunities",
    (
        _text("opportunity_id", "Unique name, equal for the same stored books."),
        _text("kind", "spread: buy on one exchange, sell on the other. funding: hold both sides for unequal rates."),
        _text("symbol", "Our name of the instrument, equal on all exchanges."),
        _COIN,
        _text("buy_exchange", "Where the asks are bought; for funding where the long side is held."),
        _text("sell_exchange", "Where the bids are sold into; for funding where the short side is held."),
        _time("opened_at", "First sample with the edge."),
        _time("expired_at", "First sample without it, or the end of the hour."),
        _number("lifetime_ms", "From opening to end."),
        Column("update_count", "BIGINT", "Samples with the edge.", nullable=False, unit="1"),
        _text("expired_reason", "Why it ended; hour_ended when it was alive at the end of the hour."),
        _number("peak_net_bps", "Best net edge, fees paid; for funding expected over the holding time."),
        _number("peak_gross_bps", "Gross edge at that moment."),
        _number("peak_net_usd", "Net profit at that moment; for funding of the largest size allowed."),
        _number("peak_size_base", "Size at that moment."),
        _number("peak_buy_price", "Average price paid at that moment; for funding the mark price there."),
        _number("peak_sell_price", "Average price received at that moment; for funding the mark price there."),
        _number("confidence", "Newest confidence.", unit="0..1"),
        Column("feasible", "BOOLEAN", "Whether its best moment earned more than the fees.", nullable=False),
        _number("net_bps_after_1000ms", "Net edge left 1 s after opening, null when gone by then.", nullable=True),
        _number("differential_pct_per_year", "Funding: annual difference of the rates at the peak.", nullable=True),
        _number("break_even_hours", "Funding: holding time that pays the fees.", nullable=True),
        _AVAILABLE_AT,
    ),
    key=("opportunity_id", "opened_at"),
    time_column="opened_at",
    description="Arbitrage between exchanges found in stored books and funding rates, one row for each opportunity.",
)

DERIVED = (BID_ASK_SPREADS, MARKET_STRUCTURE, ARBITRAGE_OPPORTUNITIES)
LIVE_TABLES: dict[str, Table] = {table.name: table for table in (*(landed.table for landed in LANDED), *DERIVED)}
"""All live tables by name."""
