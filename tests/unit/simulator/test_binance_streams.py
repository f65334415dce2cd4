"""Binance sessions without a socket: routing, control messages, sequences that fit REST, rollovers."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mts_simulator.binance import Binance
from mts_simulator.binance_streams import BinanceSession, SeededBinanceFeeds, route_of
from mts_simulator.clock import HOUR_MS
from mts_simulator.seeded_binance import SeededBinance

from .conftest import NOW_MS, SEED, ask_json

if TYPE_CHECKING:
    from pathlib import Path

    from mts_simulator.market import Market


@pytest.fixture(scope="module")
def data(market: Market) -> SeededBinance:
    return SeededBinance(market, "binance", SEED)


@pytest.fixture(scope="module")
def feeds(data: SeededBinance) -> SeededBinanceFeeds:
    return SeededBinanceFeeds(data)


def session(
    feeds: SeededBinanceFeeds,
    *streams: str,
    route: str = "public",
    combined: bool = False,
    now_ms: int = NOW_MS,
) -> BinanceSession:
    return BinanceSession(feeds.source(), route, streams, now_ms, combined=combined)


def run(connection: BinanceSession, duration_ms: int, now_ms: int = NOW_MS) -> list[Any]:
    """All frames of the next ``duration_ms``, each sent when it is due."""
    frames = []
    end = now_ms + duration_ms
    while connection.next_ms() <= end:
        frames += [json.loads(frame.text) for frame in connection.pop(math.ceil(connection.next_ms()))]
    return frames


@pytest.mark.parametrize(
    ("stream", "route"),
    [
        ("btcusdt@depth", "public"),
        ("btcusdt@depth20@100ms", "public"),
        ("btcusdt@bookTicker", "public"),
        ("!bookTicker", "public"),
        ("btcusdt@rpiDepth@500ms", "public"),
        ("btcusdt@markPrice@1s", "market"),
        ("!markPrice@arr", "market"),
        ("btcusdt@ticker", "market"),
        ("btcusdt@kline_1m", "market"),
        ("btcusdt@aggTrade", "market"),
    ],
)
def test_streams_have_their_route(stream: str, route: str) -> None:
    """Books are public, everything else market."""
    assert route_of(stream) == route


@pytest.mark.parametrize(
    ("route", "stream"),
    [
        ("public", "btcusdt@markPrice"),
        ("market", "btcusdt@depth20@100ms"),
        ("private", "btcusdt@depth20@100ms"),
        ("retired", "btcusdt@depth20@100ms"),
        ("retired", "btcusdt@markPrice"),
        ("public", "nosuchusdt@depth20@100ms"),
    ],
)
def test_a_wrong_route_is_acknowledged_and_silent(feeds: SeededBinanceFeeds, route: str, stream: str) -> None:
    """The subscription is accepted and listed, and no frame ever comes."""
    connection = session(feeds, route=route)
    message = json.dumps({"method": "SUBSCRIBE", "params": [stream], "id": 5})
    assert connection.receive(message, NOW_MS) == ['{"result":null,"id":5}']
    assert connection.topics() == [stream]
    assert connection.next_ms() == math.inf


def test_subscribe_list_unsubscribe(feeds: SeededBinanceFeeds) -> None:
    """Subscriptions are listed in order; an unsubscribed stream ends."""
    connection = session(feeds, "btcusdt@depth5")
    connection.receive('{"method":"SUBSCRIBE","params":["ethusdt@depth5"],"id":1}', NOW_MS)
    listed = json.loads(connection.receive('{"method":"LIST_SUBSCRIPTIONS","id":2}', NOW_MS)[0])
    assert listed == {"result": ["btcusdt@depth5", "ethusdt@depth5"], "id": 2}
    connection.receive('{"method":"UNSUBSCRIBE","params":["btcusdt@depth5"],"id":3}', NOW_MS)
    assert {frame["s"] for frame in run(connection, 1000)} == {"ETHUSDT"}


@pytest.mark.parametrize("text", ["not json", "[]", '{"method":"FLY","id":1}', '{"method":"SUBSCRIBE","params":"x"}'])
def test_bad_messages_are_refused(feeds: SeededBinanceFeeds, text: str) -> None:
    """An error object with code and text, and no change."""
    connection = session(feeds)
    (answer,) = connection.receive(text, NOW_MS)
    assert json.loads(answer)["error"]["msg"]
    assert connection.topics() == []


def test_the_combined_form_wraps(feeds: SeededBinanceFeeds) -> None:
    """``stream`` and ``data`` in the combined form, the bare payload in the raw one."""
    name = "btcusdt@depth20@100ms"
    wrapped = run(session(feeds, name, combined=True), 500)
    bare = run(session(feeds, name), 500)
    assert [frame["stream"] for frame in wrapped] == [name] * len(bare)
    assert [frame["data"]["u"] for frame in wrapped] == [frame["u"] for frame in bare]


def test_partial_depth_is_a_whole_picture(feeds: SeededBinanceFeeds) -> None:
    """Twenty levels each side, every 100 ms, chained by ``pu``, of today's shape."""
    frames = run(session(feeds, "btcusdt@depth20@100ms"), 2000)
    assert len(frames) == 20
    assert list(frames[0]) == ["e", "E", "T", "s", "ps", "U", "u", "pu", "b", "a", "st"]
    assert all(len(frame["b"]) == len(frame["a"]) == 20 for frame in frames)
    assert all(float(frame["b"][0][0]) < float(frame["a"][0][0]) for frame in frames)
    assert all(later["pu"] == frame["u"] for frame, later in pairwise(frames))
    assert all(later["T"] - frame["T"] == 100 for frame, later in pairwise(frames))


