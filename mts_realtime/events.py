"""Normalised events: what an exchange said, in our words.

What belongs here: immutable records that leave an exchange's codec and enter the pipeline, and the identity of
what they are about. No venue field name, no behaviour. Prices and sizes are float64 in the instrument's quote and
base unit; ``exchange_time_ms`` is the venue's clock, ``received_ns`` ours (both UTC, since 1970).
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

Levels = list[tuple[float, float]]
"""Price and size pairs. A size of zero means that the level is gone."""


class Feed(StrEnum):
    """What a subscription delivers; the values are the names of the landing datasets."""

    ORDER_BOOK = "order_book"
    FUNDING = "funding"
    TICKERS = "tickers"


class Instrument(Struct, frozen=True, kw_only=True):
    """A perpetual contract as one exchange lists it.

    Attributes:
        exchange: Name of the exchange.
        venue_symbol: The exchange's own name.
        symbol: Our name, equal on all exchanges for contracts of equal price.
        tick_size: Smallest price step, quote currency.
        size_step: Smallest size step, base currency.
        min_size: Smallest order, base currency.
        min_notional: Smallest order value, quote currency; 0 where the exchange names none.
        funding_interval_hours: Interval that the exchange states today; ``None`` where it states none.
    """

    exchange: str
    venue_symbol: str
    symbol: str
    tick_size: float
    size_step: float
    min_size: float
    min_notional: float
    funding_interval_hours: float | None = None


class Subscription(Struct, frozen=True):
    """One stream of one instrument. ``topic`` is the exchange's name of it."""

    topic: str
    instrument: Instrument
    feeds: tuple[Feed, ...]


class BookSnapshot(Struct, gc=False):
    """A full picture of a book. It replaces what is known.

    Attributes:
        last_id: Sequence number of the picture.
        previous_id: Sequence number of the picture before, where the venue sends it.
        cross_id: Sequence number comparable between streams of the symbol, where the venue sends it.
    """

    topic: str
    exchange_time_ms: int
    received_ns: int
    last_id: int
    previous_id: int | None
    cross_id: int | None
    bids: Levels
    asks: Levels


class BookDelta(Struct, gc=False):
    """Changed levels of a book. Sequence numbers as the venue defines them."""

    topic: str
    exchange_time_ms: int
    received_ns: int
    first_id: int
    last_id: int
    previous_id: int
    cross_id: int | None
    bids: Levels
    asks: Levels


class FundingUpdate(Struct, gc=False):
    """Mark price and the running funding rate.

    Attributes:
        funding_rate: Estimate for the coming settlement, fraction per interval; ``None`` where none applies.
        next_funding_ms: Time of that settlement; ``None`` where none applies.
        interval_hours: Funding interval as stated by the venue; ``None`` where it has to be derived.
    """

    topic: str
    exchange_time_ms: int
    received_ns: int
    mark_price: float
    index_price: float | None
    funding_rate: float | None
    next_funding_ms: int | None
    interval_hours: float | None


class TickerUpdate(Struct, gc=False):
    """Statistics of the trailing 24 hours; volumes are rolling totals, not the volume of a bar."""

    topic: str
    exchange_time_ms: int
    received_ns: int
    last_price: float
    volume_24h_base: float
    turnover_24h_quote: float
    open_interest_base: float | None


class Ack(Struct, gc=False):
    """The exchange accepted a request. No proof that data will come."""

    request_id: str


class Refusal(Struct, gc=False):
    """The exchange refused a request, for instance an unknown topic."""

    request_id: str
    problem: str


class Pong(Struct, gc=False):
    """Answer to a ping that we sent inside the data protocol."""


Event = BookSnapshot | BookDelta | FundingUpdate | TickerUpdate | Ack | Refusal | Pong
