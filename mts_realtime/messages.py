"""What subscribers of the live feed receive: one JSON object a message.

What belongs here: the messages' shapes and how they are made from live state. Delivery is ``feed``'s and
``redis_sink``'s. Every message has ``type``; times are milliseconds (exchange) and nanoseconds (ours) since 1970.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from mts_realtime.analytics.microstructure import micro_price, mid, spread_bps

if TYPE_CHECKING:
    from mts_realtime.analytics.opportunities import Change, Opportunity
    from mts_realtime.analytics.signals import Signal
    from mts_realtime.detector import Market
    from mts_realtime.events import Levels

CHANNELS = ("books", "spreads", "funding", "signals", "opportunities")
"""What a subscriber may choose from."""

CONFLATED = ("books", "spreads", "funding")
"""Channels of which only the latest message of each key matters."""

_encode = msgspec.json.Encoder().encode


class Message(NamedTuple):
    """A message ready to be sent.

    Attributes:
        channel: One of ``CHANNELS``.
        symbol: Our name of the instrument.
        key: What the message is the latest state of; for conflation and as part of a Redis key.
        content: The JSON object.
    """

    channel: str
    symbol: str
    key: str
    content: bytes


def book_message(market: Market, bids: Levels, asks: Levels) -> Message:
    """The best levels of a LIVE book."""
    instrument, book = market.instrument, market.book
    content = {
        "type": "book",
        "exchange": instrument.exchange,
        "symbol": instrument.symbol,
        "exchange_time_ms": book.exchange_time_ms if book else 0,
        "received_ns": book.received_ns if book else 0,
        "sequence_id": book.last_id if book else -1,
        "bids": bids,
        "asks": asks,
    }
    return Message("books", instrument.symbol, f"{instrument.exchange}:{instrument.symbol}", _encode(content))


def spread_message(market: Market, bids: Levels, asks: Levels) -> Message:
    """Top of book and what follows from it."""
    instrument, book = market.instrument, market.book
    (bid, bid_size), (ask, ask_size) = bids[0], asks[0]
    content = {
        "type": "spread",
        "exchange": instrument.exchange,
        "symbol": instrument.symbol,
        "exchange_time_ms": book.exchange_time_ms if book else 0,
        "received_ns": book.received_ns if book else 0,
        "bid": bid,
        "ask": ask,
        "spread_bps": spread_bps(bid, ask),
        "mid": mid(bid, ask),
        "micro_price": micro_price(bid, bid_size, ask, ask_size),
    }
    return Message("spreads", instrument.symbol, f"{instrument.exchange}:{instrument.symbol}", _encode(content))


def funding_message(market: Market) -> Message:
    """The running funding estimate of a market."""
    instrument, funding = market.instrument, market.funding
    content = {
        "type": "funding",
        "exchange": instrument.exchange,
        "symbol": instrument.symbol,
        "exchange_time_ms": funding.exchange_time_ms if funding else 0,
        "received_ns": funding.received_ns if funding else 0,
        "mark_price": funding.mark_price if funding else None,
        "index_price": funding.index_price if funding else None,
        "funding_rate": funding.funding_rate if funding else None,
        "next_funding_ms": funding.next_funding_ms if funding else None,
        "funding_interval_hours": market.funding_hours,
    }
    return Message("funding", instrument.symbol, f"{instrument.exchange}:{instrument.symbol}", _encode(content))


def signal_message(signal: Signal) -> Message:
    """A signal that was just raised."""
    detail = {
        name: value if not isinstance(value, float) or math.isfinite(value) else None
        for name, value in signal.detail.items()
    }
    content = {
        "type": "signal",
        "kind": signal.kind,
        "symbol": signal.symbol,
        "exchanges": signal.exchanges,
        "at_ns": signal.at_ns,
        "expires_ns": signal.expires_ns,
        "value": signal.value,
        "threshold": signal.threshold,
        "unit": signal.unit,
        "strength": signal.strength,
        "confidence": signal.confidence,
        "detail": detail,
    }
    return Message("signals", signal.symbol, signal.kind, _encode(content))


def opportunity_message(change: Change, opportunity: Opportunity) -> Message:
    """An arbitrage opportunity that opened, changed or ended."""
    edge = opportunity.edge
    content = {
        "type": "opportunity",
        "change": change,
        "opportunity_id": opportunity.id,
        "symbol": opportunity.symbol,
        "buy_exchange": opportunity.buy_exchange,
        "sell_exchange": opportunity.sell_exchange,
        "opened_ns": opportunity.opened_ns,
        "lifetime_ms": opportunity.lifetime_ms,
        "net_bps": edge.net_bps,
        "net_usd": edge.net_usd,
        "size_base": edge.size_base,
        "peak_net_bps": opportunity.peak.net_bps,
        "confidence": opportunity.assessment.confidence,
        "expired_reason": opportunity.expired_reason,
    }
    return Message("opportunities", opportunity.symbol, opportunity.id, _encode(content))