@pytest.mark.parametrize(("speed", "count"), [("", 8), ("@100ms", 20), ("@250ms", 8), ("@500ms", 4)])
def test_speeds(feeds: SeededBinanceFeeds, speed: str, count: int) -> None:
    """250 ms unless the name says otherwise."""
    assert len(run(session(feeds, f"ethusdt@depth10{speed}"), 2000)) == count


@settings(max_examples=15, deadline=None)
@given(
    symbol=st.sampled_from(["BTCUSDT", "ETHUSDT", "ONEUSDT"]),
    speed=st.sampled_from(["100ms", "250ms", "500ms"]),
    snapshot_after_ms=st.integers(0, 3000),
    start=st.integers(0, 10_000_000),
)
def test_differences_and_snapshots_fit(
    data: SeededBinance, *, symbol: str, speed: str, snapshot_after_ms: int, start: int
) -> None:
    """The documented recipe with a snapshot taken at any moment ends in the book that REST shows then."""
    now_ms = NOW_MS + start
    connection = session(SeededBinanceFeeds(data), f"{symbol.lower()}@depth@{speed}", now_ms=now_ms)
    frames = run(connection, 6000, now_ms)
    rest = Binance(data)
    taken_ms = now_ms + snapshot_after_ms
    snapshot = ask_json(rest, "/fapi/v1/depth", now_ms=taken_ms, symbol=symbol, limit=1000)
    kept = [frame for frame in frames if frame["u"] >= snapshot["lastUpdateId"]]
    assert kept[0]["U"] <= snapshot["lastUpdateId"] <= kept[0]["u"] or kept[0]["pu"] == snapshot["lastUpdateId"]
    assert all(later["pu"] == frame["u"] for frame, later in pairwise(kept))
    sides = {"b": dict(snapshot["bids"]), "a": dict(snapshot["asks"])}
    for frame in kept:
        for name, side in sides.items():
            for price, size in frame[name]:
                if float(size):
                    side[price] = size
                else:
                    side.pop(price, None)
    final = ask_json(rest, "/fapi/v1/depth", now_ms=kept[-1]["T"], symbol=symbol, limit=1000)
    assert final["lastUpdateId"] == kept[-1]["u"]
    assert sides == {"b": dict(final["bids"]), "a": dict(final["asks"])}


