"""Binance's spelling: frames, subscriptions, limits, errors. Frames are recorded ones wherever there are any."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mts_realtime.book import PictureBook
from mts_realtime.diff_book import DiffBook
from mts_realtime.errors import FrameError
from mts_realtime.events import (
    Ack,
    BookDelta,
    BookSnapshot,
    Feed,
    FundingUpdate,
    Instrument,
    Refusal,
    TickerUpdate,
)
from mts_realtime.exchanges.base import RestCall
from mts_realtime.exchanges.binance import Binance
from mts_realtime.settings import RealtimeSettings

MARK = (
    b'{"stream":"btcusdt@markPrice@1s","data":{"e":"markPriceUpdate","E":1790755199000,"s":"BTCUSDT",'
    b'"p":"83259.6","ap":"83259.6","P":"83390.5","i":"83301.3","r":"%s","T":%d,"st":%d}}'
)


@pytest.fixture
def binance(make_settings: Callable[..., RealtimeSettings]) -> Binance:
    return Binance(make_settings())


def test_recorded_picture(binance: Binance, bare_frames: Callable[[str], list[bytes]]) -> None:
    """A depth20 frame is a snapshot of 20 falling bids and 20 rising asks at transaction time."""
    (raw,) = bare_frames("binance_usdm/depth20_100ms_btcusdt_20240418.jsonl")
    (event,) = binance.codec().parse(raw, 7)
    assert isinstance(event, BookSnapshot)
    assert (event.topic, event.exchange_time_ms, event.received_ns) == ("btcusdt@depth20@100ms", 1713448582479, 7)
    assert (event.last_id, event.previous_id) == (4445146133983, 4445146127899)
    assert event.bids[0] == (62462.50, 1.966)
    assert event.asks[-1] == (62467.50, 0.008)
    assert len(event.bids) == len(event.asks) == 20


def test_same_event_type_is_a_delta_on_the_diff_stream(
    binance: Binance, bare_frames: Callable[[str], list[bytes]]
) -> None:
    """Only the stream name tells pictures from updates; today's members ps and st are known."""
    (raw,) = bare_frames("binance_usdm/depthUpdate_demo_20260915.jsonl")
    (event,) = binance.codec().parse(raw, 7)
    assert isinstance(event, BookDelta)
    assert (event.first_id, event.last_id, event.previous_id) == (429012275424, 429012275789, 429012275360)
    assert (event.bids, event.asks) == ([], [(77021.60, 650.0043)])
    assert binance.unknown_fields == {}


def test_recorded_mark_prices(binance: Binance, bare_frames: Callable[[str], list[bytes]]) -> None:
    """Funding comes from mark price frames; rates can be negative."""
    codec = binance.codec()
    raws = bare_frames("binance_usdm/markPrice_1s_funding_rollover_20260930.jsonl")
    events = [event for raw in raws for event in codec.parse(raw, 7)]
    assert len(events) == 12
    first = events[0]
    assert isinstance(first, FundingUpdate)
    assert (first.mark_price, first.index_price) == (83259.61836957, 83301.31260870)
    assert (first.funding_rate, first.next_funding_ms) == (-0.00000189, 1790755200000)
    assert binance.unknown_fields == {}


def test_recorded_single_frames(binance: Binance, bare_frames: Callable[[str], list[bytes]]) -> None:
    """Older shapes still parse; array and foreign streams, which nobody subscribed to, give nothing."""
    codec = binance.codec()
    kinds = [
        type(event).__name__
        for raw in bare_frames("binance_usdm/single_frames_2021-2022.jsonl")
        for event in codec.parse(raw, 7)
    ]
    assert sorted(kinds) == ["BookDelta"] * 2 + ["BookSnapshot"] * 2 + ["FundingUpdate"] + ["TickerUpdate"] * 2


def test_recorded_ticker(binance: Binance, bare_frames: Callable[[str], list[bytes]]) -> None:
    """The ticker carries trailing 24 h totals."""
    raw = next(raw for raw in bare_frames("binance_usdm/single_frames_2021-2022.jsonl") if b'"ethusdt@ticker"' in raw)
    (event,) = binance.codec().parse(raw, 7)
    assert isinstance(event, TickerUpdate)
    assert (event.last_price, event.volume_24h_base, event.turnover_24h_quote) == (1782.02, 1678290.411, 2990736920.72)


