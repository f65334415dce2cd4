"""Binance USD-M futures: wire types, subscriptions, parsing, limits and errors.

What belongs here: everything that knows Binance's spelling. Books come over the ``/public`` route; mark price (the
only source of funding) and 24 h statistics over ``/market``. An acknowledged subscription proves nothing: a wrong
route is acknowledged too and stays silent, so only data makes a topic live. Sequence rules: ``sequence``.
"""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, ClassVar

import msgspec

from mts_realtime.book import OrderBook, PictureBook
from mts_realtime.diff_book import DiffBook, SyncBuffers
from mts_realtime.events import (
    Ack,
    BookDelta,
    BookSnapshot,
    Event,
    Feed,
    FundingUpdate,
    Instrument,
    Refusal,
    Subscription,
    TickerUpdate,
)
from mts_realtime.exchanges.base import Codec, ConnectionPlan, Exchange, KeepAlive, Refused, RestCall, RestGet
from mts_realtime.exchanges.binance_wire import (
    USD_MARGINED,
    Control,
    DepthFrame,
    MarkPriceFrame,
    Symbol,
    TickerFrame,
    decode_envelope,
    decode_exchange_info,
    decode_funding_info,
    decode_rest_depth,
    decode_server_time,
)
from mts_realtime.exchanges.sequence import BinanceDiffDepth, BinancePartialDepth
from mts_realtime.exchanges.wire import TolerantDecoder, UnknownFields, parse_number
from mts_realtime.instruments import canonical_symbol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mts_realtime.settings import RealtimeSettings

_STREAM_PREFIX = b'{"stream":"'
_PICTURE = re.compile(r"@depth(5|10|20)(@|$)")
_BANNED_UNTIL = re.compile(r"banned until (\d{13})")
_SNAPSHOT_WEIGHT = {5: 2, 10: 2, 20: 2, 50: 2, 100: 5, 500: 10, 1000: 20}
_DEFAULT_FUNDING_HOURS = 8.0


def _stream_of(raw: bytes) -> str | None:
    """Stream name of a combined frame, ``None`` for a control frame; never relies on the order of members."""
    if raw.startswith(_STREAM_PREFIX):
        return raw[11 : raw.index(b'"', 11)].decode()
    try:
        return decode_envelope(raw).stream
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


class BinanceCodec(Codec):
    """Reads the frames of one connection; keeps nothing but what it learned about stream names."""

    def __init__(self, unknown: UnknownFields) -> None:
        self._depth = TolerantDecoder("binance", "depth", DepthFrame, unknown).decode
        self._mark_price = TolerantDecoder("binance", "markPrice", MarkPriceFrame, unknown).decode
        self._ticker = TolerantDecoder("binance", "ticker", TickerFrame, unknown).decode
        self._control = TolerantDecoder("binance", "control", Control, unknown).decode
        self._readers: dict[bytes, Callable[[bytes, int], Event | None]] = {}

    def parse(self, raw: bytes, received_ns: int) -> tuple[Event, ...]:
        """Normalise one frame; see ``Codec.parse``."""
        if raw.startswith(_STREAM_PREFIX):
            name = raw[11 : raw.find(b'"', 11)]
            reader = self._readers.get(name)
            if reader is None:
                reader = self._readers[name] = self._reader_of(name.decode(errors="replace"))
        else:
            reader = self._reader_of(_stream_of(raw))
        event = reader(raw, received_ns)
        return () if event is None else (event,)

    def forget(self, topic: str) -> None:
        """Nothing is merged here."""

    def _reader_of(self, stream: str | None) -> Callable[[bytes, int], Event | None]:
        if stream is None:
            return self._read_control
        if _PICTURE.search(stream):
            return self._read_picture
        if "@depth" in stream:
            return self._read_diff
        if "@markPrice" in stream:
            return self._read_mark_price
        if stream.endswith("@ticker"):
            return self._read_ticker
        return _read_nothing

    def _read_picture(self, raw: bytes, received_ns: int) -> BookSnapshot:
        frame = self._depth(raw)
        data = frame.data
        return BookSnapshot(frame.stream, data.T, received_ns, data.u, data.pu, None, data.b, data.a)

    def _read_diff(self, raw: bytes, received_ns: int) -> BookDelta:
        frame = self._depth(raw)
        data = frame.data
        return BookDelta(frame.stream, data.T, received_ns, data.U, data.u, data.pu, None, data.b, data.a)

    def _read_mark_price(self, raw: bytes, received_ns: int) -> FundingUpdate | None:
        frame = self._mark_price(raw)
        data = frame.data
        if data.st != USD_MARGINED:
            return None
        rate = parse_number("binance", "markPrice: r", data.r)
        return FundingUpdate(frame.stream, data.E, received_ns, data.p, data.i or None, rate, data.T or None, None)

    def _read_ticker(self, raw: bytes, received_ns: int) -> TickerUpdate:
        frame = self._ticker(raw)
        data = frame.data
        return TickerUpdate(frame.stream, data.E, received_ns, data.c, data.v, data.q, None)

    def _read_control(self, raw: bytes, received_ns: int) -> Event:  # noqa: ARG002 - a reader's signature
        frame = self._control(raw)
        request = "" if frame.id is None else str(frame.id)
        if frame.error is not None:
            return Refusal(request, f"{frame.error.code} {frame.error.msg}")
        if frame.code is not None:
            return Refusal(request, f"{frame.code} {frame.msg or ''}")
        return Ack(request)