def test_the_first_frame_after_a_snapshot_bridges_it(data: SeededBinance, feeds: SeededBinanceFeeds) -> None:
    """For a snapshot between two frames some frame has U <= lastUpdateId <= u."""
    connection = session(feeds, "btcusdt@depth@500ms")
    frames = run(connection, 5000)
    for taken_ms in range(NOW_MS + 1000, NOW_MS + 4000, 100):
        snapshot = ask_json(Binance(data), "/fapi/v1/depth", now_ms=taken_ms, symbol="BTCUSDT", limit=5)
        last = snapshot["lastUpdateId"]
        assert any(frame["U"] <= last <= frame["u"] for frame in frames)


def test_book_tickers_show_the_top(feeds: SeededBinanceFeeds) -> None:
    """Ids grow, the top is never crossed, and a frame comes only when something changed."""
    frames = run(session(feeds, "btcusdt@bookTicker"), 10_000)
    assert 10 < len(frames) <= 100
    assert all(later["u"] > frame["u"] for frame, later in pairwise(frames))
    assert all(float(frame["b"]) < float(frame["a"]) for frame in frames)
    tops = [(frame["b"], frame["B"], frame["a"], frame["A"]) for frame in frames]
    assert all(later != top for top, later in pairwise(tops))


def test_mark_prices_have_todays_members(feeds: SeededBinanceFeeds, shared_data: Path) -> None:
    """The members are those of the recorded frames of 2026, in their order."""
    path = shared_data / "frames" / "binance_usdm" / "markPrice_1s_funding_rollover_20260930.jsonl"
    recorded = json.loads(path.read_text(encoding="utf-8").split("\n", 1)[0])["data"]
    frames = run(session(feeds, "btcusdt@markPrice@1s", route="market"), 3000)
    assert len(frames) == 3
    assert list(frames[0]) == list(recorded)


@pytest.mark.parametrize(("symbol", "hours"), [("BTCUSDT", 8), ("LPTUSDT", 4), ("ONEUSDT", 1)])
def test_the_next_funding_moves_just_after_the_settlement(feeds: SeededBinanceFeeds, symbol: str, hours: int) -> None:
    """The frame stamped with the settlement has the old ``T``; the next one the new, an interval later."""
    settled = NOW_MS - NOW_MS % (8 * HOUR_MS) + 8 * HOUR_MS
    start = settled - 2500
    connection = session(feeds, f"{symbol.lower()}@markPrice@1s", route="market", now_ms=start)
    frames = run(connection, 5000, start)
    assert [(frame["E"] - settled, frame["T"] - settled) for frame in frames] == [
        (-2000, 0),
        (-1000, 0),
        (0, 0),
        (1000, hours * HOUR_MS),
        (2000, hours * HOUR_MS),
    ]


def test_the_array_of_all_marks_mixes_margins(feeds: SeededBinanceFeeds) -> None:
    """USD-M rows say ``st`` 1, the COIN-M row 2."""
    frames = run(session(feeds, "!markPrice@arr@1s", route="market"), 1000)
    kinds = {row["s"]: row["st"] for row in frames[0]}
    assert kinds["BTCUSDT"] == 1
    assert kinds["BTCUSD_PERP"] == 2


def test_tickers_have_no_funding_and_no_quotes(feeds: SeededBinanceFeeds) -> None:
    """24 h statistics only."""
    (frame, *_) = run(session(feeds, "btcusdt@ticker", route="market"), 4000)
    assert frame["e"] == "24hrTicker"
    assert not {"b", "a", "B", "A", "r"} & set(frame)
    assert float(frame["l"]) <= float(frame["c"]) <= float(frame["h"])
