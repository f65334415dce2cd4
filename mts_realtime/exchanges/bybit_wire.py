"""Bybit's wire types: payloads in its own spelling.

What belongs here: one struct a payload, nothing but fields. Members that are known and not used are ``Ignored``, so
that only members nobody knows are counted as unknown. Nothing outside ``bybit`` imports this.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, Struct, UnsetType

from mts_realtime.exchanges.wire import Ignored, WireLevels


class Book(Struct, gc=False, kw_only=True):
    """Book levels; ``u`` is the update id, ``seq`` the cross sequence."""

    b: WireLevels
    a: WireLevels
    u: int
    seq: int
    s: Ignored = None


class BookFrame(Struct, gc=False, kw_only=True):
    """A book frame; ``cts`` is the matching engine's time, ``ts`` the push time."""

    topic: str
    type: str
    ts: int
    data: Book
    cts: int | None = None


class Ticker(Struct, gc=False, kw_only=True, rename="camel", omit_defaults=True):
    """A sparse ticker: a missing member is unchanged, an empty one is gone."""

    mark_price: str | UnsetType = UNSET
    index_price: str | UnsetType = UNSET
    funding_rate: str | UnsetType = UNSET
    next_funding_time: str | UnsetType = UNSET
    funding_interval_hour: str | UnsetType = UNSET
    last_price: str | UnsetType = UNSET
    volume24h: str | UnsetType = UNSET
    turnover24h: str | UnsetType = UNSET
    open_interest: str | UnsetType = UNSET
    symbol: Ignored = None
    tick_direction: Ignored = None
    price24h_pcnt: Ignored = msgspec.field(name="price24hPcnt", default=None)
    prev_price24h: Ignored = msgspec.field(name="prevPrice24h", default=None)
    high_price24h: Ignored = msgspec.field(name="highPrice24h", default=None)
    low_price24h: Ignored = msgspec.field(name="lowPrice24h", default=None)
    prev_price1h: Ignored = msgspec.field(name="prevPrice1h", default=None)
    open_interest_value: Ignored = None
    single_open_interest: Ignored = None
    single_open_interest_value: Ignored = None
    funding_cap: Ignored = None
    bid1_price: Ignored = msgspec.field(name="bid1Price", default=None)
    bid1_size: Ignored = msgspec.field(name="bid1Size", default=None)
    ask1_price: Ignored = msgspec.field(name="ask1Price", default=None)
    ask1_size: Ignored = msgspec.field(name="ask1Size", default=None)
    pre_open_price: Ignored = None
    pre_qty: Ignored = None
    cur_pre_listing_phase: Ignored = None
    delivery_time: Ignored = None
    delivery_fee_rate: Ignored = None
    predicted_delivery_price: Ignored = None
    basis_rate: Ignored = None
    basis_rate_year: Ignored = None
    basis: Ignored = None


class TickerFrame(Struct, gc=False, kw_only=True):
    """A ticker frame."""

    topic: str
    type: str
    ts: int
    data: Ticker
    cs: Ignored = None


class Control(Struct, gc=False, kw_only=True):
    """Answers to requests and pings. The pong's ``op`` is ``ping``: only ``ret_msg`` tells."""

    success: bool
    ret_msg: str
    op: str
    req_id: str = ""
    conn_id: Ignored = None


class Envelope(Struct, gc=False):
    """The topic alone."""

    topic: str | None = None


class PriceFilter(Struct, gc=False, rename="camel"):
    """Price step."""

    tick_size: float


class LotSizeFilter(Struct, gc=False, rename="camel"):
    """Size step and smallest order."""

    qty_step: float
    min_order_qty: float
    min_notional_value: float = 0.0


class InstrumentRow(Struct, gc=False, rename="camel"):
    """A row of ``/v5/market/instruments-info``; ``fundingInterval`` is in minutes."""

    symbol: str
    contract_type: str
    status: str
    base_coin: str
    quote_coin: str
    price_filter: PriceFilter
    lot_size_filter: LotSizeFilter
    funding_interval: int


class InstrumentPage(Struct, gc=False, rename="camel"):
    """A page of them."""

    rows: list[InstrumentRow] = msgspec.field(name="list")
    next_page_cursor: str = ""


class InstrumentAnswer(Struct, gc=False, rename="camel"):
    """Answer of ``/v5/market/instruments-info``."""

    result: InstrumentPage


class Answer(Struct, gc=False, rename="camel"):
    """What every answer has: its code and text."""

    ret_code: int
    ret_msg: str = ""
    time: int = 0


decode_envelope = msgspec.json.Decoder(Envelope).decode
decode_instruments = msgspec.json.Decoder(InstrumentAnswer, strict=False).decode
decode_answer = msgspec.json.Decoder(Answer, strict=False).decode