def _read_nothing(raw: bytes, received_ns: int) -> None:
    """A stream that nobody subscribed to."""


class Binance(Exchange):
    """Binance USD-M perpetuals."""

    name: ClassVar[str] = "binance"

    def __init__(self, settings: RealtimeSettings) -> None:
        super().__init__()
        self._settings = settings
        self._sync_buffers = SyncBuffers()
        self.rest_root = settings.binance_url
        self.rotate_s = settings.binance_rotate_s
        self.messages_per_s = settings.binance_messages_per_s
        self.connections_per_5min = settings.binance_connections_per_5min
        self.rest_budget = (settings.binance_weight_per_minute, 60.0)
        self.taker_fee_bps = settings.binance_taker_fee_bps
        interval = settings.binance_depth_interval_ms
        levels = settings.binance_depth_levels if settings.binance_depth == "partial" else ""
        self._depth_suffix = f"@depth{levels}" + ("" if interval == 250 else f"@{interval}ms")  # noqa: PLR2004

    def plan(self, instruments: Sequence[Instrument], feeds: frozenset[Feed]) -> list[ConnectionPlan]:
        """Books on the public route, the rest on the market route, a bounded number of streams each."""
        settings = self._settings
        public: list[Subscription] = []
        market: list[Subscription] = []
        for instrument in instruments:
            name = instrument.venue_symbol.lower()
            if Feed.ORDER_BOOK in feeds:
                public.append(Subscription(name + self._depth_suffix, instrument, (Feed.ORDER_BOOK,)))
            if Feed.FUNDING in feeds:
                market.append(Subscription(f"{name}@markPrice@1s", instrument, (Feed.FUNDING,)))
            if Feed.TICKERS in feeds:
                market.append(Subscription(f"{name}@ticker", instrument, (Feed.TICKERS,)))
        plans = []
        for route, path, streams in (
            ("public", settings.binance_public_route, public),
            ("market", settings.binance_market_route, market),
        ):
            for start in range(0, len(streams), settings.binance_streams_per_connection):
                part = tuple(streams[start : start + settings.binance_streams_per_connection])
                url = f"{settings.binance_ws_url.rstrip('/')}{path}/stream?streams={part[0].topic}"
                plans.append(ConnectionPlan(self.name, route, url, part, in_url=1))
        return plans

    def subscribe(self, topics: Sequence[str], request_id: int) -> list[str]:
        """One message names all streams: messages are limited to 10 a second, names are not."""
        return _requests("SUBSCRIBE", topics, request_id)

    def unsubscribe(self, topics: Sequence[str], request_id: int) -> list[str]:
        """The same, the other way."""
        return _requests("UNSUBSCRIBE", topics, request_id)

    def keep_alive(self) -> KeepAlive | None:
        """None: Binance pings on the WebSocket level, and the library answers with the ping's payload."""
        return None

    def codec(self) -> BinanceCodec:
        """A reader for a new connection."""
        return BinanceCodec(self.unknown_fields)

    def book(self, topic: str) -> OrderBook:
        """A picture book or a diff book, by the stream's name."""
        if self.is_picture(topic):
            return PictureBook(topic, BinancePartialDepth(topic))
        return DiffBook(topic, BinanceDiffDepth(topic), self._settings.binance_snapshot_levels, self._sync_buffers)

    def topic_of(self, raw: bytes) -> str | None:
        """Stream name of a frame."""
        return _stream_of(raw)

    def is_picture(self, topic: str) -> bool:
        """Partial depth has the number of levels right after ``depth``."""
        return _PICTURE.search(topic) is not None

    async def instruments(self, get: RestGet) -> dict[str, Instrument]:
        """Read ``exchangeInfo`` and ``fundingInfo``; a symbol absent from the latter settles every 8 hours."""
        listed = decode_exchange_info(await get(RestCall("/fapi/v1/exchangeInfo", {}, 1)))
        adjusted = decode_funding_info(await get(RestCall("/fapi/v1/fundingInfo", {}, 0)))
        hours = {row.symbol: row.funding_interval_hours for row in adjusted}
        return {
            row.symbol: _instrument(row, hours.get(row.symbol, _DEFAULT_FUNDING_HOURS))
            for row in listed.symbols
            if row.contract_type == "PERPETUAL" and row.status == "TRADING"
        }

    def clock_call(self) -> RestCall:
        """``/fapi/v1/time``."""
        return RestCall("/fapi/v1/time", {}, 1)

    def parse_clock(self, body: bytes) -> int:
        """Read its answer."""
        return decode_server_time(body).server_time

    def snapshot_call(self, topic: str) -> RestCall | None:
        """The depth call for diff books; pictures need none."""
        if self.is_picture(topic):
            return None
        levels = self._settings.binance_snapshot_levels
        symbol = topic.partition("@")[0].upper()
        return RestCall("/fapi/v1/depth", {"symbol": symbol, "limit": str(levels)}, _SNAPSHOT_WEIGHT[levels])

    def parse_snapshot(self, topic: str, body: bytes, received_ns: int) -> BookSnapshot:
        """Read the depth call's answer."""
        depth = decode_rest_depth(body)
        return BookSnapshot(topic, depth.T, received_ns, depth.lastUpdateId, None, None, depth.bids, depth.asks)

    def classify(self, status: int, headers: Mapping[str, str], body: bytes, now_ms: int) -> Refused | None:
        """Bans carry their end; a blocked location is for good; 5xx may be tried again."""
        if status < HTTPStatus.BAD_REQUEST:
            return None
        text = body[:300].decode(errors="replace")
        if status in (418, 429):
            wait_s = _ban_wait_s(headers, text, now_ms)
            return Refused(problem=f"HTTP {status}, too many requests: {text}", wait_s=wait_s)
        if status in (403, 451):
            problem = f"HTTP {status}, this location or network is blocked; use another host or exchange: {text}"
            return Refused(problem=problem, terminal=True)
        return Refused(problem=f"HTTP {status}: {text}", terminal=status < HTTPStatus.INTERNAL_SERVER_ERROR)


