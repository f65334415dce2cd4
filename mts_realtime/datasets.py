"""The sidecar's datasets: columns, types, meaning and order of the rows in its segments.

What belongs here: the shape of rows, the one place that describes it. Where segments lie and how they are written and
read is ``landing``'s; collecting rows is ``recorder``'s.
"""

from __future__ import annotations

import pyarrow as pa

CROSS_EXCHANGE = "cross"
"""Exchange part of a segment's name when its rows concern several exchanges."""

_TIME = pa.timestamp("us", tz="UTC")
_LADDER = pa.list_(pa.field("element", pa.float64(), nullable=False))


def _field(name: str, kind: pa.DataType, meaning: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"description": meaning})


_EXCHANGE = _field("exchange", pa.string(), "Name of the exchange.")
_SYMBOL = _field("symbol", pa.string(), "Our name of the instrument, equal on all exchanges.")
_VENUE_SYMBOL = _field("venue_symbol", pa.string(), "The exchange's own name.")
_EXCHANGE_TIME = _field("exchange_time", _TIME, "Exchange time of the newest update in the row.")
_RECEIVED_AT = _field("received_at", _TIME, "When that update reached us.")

SCHEMAS: dict[str, pa.Schema] = {
    "order_book": pa.schema(
        [
            _field("timestamp", _TIME, "Grid time; the book as it was known just before."),
            _EXCHANGE,
            _SYMBOL,
            _VENUE_SYMBOL,
            _EXCHANGE_TIME,
            _RECEIVED_AT,
            _field("sequence_id", pa.int64(), "The exchange's number of that update."),
            _field("cross_sequence_id", pa.int64(), "Its number comparable between streams.", nullable=True),
            _field("update_count", pa.int32(), "Updates applied since the row before."),
            _field("bid_prices", _LADDER, "Best bids, falling, quote currency."),
            _field("bid_sizes", _LADDER, "Their sizes, base currency."),
            _field("ask_prices", _LADDER, "Best asks, rising, quote currency."),
            _field("ask_sizes", _LADDER, "Their sizes, base currency."),
        ]
    ),
    "funding": pa.schema(
        [
            _field("timestamp", _TIME, "When it reached us."),
            _EXCHANGE,
            _SYMBOL,
            _VENUE_SYMBOL,
            _EXCHANGE_TIME,
            _field("change", pa.string(), "Why the row exists: first, rate, settlement or sample."),
            _field("mark_price", pa.float64(), "Mark price, quote currency."),
            _field("index_price", pa.float64(), "Index price, quote currency.", nullable=True),
            _field("funding_rate", pa.float64(), "Estimate for the coming settlement, fraction.", nullable=True),
            _field("next_funding_time", _TIME, "The coming settlement.", nullable=True),
            _field(
                "funding_interval_hours",
                pa.float64(),
                "As the exchange states it, else as observed between settlements.",
                nullable=True,
            ),
        ]
    ),
    "tickers": pa.schema(
        [
            _field("timestamp", _TIME, "Grid time; the ticker as it was known just before."),
            _EXCHANGE,
            _SYMBOL,
            _VENUE_SYMBOL,
            _EXCHANGE_TIME,
            _RECEIVED_AT,
            _field("last_price", pa.float64(), "Price of the newest trade, quote currency."),
            _field("volume_24h_base", pa.float64(), "Volume of the trailing 24 hours, base currency."),
            _field("turnover_24h_quote", pa.float64(), "The same in quote currency."),
            _field("open_interest_base", pa.float64(), "Open contracts, base currency.", nullable=True),
        ]
    ),
    "gaps": pa.schema(
        [
            _field("timestamp", _TIME, "Last moment of the gap."),
            _field("dataset", pa.string(), "Dataset that misses rows."),
            _EXCHANGE,
            _SYMBOL,
            _field("topic", pa.string(), "The exchange's name of the stream."),
            _field("gap_start", _TIME, "From when on nothing is known."),
            _field("gap_end", _TIME, "From when on it is known again, or has a gap row of its own."),
            _field("reason", pa.string(), "Why, one word of a fixed list."),
        ]
    ),
    "opportunities": pa.schema(
        [
            _field("timestamp", _TIME, "When the opportunity ended."),
            _field("opportunity_id", pa.string(), "Unique name."),
            _SYMBOL,
            _field("buy_exchange", pa.string(), "Where the asks would be bought."),
            _field("sell_exchange", pa.string(), "Where the bids would be sold into."),
            _field("opened_at", _TIME, "First moment of the edge."),
            _field("lifetime_ms", pa.float64(), "How long it lasted."),
            _field("update_count", pa.int32(), "How often it was seen."),
            _field("expired_reason", pa.string(), "Why it ended."),
            _field("peak_net_bps", pa.float64(), "Best net edge, both taker fees paid."),
            _field("peak_gross_bps", pa.float64(), "Gross edge at that moment."),
            _field("peak_net_usd", pa.float64(), "Net profit at that moment."),
            _field("peak_size_base", pa.float64(), "Size at that moment."),
            _field("peak_buy_price", pa.float64(), "Average price paid at that moment."),
            _field("peak_sell_price", pa.float64(), "Average price received at that moment."),
            _field("confidence", pa.float64(), "Newest confidence, 0 to 1."),
            _field("net_bps_after_50ms", pa.float64(), "Net edge left 50 ms after opening.", nullable=True),
            _field("net_bps_after_250ms", pa.float64(), "Net edge left 250 ms after opening.", nullable=True),
            _field("net_bps_after_1000ms", pa.float64(), "Net edge left 1 s after opening.", nullable=True),
        ]
    ),
    "signals": pa.schema(
        [
            _field("timestamp", _TIME, "When the signal was raised."),
            _field("kind", pa.string(), "What happened."),
            _SYMBOL,
            _field("exchanges", pa.string(), "Where, joined by a slash."),
            _field("strength", pa.string(), "WEAK, MODERATE or STRONG."),
            _field("confidence", pa.float64(), "0 to 1."),
            _field("value", pa.float64(), "The measure that raised it."),
            _field("threshold", pa.float64(), "The measure from which on it is raised."),
            _field("unit", pa.string(), "Unit of both."),
            _field("expires_at", _TIME, "Until when it counts."),
            _field("detail", pa.string(), "Further facts, JSON."),
        ]
    ),
}
"""Columns of every dataset; the description of a column is in its metadata."""

SORT_KEYS: dict[str, tuple[str, ...]] = {
    "order_book": ("symbol", "timestamp"),
    "funding": ("symbol", "timestamp", "exchange_time"),
    "tickers": ("symbol", "timestamp"),
    "gaps": ("dataset", "topic", "timestamp", "gap_start"),
    "opportunities": ("opportunity_id",),
    "signals": ("timestamp", "kind", "symbol", "exchanges"),
}
"""Order of the rows in a segment, so that equal rows give equal files."""
