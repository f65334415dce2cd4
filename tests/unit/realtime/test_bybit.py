"""Bybit's spelling: frames, merged tickers, subscriptions, errors. Frames are recorded ones wherever there are any."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mts_realtime.errors import FrameError
from mts_realtime.events import (
    Ack,
    BookDelta,
    BookSnapshot,
    Feed,
    FundingUpdate,
    Instrument,
    Pong,
    Refusal,
    TickerUpdate,
)
from mts_realtime.exchanges.base import RestCall
from mts_realtime.exchanges.bybit import Bybit
from mts_realtime.settings import RealtimeSettings

RECORDING = "bybit_v5/linear_BTCUSDT_ETHUSDT_20260809.jsonl.gz"


def book_frame(kind: str, u: int, seq: int, **extra: object) -> bytes:
    frame = {"topic": "orderbook.50.BTCUSDT", "type": kind, "ts": 5, "data": {"s": "BTCUSDT", "b": [], "a": []}}
    frame["data"] |= {"u": u, "seq": seq}  # type: ignore[operator]
    return json.dumps({**frame, "cts": 4, **extra}).encode()


def ticker_frame(kind: str, **data: str) -> bytes:
    frame = {"topic": "tickers.BTCUSDT", "type": kind, "data": {"symbol": "BTCUSDT", **data}, "cs": 1, "ts": 5}
    return json.dumps(frame, separators=(",", ":")).encode()


@pytest.fixture
def bybit(make_settings: Callable[..., RealtimeSettings]) -> Bybit:
    return Bybit(make_settings())


def test_recording_parses_whole(
    bybit: Bybit, wrapped_frames: Callable[[str, int], Iterator[tuple[int, bytes]]]
) -> None:
    """All 1,315 received frames: 2 + 833 books, 401 tickers, 17 acknowledgements, no unknown member."""
    codec = bybit.codec()
    kinds = Counter(
        type(event).__name__ for ns, raw in wrapped_frames(RECORDING, 10**9) for event in codec.parse(raw, ns)
    )
    assert kinds == {"BookSnapshot": 2, "BookDelta": 833, "FundingUpdate": 401, "TickerUpdate": 401, "Ack": 17}
    assert bybit.unknown_fields == {}


def test_sparse_ticker_keeps_funding_from_the_snapshot(
    bybit: Bybit, wrapped_frames: Callable[[str, int], Iterator[tuple[int, bytes]]]
) -> None:
    """Of 399 deltas one carries a funding rate and none a settlement time, yet every event knows both."""
    codec = bybit.codec()
    funding = [
        event
        for ns, raw in wrapped_frames(RECORDING, 10**9)
        for event in codec.parse(raw, ns)
        if isinstance(event, FundingUpdate)
    ]
    assert all(event.funding_rate is not None and event.next_funding_ms == 1786320000000 for event in funding)
    assert {event.interval_hours for event in funding} == {8.0}


def test_book_time_is_the_matching_engines(bybit: Bybit) -> None:
    """``cts`` counts, not the push time ``ts``."""
    (event,) = bybit.codec().parse(book_frame("delta", 7, 100), 9)
    assert isinstance(event, BookDelta)
    assert (event.exchange_time_ms, event.last_id, event.previous_id, event.cross_id) == (4, 7, 6, 100)


def test_update_id_one_is_a_snapshot_whatever_the_type_says(bybit: Bybit) -> None:
    """``u`` equal to 1 means that the service started again (rule B2)."""
    (event,) = bybit.codec().parse(book_frame("delta", 1, 100), 9)
    assert isinstance(event, BookSnapshot)


def test_unknown_book_type_is_refused(bybit: Bybit) -> None:
    """A type that is neither snapshot nor delta must not be guessed."""
    with pytest.raises(FrameError, match="neither snapshot nor delta"):
        bybit.codec().parse(book_frame("patch", 7, 100), 9)


def test_ticker_delta_before_its_snapshot_gives_nothing(bybit: Bybit) -> None:
    """There is nothing to merge it into."""
    assert bybit.codec().parse(ticker_frame("delta", markPrice="5"), 9) == ()


def test_ticker_merges_and_forgets(bybit: Bybit) -> None:
    """A missing member is unchanged, an empty one is gone, a forgotten topic starts over."""
    codec = bybit.codec()
    codec.parse(
        ticker_frame(
            "snapshot",
            markPrice="10",
            indexPrice="11",
            fundingRate="0.0001",
            nextFundingTime="1000",
            fundingIntervalHour="4",
            lastPrice="9",
            volume24h="1",
            turnover24h="2",
            openInterest="3",
        ),
        1,
    )
    funding, ticker = codec.parse(ticker_frame("delta", markPrice="12", indexPrice="", openInterest=""), 2)
    assert funding == FundingUpdate("tickers.BTCUSDT", 5, 2, 12.0, None, 0.0001, 1000, 4.0)
    assert ticker == TickerUpdate("tickers.BTCUSDT", 5, 2, 9.0, 1.0, 2.0, None)
    codec.forget("tickers.BTCUSDT")
    assert codec.parse(ticker_frame("delta", markPrice="13"), 3) == ()


def test_new_connection_knows_nothing_of_the_old_ones_ticker(bybit: Bybit) -> None:
    """Merged state dies with the connection."""
    bybit.codec().parse(ticker_frame("snapshot", markPrice="10"), 1)
    assert bybit.codec().parse(ticker_frame("delta", markPrice="12"), 2) == ()


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"success":true,"ret_msg":"pong","conn_id":"c","req_id":"","op":"ping"}', Pong()),
        (b'{"success":true,"ret_msg":"","conn_id":"c","req_id":"1","op":"subscribe"}', Ack("1")),
        (
            b'{"success":false,"ret_msg":"error:handler not found","conn_id":"c","req_id":"2","op":"subscribe"}',
            Refusal("2", "error:handler not found"),
        ),
    ],
)
def test_control_frames(bybit: Bybit, raw: bytes, expected: object) -> None:
    """The pong says ``op`` ping: only ``ret_msg`` tells."""
    assert bybit.codec().parse(raw, 7) == (expected,)


def test_order_of_members_does_not_matter(bybit: Bybit) -> None:
    """Topic first or last, the frame reads the same."""
    frame = json.loads(book_frame("delta", 7, 100))
    turned = json.dumps(dict(reversed(frame.items()))).encode()
    assert bybit.codec().parse(turned, 9) == bybit.codec().parse(book_frame("delta", 7, 100), 9)
    assert bybit.topic_of(turned) == "orderbook.50.BTCUSDT"


@pytest.mark.parametrize("raw", [b"x", b"[]", b'{"topic":"orderbook.50.BTCUSDT","type":"delta"}', b'{"a":1}'])
def test_broken_frame_goes_to_quarantine(bybit: Bybit, raw: bytes) -> None:
    """Whatever cannot be read is a FrameError, never another exception."""
    with pytest.raises(FrameError):
        bybit.codec().parse(raw, 7)


def test_ticker_number_that_is_none_is_refused(bybit: Bybit) -> None:
    """A funding rate that is not a number must not become one."""
    with pytest.raises(FrameError, match="funding_rate is 'x'"):
        bybit.codec().parse(ticker_frame("snapshot", fundingRate="x"), 7)


def test_plan_separates_books_from_tickers_and_counts_characters(
    make_settings: Callable[..., RealtimeSettings], make_instrument: Callable[..., Instrument]
) -> None:
    """Funding never waits behind books, and no connection carries more topic text than allowed."""
    bybit = Bybit(make_settings(bybit_args_chars=100))
    instruments = [make_instrument("bybit", f"COIN{number}USDT") for number in range(9)]
    plans = bybit.plan(instruments, frozenset(Feed))
    assert {plan.route for plan in plans} == {"books", "tickers"}
    for plan in plans:
        assert len(json.dumps([topic.topic for topic in plan.subscriptions], separators=(",", ":"))) <= 101
    carried = [topic.topic for plan in plans for topic in plan.subscriptions]
    assert sorted(carried) == sorted(
        [f"orderbook.50.COIN{number}USDT" for number in range(9)] + [f"tickers.COIN{number}USDT" for number in range(9)]
    )
    assert plans[-1].subscriptions[0].feeds == (Feed.FUNDING, Feed.TICKERS)


def test_a_bad_topic_fails_only_its_request(bybit: Bybit) -> None:
    """Requests are cut into parts with ids that count up."""
    first, second = (json.loads(text) for text in bybit.subscribe([f"tickers.C{n}USDT" for n in range(60)], 4))
    assert (len(first["args"]), len(second["args"])) == (50, 10)
    assert (first["req_id"], second["req_id"], first["op"]) == ("4", "5", "subscribe")


async def test_recorded_instruments_and_paging(bybit: Bybit, shared_data: Path) -> None:
    """All pages are read; dated futures are left out; intervals come in minutes."""
    body = gzip.decompress((shared_data / "rest" / "bybit_v5_instruments-info_linear_20260809.json.gz").read_bytes())
    whole = json.loads(body)
    rows = whole["result"]["list"]
    calls: list[RestCall] = []

    async def get(call: RestCall) -> bytes:
        calls.append(call)
        start = int(call.query.get("cursor", "0"))
        page = {"list": rows[start : start + 300], "nextPageCursor": str(start + 300) if start + 300 < 800 else ""}
        return json.dumps({**whole, "result": page}).encode()

    listed = await bybit.instruments(get)
    assert len(calls) == 3
    assert set(listed) == {row["symbol"] for row in rows if row["contractType"] == "LinearPerpetual"}
    assert listed["0GUSDT"].funding_interval_hours == 4.0
    assert (listed["BTCUSDT"].tick_size, listed["BTCUSDT"].size_step) == (0.1, 0.001)


@pytest.mark.parametrize(
    ("status", "headers", "body", "wait_s", "terminal"),
    [
        (403, {}, b"access too frequent", 600.0, False),
        (403, {}, b"configured to block access from your country", None, True),
        (429, {}, b"", None, False),
        (200, {"X-Bapi-Limit-Reset-Timestamp": "2500"}, b'{"retCode":10006,"retMsg":"Too many visits"}', 1.5, False),
        (200, {}, b'{"retCode":10016,"retMsg":"server error"}', None, False),
        (200, {}, b'{"retCode":10001,"retMsg":"bad parameter"}', None, True),
        (200, {}, b"<html>", None, False),
        (502, {}, b"", None, False),
        (404, {}, b"", None, True),
    ],
)
def test_refusals(
    bybit: Bybit, status: int, headers: dict[str, str], body: bytes, wait_s: float | None, terminal: bool
) -> None:
    """HTTP first, then retCode; an overrun means ten minutes of rest."""
    refused = bybit.classify(status, headers, body, 1000)
    assert refused is not None
    assert (refused.wait_s, refused.terminal) == (wait_s, terminal)


@pytest.mark.parametrize("body", [b"", b'{"retCode":0,"retMsg":"OK"}'])
def test_good_answer_is_no_refusal(bybit: Bybit, body: bytes) -> None:
    """A handshake without a body and a zero retCode pass."""
    assert bybit.classify(200, {}, body, 0) is None