def test_delivery_contract_has_no_funding(binance: Binance) -> None:
    """An empty rate and a zero time mean none, never zero."""
    (event,) = binance.codec().parse(MARK % (b"", 0, 1), 7)
    assert isinstance(event, FundingUpdate)
    assert event.funding_rate is None
    assert event.next_funding_ms is None


def test_coin_margined_rows_are_left_out(binance: Binance) -> None:
    """Streams mix margin kinds since 2026-06: only st 1 is ours."""
    assert binance.codec().parse(MARK % (b"0.0001", 1790755200000, 2), 7) == ()


def test_order_of_members_does_not_matter(binance: Binance, bare_frames: Callable[[str], list[bytes]]) -> None:
    """A frame with data before stream reads the same."""
    (raw,) = bare_frames("binance_usdm/depth20_100ms_btcusdt_20240418.jsonl")
    frame = json.loads(raw)
    turned = json.dumps({"data": frame["data"], "stream": frame["stream"]}).encode()
    assert binance.codec().parse(turned, 7) == binance.codec().parse(raw, 7)
    assert binance.topic_of(turned) == binance.topic_of(raw) == "btcusdt@depth20@100ms"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"result":null,"id":3}', Ack("3")),
        (b'{"error":{"code":2,"msg":"Invalid request"},"id":4}', Refusal("4", "2 Invalid request")),
        (b'{"code":-1130,"msg":"bad","id":5}', Refusal("5", "-1130 bad")),
    ],
)
def test_control_frames(binance: Binance, raw: bytes, expected: object) -> None:
    """Acknowledgements and both shapes of refusals."""
    assert binance.codec().parse(raw, 7) == (expected,)
    assert binance.topic_of(raw) is None


@pytest.mark.parametrize("raw", [b"[1,2]", b"nonsense", b'{"stream":"btcusdt@depth20@100ms","data":{"u":1}}', b"\xff"])
def test_broken_frame_goes_to_quarantine(binance: Binance, raw: bytes) -> None:
    """Whatever cannot be read is a FrameError, never another exception."""
    with pytest.raises(FrameError):
        binance.codec().parse(raw, 7)


def test_plan_keeps_books_and_mark_prices_on_their_routes(
    binance: Binance, make_instrument: Callable[..., Instrument]
) -> None:
    """Books on /public, mark price and ticker on /market; at most 200 streams each."""
    instruments = [make_instrument(symbol=f"C{number}USDT") for number in range(150)]
    plans = binance.plan(instruments, frozenset(Feed))
    assert [(plan.route, len(plan.subscriptions)) for plan in plans] == [
        ("public", 150),
        ("market", 200),
        ("market", 100),
    ]
    assert plans[0].url == "wss://fstream.binance.com/public/stream?streams=c0usdt@depth20@100ms"
    assert plans[1].url == "wss://fstream.binance.com/market/stream?streams=c0usdt@markPrice@1s"
    assert {topic.topic.partition("@")[2] for topic in plans[1].subscriptions} == {"markPrice@1s", "ticker"}


def test_funding_only_needs_no_public_route(binance: Binance, make_instrument: Callable[..., Instrument]) -> None:
    """Without books there is no connection for books."""
    (plan,) = binance.plan([make_instrument()], frozenset({Feed.FUNDING}))
    assert [topic.topic for topic in plan.subscriptions] == ["btcusdt@markPrice@1s"]


def test_one_message_subscribes_to_everything(binance: Binance) -> None:
    """Messages are scarce (10 a second), names in a message are not."""
    (message,) = binance.subscribe([f"c{number}usdt@ticker" for number in range(199)], 9)
    assert json.loads(message)["method"] == "SUBSCRIBE"
    assert json.loads(message)["id"] == 9
    assert len(json.loads(message)["params"]) == 199
    assert binance.subscribe([], 9) == []


