"""Bybit v5 public streams, category linear: wire types, subscriptions, parsing, limits and errors.

What belongs here: everything that knows Bybit's spelling. Ticker messages are sparse (a missing member means
unchanged), so the codec keeps a merged state per topic, which dies with the connection. Books and tickers use
separate connections: funding never waits behind books. Sequence rules: ``sequence``.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, ClassVar

import msgspec
from msgspec import UNSET, Struct

from mts_realtime.book import DeltaBook, OrderBook
from mts_realtime.errors import ExchangeError, FrameError
from mts_realtime.events import (
    Ack,
    BookDelta,
    BookSnapshot,
    Event,
    Feed,
    FundingUpdate,
    Instrument,
    Pong,
    Refusal,
    Subscription,
    TickerUpdate,
)
from mts_realtime.exchanges.base import Codec, ConnectionPlan, Exchange, KeepAlive, Refused, RestCall, RestGet
from mts_realtime.exchanges.bybit_wire import (
    BookFrame,
    Control,
    InstrumentRow,
    Ticker,
    TickerFrame,
    decode_answer,
    decode_envelope,
    decode_instruments,
)
from mts_realtime.exchanges.sequence import BybitOrderBook
from mts_realtime.exchanges.wire import TolerantDecoder, UnknownFields, parse_number
from mts_realtime.instruments import canonical_symbol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mts_realtime.settings import RealtimeSettings

_TOPIC_PREFIX = b'{"topic":"'
_BOOK_PREFIX = b'{"topic":"orderbook.'
_TICKER_PREFIX = b'{"topic":"tickers.'
_RESTARTED = 1
_OVERRUN_WAIT_S = 600.0
_RETRYABLE_CODES = frozenset({10000, 10006, 10016, 10018, 10429})


def _topic_of(raw: bytes) -> str | None:
    """Topic of a data frame, ``None`` for a control frame; never relies on the order of members."""
    if raw.startswith(_TOPIC_PREFIX):
        return raw[10 : raw.index(b'"', 10)].decode()
    try:
        return decode_envelope(raw).topic
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


class _Merged(Struct, gc=False):
    """What is known of a ticker; a later message overwrites only what it carries."""

    mark_price: float | None = None
    index_price: float | None = None
    funding_rate: float | None = None
    next_funding_time: float | None = None
    funding_interval_hour: float | None = None
    last_price: float | None = None
    volume24h: float | None = None
    turnover24h: float | None = None
    open_interest: float | None = None


class BybitCodec(Codec):
    """Reads the frames of one connection and merges its sparse tickers."""

    def __init__(self, unknown: UnknownFields) -> None:
        self._book = TolerantDecoder("bybit", "orderbook", BookFrame, unknown).decode
        self._ticker = TolerantDecoder("bybit", "tickers", TickerFrame, unknown).decode
        self._control = TolerantDecoder("bybit", "control", Control, unknown).decode
        self._merged: dict[str, _Merged] = {}

    def parse(self, raw: bytes, received_ns: int) -> tuple[Event, ...]:
        """Normalise one frame; see ``Codec.parse``."""
        if raw.startswith(_BOOK_PREFIX):
            return (self._read_book(raw, received_ns),)
        if raw.startswith(_TICKER_PREFIX):
            return self._read_ticker(raw, received_ns)
        topic = _topic_of(raw)
        if topic is None:
            return (self._read_control(raw),)
        if topic.startswith("orderbook."):
            return (self._read_book(raw, received_ns),)
        if topic.startswith("tickers."):
            return self._read_ticker(raw, received_ns)
        return ()

    def forget(self, topic: str) -> None:
        """Drop the merged ticker of a topic that is subscribed to again."""
        self._merged.pop(topic, None)

    def _read_book(self, raw: bytes, received_ns: int) -> BookSnapshot | BookDelta:
        frame = self._book(raw)
        data = frame.data
        time_ms = frame.ts if frame.cts is None else frame.cts
        if frame.type == "snapshot" or data.u == _RESTARTED:
            return BookSnapshot(frame.topic, time_ms, received_ns, data.u, None, data.seq, data.b, data.a)
        if frame.type != "delta":
            raise FrameError("bybit", f"orderbook: type {frame.type!r} is neither snapshot nor delta")
        return BookDelta(frame.topic, time_ms, received_ns, data.u, data.u, data.u - 1, data.seq, data.b, data.a)

    def _read_ticker(self, raw: bytes, received_ns: int) -> tuple[Event, ...]:
        frame = self._ticker(raw)
        merged = self._merged.get(frame.topic)
        if frame.type == "snapshot":
            merged = self._merged[frame.topic] = _Merged()
        elif merged is None:
            return ()
        _merge(merged, frame.data)
        return _events_of(frame.topic, frame.ts, received_ns, merged)

    def _read_control(self, raw: bytes) -> Event:
        frame = self._control(raw)
        if frame.ret_msg == "pong":
            return Pong()
        return Ack(frame.req_id) if frame.success else Refusal(frame.req_id, frame.ret_msg)


def _merge(merged: _Merged, data: Ticker) -> None:
    """Overwrite what the message carries; an empty text means that there is no value any more."""
    for name in _Merged.__struct_fields__:
        text = getattr(data, name)
        if text is not UNSET:
            setattr(merged, name, parse_number("bybit", f"tickers: {name}", text))


def _events_of(topic: str, time_ms: int, received_ns: int, merged: _Merged) -> tuple[Event, ...]:
    events: list[Event] = []
    if merged.mark_price is not None:
        settles = merged.next_funding_time
        events.append(
            FundingUpdate(
                topic,
                time_ms,
                received_ns,
                merged.mark_price,
                merged.index_price,
                merged.funding_rate,
                int(settles) if settles else None,
                merged.funding_interval_hour,
            )
        )
    if merged.last_price is not None and merged.volume24h is not None and merged.turnover24h is not None:
        events.append(
            TickerUpdate(
                topic,
                time_ms,
                received_ns,
                merged.last_price,
                merged.volume24h,
                merged.turnover24h,
                merged.open_interest,
            )
        )
    return tuple(events)


class Bybit(Exchange):
    """Bybit linear perpetuals."""

    name: ClassVar[str] = "bybit"

    def __init__(self, settings: RealtimeSettings) -> None:
        super().__init__()
        self._settings = settings
        self.rest_root = settings.bybit_url
        self.rotate_s = settings.bybit_rotate_s
        self.messages_per_s = settings.bybit_messages_per_s
        self.connections_per_5min = settings.bybit_connections_per_5min
        self.rest_budget = (settings.bybit_requests_per_5s, 5.0)
        self.taker_fee_bps = settings.bybit_taker_fee_bps

    def plan(self, instruments: Sequence[Instrument], feeds: frozenset[Feed]) -> list[ConnectionPlan]:
        """Books and tickers apart; a new connection wherever the topics' text grows too long."""
        books: list[Subscription] = []
        tickers: list[Subscription] = []
        in_ticker = tuple(feed for feed in (Feed.FUNDING, Feed.TICKERS) if feed in feeds)
        for instrument in instruments:
            name = instrument.venue_symbol
            if Feed.ORDER_BOOK in feeds:
                topic = f"orderbook.{self._settings.bybit_depth}.{name}"
                books.append(Subscription(topic, instrument, (Feed.ORDER_BOOK,)))
            if in_ticker:
                tickers.append(Subscription(f"tickers.{name}", instrument, in_ticker))
        url = self._settings.bybit_ws_url
        return [
            ConnectionPlan(self.name, route, url, part)
            for route, subscriptions in (("books", books), ("tickers", tickers))
            for part in _by_length(subscriptions, self._settings.bybit_args_chars)
        ]

    def subscribe(self, topics: Sequence[str], request_id: int) -> list[str]:
        """Several requests, so that one bad topic fails only the topics of its request."""
        return self._requests("subscribe", topics, request_id)

    def unsubscribe(self, topics: Sequence[str], request_id: int) -> list[str]:
        """The same, the other way."""
        return self._requests("unsubscribe", topics, request_id)

    def _requests(self, operation: str, topics: Sequence[str], request_id: int) -> list[str]:
        size = self._settings.bybit_topics_per_request
        return [
            json.dumps(
                {"op": operation, "args": list(topics[start : start + size]), "req_id": str(request_id + number)},
                separators=(",", ":"),
            )
            for number, start in enumerate(range(0, len(topics), size))
        ]

    def keep_alive(self) -> KeepAlive | None:
        """Bybit wants a JSON ping; without it the server cuts the connection."""
        message = '{"req_id":"ping","op":"ping"}'
        return KeepAlive(message, self._settings.bybit_ping_s, self._settings.bybit_pong_timeout_s)

    def codec(self) -> BybitCodec:
        """A reader for a new connection."""
        return BybitCodec(self.unknown_fields)

    def book(self, topic: str) -> OrderBook:
        """A delta book; level 1 sends snapshots only, which is the same with no delta in between."""
        return DeltaBook(topic, BybitOrderBook(topic))

    def topic_of(self, raw: bytes) -> str | None:
        """Topic of a frame."""
        return _topic_of(raw)

    def is_picture(self, topic: str) -> bool:
        """Level 1 sends nothing but snapshots."""
        return topic.startswith("orderbook.1.")

    async def instruments(self, get: RestGet) -> dict[str, Instrument]:
        """Read all pages of ``instruments-info``."""
        found: dict[str, Instrument] = {}
        query = {"category": "linear", "limit": "1000"}
        while True:
            page = decode_instruments(await get(RestCall("/v5/market/instruments-info", query, 1))).result
            found |= {
                row.symbol: _instrument(row)
                for row in page.rows
                if row.contract_type == "LinearPerpetual" and row.status == "Trading"
            }
            if not page.next_page_cursor:
                return found
            query = {**query, "cursor": page.next_page_cursor}

    def clock_call(self) -> RestCall:
        """``/v5/market/time``."""
        return RestCall("/v5/market/time", {}, 1)

    def parse_clock(self, body: bytes) -> int:
        """Read its answer; every answer carries the time."""
        return decode_answer(body).time

    def snapshot_call(self, topic: str) -> RestCall | None:  # noqa: ARG002 - the interface's signature
        """None: the stream brings the snapshot. REST counts ``u`` of another depth and cannot be spliced."""
        return None

    def parse_snapshot(self, topic: str, body: bytes, received_ns: int) -> BookSnapshot:  # noqa: ARG002
        """Never asked for; see ``snapshot_call``."""
        raise ExchangeError("bybit", f"{topic} takes its snapshot from the stream, not over REST", terminal=True)

    def classify(self, status: int, headers: Mapping[str, str], body: bytes, now_ms: int) -> Refused | None:
        """HTTP first, then ``retCode``: most refusals come with HTTP 200."""
        text = body[:300].decode(errors="replace")
        if status == HTTPStatus.FORBIDDEN:
            if "too frequent" in text:
                return Refused(problem=f"HTTP 403, too many requests: {text}", wait_s=_OVERRUN_WAIT_S)
            return Refused(problem=f"HTTP 403, this location is blocked; use a regional host: {text}", terminal=True)
        if status >= HTTPStatus.BAD_REQUEST:
            for_good = status < HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.TOO_MANY_REQUESTS
            return Refused(problem=f"HTTP {status}: {text}", terminal=for_good)
        return _refused_in_body(body, text, headers, now_ms) if body else None