def _requests(method: str, topics: Sequence[str], request_id: int) -> list[str]:
    if not topics:
        return []
    return [json.dumps({"method": method, "params": list(topics), "id": request_id}, separators=(",", ":"))]


def _ban_wait_s(headers: Mapping[str, str], text: str, now_ms: int) -> float:
    """Retry-After, else the time in the message, else until the next minute begins."""
    after = headers.get("Retry-After", "")
    if after.isdigit():
        return float(after)
    if match := _BANNED_UNTIL.search(text):
        return max(0.0, (int(match[1]) - now_ms) / 1000.0)
    return 60.0 - now_ms / 1000.0 % 60.0


def _instrument(row: Symbol, funding_interval_hours: float) -> Instrument:
    filters = {str(item["filterType"]): item for item in row.filters}
    lot = filters["LOT_SIZE"]
    return Instrument(
        exchange="binance",
        venue_symbol=row.symbol,
        symbol=canonical_symbol(row.base_asset, row.quote_asset),
        tick_size=float(filters["PRICE_FILTER"]["tickSize"]),
        size_step=float(lot["stepSize"]),
        min_size=float(lot["minQty"]),
        min_notional=float(filters.get("MIN_NOTIONAL", {}).get("notional", 0.0)),
        funding_interval_hours=funding_interval_hours,
    )