def test_depth_mode_decides_the_stream_and_the_book(
    make_settings: Callable[..., RealtimeSettings], make_instrument: Callable[..., Instrument]
) -> None:
    """Diff depth at the default interval has a bare name and starts from REST; partial depth does not."""
    diff = Binance(make_settings(binance_depth="diff", binance_depth_interval_ms=250))
    (plan,) = diff.plan([make_instrument()], frozenset({Feed.ORDER_BOOK}))
    assert plan.subscriptions[0].topic == "btcusdt@depth"
    assert isinstance(diff.book("btcusdt@depth"), DiffBook)
    assert diff.snapshot_call("btcusdt@depth@100ms") == RestCall(
        "/fapi/v1/depth", {"symbol": "BTCUSDT", "limit": "1000"}, 20
    )
    partial = Binance(make_settings())
    assert isinstance(partial.book("btcusdt@depth20@100ms"), PictureBook)
    assert partial.snapshot_call("btcusdt@depth20@100ms") is None


def test_recorded_rest_snapshot(binance: Binance, shared_data: Path) -> None:
    """The depth call's answer becomes a snapshot event."""
    body = (shared_data / "rest" / "binance_fapi_v1_depth_BTCUSDT_20240808.json").read_bytes()
    event = binance.parse_snapshot("btcusdt@depth", body, 7)
    assert (event.last_id, len(event.bids), len(event.asks)) == (5123107852948, 1000, 1000)
    assert event.bids[0] == (61800.20, 2.909)


async def test_recorded_instruments(binance: Binance, shared_data: Path) -> None:
    """Only trading perpetuals; steps from the filters; the interval of the adjusted list, else 8 hours."""
    info = gzip.decompress((shared_data / "rest" / "binance_fapi_v1_exchangeInfo_20210721.json.gz").read_bytes())
    funding = (shared_data / "rest" / "binance_fapi_v1_fundingInfo_excerpt_20260930.json").read_bytes()

    async def get(call: RestCall) -> bytes:
        return info if call.path.endswith("exchangeInfo") else funding

    listed = await binance.instruments(get)
    raw = json.loads(info)["symbols"]
    assert set(listed) == {
        row["symbol"] for row in raw if row["contractType"] == "PERPETUAL" and row["status"] == "TRADING"
    }
    bitcoin = listed["BTCUSDT"]
    assert (bitcoin.tick_size, bitcoin.size_step, bitcoin.min_size, bitcoin.min_notional) == (0.01, 0.001, 0.001, 5.0)
    hours = {row["symbol"]: row["fundingIntervalHours"] for row in json.loads(funding)}
    assert {name: listed[name].funding_interval_hours for name in hours if name in listed} == {
        name: float(value) for name, value in hours.items() if name in listed
    }
    unadjusted = next(name for name in listed if name not in hours)
    assert listed[unadjusted].funding_interval_hours == 8.0


@pytest.mark.parametrize(
    ("status", "headers", "body", "wait_s", "terminal"),
    [
        (429, {"Retry-After": "17"}, b"", 17.0, False),
        (418, {}, b'{"code":-1003,"msg":"IP banned until 1790000060000. Use"}', 60.0, False),
        (429, {}, b"{}", 40.0, False),
        (451, {}, b'{"code":0,"msg":"Service unavailable from a restricted location"}', None, True),
        (403, {}, b"", None, True),
        (400, {}, b'{"code":-1121,"msg":"Invalid symbol."}', None, True),
        (503, {}, b"", None, False),
    ],
)
def test_refusals(
    binance: Binance, status: int, headers: dict[str, str], body: bytes, wait_s: float | None, terminal: bool
) -> None:
    """Bans say how long; blocked locations and wrong parameters are for good; 5xx may be tried again."""
    refused = binance.classify(status, headers, body, 1790000000000)
    assert refused is not None
    assert (refused.wait_s, refused.terminal) == (wait_s, terminal)


def test_good_answer_is_no_refusal(binance: Binance) -> None:
    """HTTP 200 passes."""
    assert binance.classify(200, {}, b"{}", 0) is None
