"""Binance's wire types: payloads in its own spelling.

What belongs here: one struct a payload, nothing but fields. Members that are known and not used are ``Ignored``, so
that only members nobody knows are counted as unknown. Nothing outside ``binance`` imports this.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, Struct, UnsetType

from mts_realtime.exchanges.wire import Ignored, Price, Size, WireLevels

USD_MARGINED = 1
"""Value of ``st`` for USD-M contracts; streams mix them with COIN-M ones."""


class Depth(Struct, gc=False, kw_only=True):
    """Book levels: a picture on ``@depth<levels>``, updates on ``@depth``."""

    E: int
    T: int
    U: int
    u: int
    pu: int
    b: WireLevels
    a: WireLevels
    e: Ignored = None
    s: Ignored = None
    ps: Ignored = None
    st: Ignored = None


class DepthFrame(Struct, gc=False, kw_only=True):
    """A combined book frame."""

    stream: str
    data: Depth


class MarkPrice(Struct, gc=False, kw_only=True):
    """Mark price, index and the running funding rate (``r``, empty where none applies)."""

    E: int
    p: Price
    i: Size
    r: str
    T: int
    P: Ignored = None
    ap: Ignored = None
    e: Ignored = None
    s: Ignored = None
    ps: Ignored = None
    st: int = USD_MARGINED


class MarkPriceFrame(Struct, gc=False, kw_only=True):
    """A combined mark price frame."""

    stream: str
    data: MarkPrice


class Ticker(Struct, gc=False, kw_only=True):
    """Statistics of the trailing 24 hours; no best prices, no funding."""

    E: int
    c: Size
    v: Size
    q: Size
    e: Ignored = None
    s: Ignored = None
    p: Ignored = None
    P: Ignored = None
    w: Ignored = None
    Q: Ignored = None
    o: Ignored = None
    h: Ignored = None
    l: Ignored = None  # noqa: E741 - the exchange's name of the day's low
    O: Ignored = None  # noqa: E741 - the exchange's name of the open time
    C: Ignored = None
    F: Ignored = None
    L: Ignored = None
    n: Ignored = None
    nq: Ignored = None
    ps: Ignored = None
    st: Ignored = None


class TickerFrame(Struct, gc=False, kw_only=True):
    """A combined ticker frame."""

    stream: str
    data: Ticker


class Problem(Struct, gc=False, kw_only=True):
    """An error as a nested object."""

    code: int
    msg: str


class Control(Struct, gc=False, kw_only=True):
    """Answer to a request: ``{"result":null,"id":1}``, or an error in either of its two shapes."""

    id: int | str | None
    result: Ignored | UnsetType = UNSET
    error: Problem | None = None
    code: int | None = None
    msg: str | None = None


class Envelope(Struct, gc=False):
    """The stream name alone."""

    stream: str | None = None


class RestDepth(Struct, gc=False):
    """Answer of ``/fapi/v1/depth``."""

    lastUpdateId: int  # noqa: N815 - the exchange's spelling
    E: int
    T: int
    bids: WireLevels
    asks: WireLevels


class Symbol(Struct, gc=False, rename="camel"):
    """A row of ``/fapi/v1/exchangeInfo``."""

    symbol: str
    contract_type: str
    status: str
    base_asset: str
    quote_asset: str
    filters: list[dict[str, str | int]]


class ExchangeInfo(Struct, gc=False):
    """Answer of ``/fapi/v1/exchangeInfo``."""

    symbols: list[Symbol]


class FundingInfo(Struct, gc=False, rename="camel"):
    """A row of ``/fapi/v1/fundingInfo``: only symbols whose terms were adjusted."""

    symbol: str
    funding_interval_hours: float


class ServerTime(Struct, gc=False, rename="camel"):
    """Answer of ``/fapi/v1/time``."""

    server_time: int


decode_server_time = msgspec.json.Decoder(ServerTime, strict=False).decode
decode_envelope = msgspec.json.Decoder(Envelope).decode
decode_rest_depth = msgspec.json.Decoder(RestDepth, strict=False).decode
decode_exchange_info = msgspec.json.Decoder(ExchangeInfo, strict=False).decode
decode_funding_info = msgspec.json.Decoder(list[FundingInfo], strict=False).decode