def _refused_in_body(body: bytes, text: str, headers: Mapping[str, str], now_ms: int) -> Refused | None:
    try:
        answer = decode_answer(body)
    except msgspec.DecodeError:
        return Refused(problem=f"a body that is not Bybit's JSON: {text}")
    if answer.ret_code == 0:
        return None
    return Refused(
        problem=f"retCode {answer.ret_code}: {answer.ret_msg}",
        wait_s=_reset_wait_s(headers, now_ms),
        terminal=answer.ret_code not in _RETRYABLE_CODES,
    )


def _by_length(subscriptions: Sequence[Subscription], limit: int) -> list[tuple[Subscription, ...]]:
    """Cut where the topics, with quotes and comma, would exceed ``limit`` characters."""
    parts: list[list[Subscription]] = []
    length = limit
    for subscription in subscriptions:
        size = len(subscription.topic) + 3
        if length + size > limit:
            parts.append([])
            length = 0
        parts[-1].append(subscription)
        length += size
    return [tuple(part) for part in parts]


def _reset_wait_s(headers: Mapping[str, str], now_ms: int) -> float | None:
    reset = headers.get("X-Bapi-Limit-Reset-Timestamp", "")
    return max(0.0, (int(reset) - now_ms) / 1000.0) if reset.isdigit() else None


def _instrument(row: InstrumentRow) -> Instrument:
    return Instrument(
        exchange="bybit",
        venue_symbol=row.symbol,
        symbol=canonical_symbol(row.base_coin, row.quote_coin),
        tick_size=row.price_filter.tick_size,
        size_step=row.lot_size_filter.qty_step,
        min_size=row.lot_size_filter.min_order_qty,
        min_notional=row.lot_size_filter.min_notional_value,
        funding_interval_hours=row.funding_interval / 60.0 if row.funding_interval else None,
    )
