"""Bybit sessions without a socket: acknowledgements, pongs, snapshot and deltas, sparse tickers, restarts."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from mts_simulator.bybit import Bybit, SeededBybit
from mts_simulator.bybit_streams import BybitSession, SeededBybitFeeds
from mts_simulator.clock import HOUR_MS
from mts_simulator.coins import COINS_BY_ID

from .conftest import NOW_MS, SEED, ask_json

if TYPE_CHECKING:
    from mts_simulator.market import Market


@pytest.fixture(scope="module")
def data(market: Market) -> SeededBybit:
    return SeededBybit(market, "bybit", SEED)


@pytest.fixture(scope="module")
def feeds(data: SeededBybit) -> SeededBybitFeeds:
    return SeededBybitFeeds(data)


def session(feeds: SeededBybitFeeds, *topics: str, now_ms: int = NOW_MS) -> BybitSession:
    connection = BybitSession(feeds.source(), "c1")
    if topics:
        connection.receive(json.dumps({"op": "subscribe", "args": topics, "req_id": "1"}), now_ms)
    return connection


def run(connection: BybitSession, duration_ms: int, now_ms: int = NOW_MS) -> list[Any]:
    frames = []
    end = now_ms + duration_ms
    while connection.next_ms() <= end:
        frames += [json.loads(frame.text) for frame in connection.pop(math.ceil(connection.next_ms()))]
    return frames


def applied(frames: list[Any]) -> dict[str, dict[str, str]]:
    """The book after all frames."""
    book: dict[str, dict[str, str]] = {"b": {}, "a": {}}
    for frame in frames:
        if frame["type"] == "snapshot":
            book = {"b": {}, "a": {}}
        for name, side in book.items():
            for price, size in frame["data"][name]:
                if size == "0":
                    del side[price]
                else:
                    side[price] = size
    return book


def test_the_acknowledgement(feeds: SeededBybitFeeds) -> None:
    """It carries the request's id and the connection's."""
    (answer,) = session(feeds).receive('{"op":"subscribe","args":["tickers.BTCUSDT"],"req_id":"7"}', NOW_MS)
    assert json.loads(answer) == {
        "success": True,
        "ret_msg": "",
        "conn_id": "c1",
        "req_id": "7",
        "op": "subscribe",
    }


def test_the_pong_says_ping(feeds: SeededBybitFeeds) -> None:
    """``ret_msg`` is pong while ``op`` stays ping."""
    (answer,) = session(feeds).receive('{"req_id":"x","op":"ping"}', NOW_MS)
    pong = json.loads(answer)
    assert (pong["ret_msg"], pong["op"], pong["success"], pong["req_id"]) == ("pong", "ping", True, "x")


def test_one_bad_topic_fails_the_whole_request(feeds: SeededBybitFeeds) -> None:
    """Nothing of the request is subscribed."""
    connection = session(feeds)
    message = '{"op":"subscribe","args":["tickers.BTCUSDT","orderbook.51.BTCUSDT"],"req_id":"1"}'
    answer = json.loads(connection.receive(message, NOW_MS)[0])
    assert answer["success"] is False
    assert "orderbook.51.BTCUSDT" in answer["ret_msg"]
    assert connection.topics() == []


@pytest.mark.parametrize("text", ["nonsense", "[1]", '{"op":"subscribe"}', '{"op":"fly","args":[]}'])
def test_bad_messages_are_refused(feeds: SeededBybitFeeds, text: str) -> None:
    """``success`` is false."""
    assert json.loads(session(feeds).receive(text, NOW_MS)[0])["success"] is False


def test_too_many_characters_are_refused(feeds: SeededBybitFeeds) -> None:
    """All arguments of a connection together stay within 21,000 characters."""
    names = [f"tickers.X{number:06d}USDT" for number in range(1200)]
    answer = session(feeds).receive(json.dumps({"op": "subscribe", "args": names}), NOW_MS)[0]
    assert json.loads(answer)["success"] is False


@pytest.mark.parametrize("topic", ["orderbook.50.NOPEUSDT", "publicTrade.BTCUSDT", "kline.1.BTCUSDT"])
def test_topics_without_data_stay_silent(feeds: SeededBybitFeeds, topic: str) -> None:
    """Acknowledged, then nothing."""
    connection = session(feeds, topic)
    assert connection.topics() == [topic]
    assert run(connection, 1000) == []


@pytest.mark.parametrize(("depth", "count"), [(50, 31), (200, 31), (1000, 16)])
def test_a_book_is_a_snapshot_and_deltas(data: SeededBybit, feeds: SeededBybitFeeds, depth: int, count: int) -> None:
    """One snapshot at once, then deltas whose ``u`` grows by one; together they are the book."""
    frames = run(session(feeds, f"orderbook.{depth}.BTCUSDT"), 3000)
    assert len(frames) in (count, count - 1)
    assert [frame["type"] for frame in frames] == ["snapshot"] + ["delta"] * (len(frames) - 1)
    assert all(later["data"]["u"] == frame["data"]["u"] + 1 for frame, later in pairwise(frames))
    assert all(later["data"]["seq"] > frame["data"]["seq"] for frame, later in pairwise(frames))
    assert list(frames[0]) == ["topic", "type", "ts", "data", "cts"]
    last = frames[-1]
    state = data.books.state(COINS_BY_ID["bitcoin"], last["cts"] // 100, depth)
    book = applied(frames)
    assert len(book["b"]) == len(book["a"]) == depth
    assert {round(float(price) * 10): round(float(size) * 1000) for price, size in book["b"].items()} == dict(
        zip(state.bids.ticks.tolist(), state.bids.sizes.tolist(), strict=True)
    )
    assert {round(float(price) * 10): round(float(size) * 1000) for price, size in book["a"].items()} == dict(
        zip(state.asks.ticks.tolist(), state.asks.sizes.tolist(), strict=True)
    )


def test_level_one_is_all_snapshots_and_repeats_when_idle(feeds: SeededBybitFeeds) -> None:
    """Same ``u`` only when nothing changed for three seconds, else one more each time."""
    frames = run(session(feeds, "orderbook.1.ADAUSDT"), 20_000)
    assert {frame["type"] for frame in frames} == {"snapshot"}
    for frame, later in pairwise(frames):
        same = (frame["data"]["b"], frame["data"]["a"]) == (later["data"]["b"], later["data"]["a"])
        assert later["data"]["u"] - frame["data"]["u"] == (0 if same else 1)
        assert not same or later["ts"] - frame["ts"] >= 3000


def test_rest_counts_as_the_thousand_level_stream(data: SeededBybit, feeds: SeededBybitFeeds) -> None:
    """At equal ``seq`` REST shows the 1000-level stream's ``u`` and book, not the 50-level one's ``u``."""
    frames = run(session(feeds, "orderbook.1000.BTCUSDT"), 1000)
    last = frames[-1]
    rest = ask_json(
        Bybit(data),
        "/v5/market/orderbook",
        now_ms=last["cts"],
        category="linear",
        symbol="BTCUSDT",
        limit=1000,
    )["result"]
    book = applied(frames)
    fifty = run(session(feeds, "orderbook.50.BTCUSDT"), 1000)[-1]
    assert (rest["u"], rest["seq"]) == (last["data"]["u"], last["data"]["seq"])
    assert dict(rest["b"]) == book["b"]
    assert dict(rest["a"]) == book["a"]
    assert rest["u"] != fifty["data"]["u"]


def test_a_restart_is_a_snapshot_with_u_1(feeds: SeededBybitFeeds) -> None:
    """After it the ids go on from 1."""
    connection = session(feeds, "orderbook.50.ETHUSDT")
    run(connection, 500)
    connection.restart("orderbook.50.ETHUSDT")
    frames = run(connection, 1000)
    assert [frame["data"]["u"] for frame in frames] == list(range(1, len(frames) + 1))
    assert [frame["type"] for frame in frames[:2]] == ["snapshot", "delta"]


def test_tickers_are_sparse(feeds: SeededBybitFeeds) -> None:
    """A snapshot with all members, then only what changed, prices of a side with their size."""
    frames = run(session(feeds, "tickers.BTCUSDT"), 5000)
    assert [frame["type"] for frame in frames[:2]] == ["snapshot", "delta"]
    assert list(frames[0]) == ["topic", "type", "data", "cs", "ts"]
    members = set(frames[0]["data"])
    assert {"fundingRate", "nextFundingTime", "fundingIntervalHour", "markPrice", "openInterest"} <= members
    merged = dict(frames[0]["data"])
    for frame in frames[1:]:
        changed = {name for name, value in frame["data"].items() if merged[name] != value}
        assert changed <= set(frame["data"]) <= members
        assert ("bid1Price" in frame["data"]) == ("bid1Size" in frame["data"])
        assert changed
        merged |= frame["data"]
    assert max(len(frame["data"]) for frame in frames[1:6]) < len(members)


def test_the_funding_rollover_is_in_a_delta(feeds: SeededBybitFeeds) -> None:
    """After the settlement a delta carries the next one, an interval later."""
    settled = NOW_MS - NOW_MS % (8 * HOUR_MS) + 8 * HOUR_MS
    frames = run(session(feeds, "tickers.LPTUSDT", now_ms=settled - 1000), 2000, settled - 1000)
    assert frames[0]["data"]["nextFundingTime"] == str(settled)
    moved = [frame for frame in frames[1:] if "nextFundingTime" in frame["data"]]
    assert [frame["data"]["nextFundingTime"] for frame in moved] == [str(settled + HOUR_MS)]
    assert moved[0]["ts"] >= settled


def test_unsubscribing_ends_a_topic(feeds: SeededBybitFeeds) -> None:
    """Its frames stop, the others go on."""
    connection = session(feeds, "orderbook.50.BTCUSDT", "orderbook.50.ETHUSDT")
    connection.receive('{"op":"unsubscribe","args":["orderbook.50.BTCUSDT"],"req_id":"2"}', NOW_MS)
    assert {frame["data"]["s"] for frame in run(connection, 500)} == {"ETHUSDT"}
