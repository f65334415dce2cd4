"""Recorded frames: played byte for byte, in order, at the speed asked for, with the snapshot that fits."""

from __future__ import annotations

import asyncio
import gzip
import json
import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import requests
from websockets.asyncio.client import connect

from mts_simulator import SimulatorConfig, SimulatorError, running_simulator
from mts_simulator.binance_streams import BinanceSession
from mts_simulator.bybit_streams import BybitSession
from mts_simulator.frame_replay import BINANCE, BYBIT, FrameRecordings, Playback

from .conftest import NOW_MS

if TYPE_CHECKING:
    from pathlib import Path

    from mts_simulator.streams import Frame, Session

DEPTH = "btcusdt@depth@100ms"
PATIENCE_S = 60


def recording(folder: Path, name: str, *lines: str) -> None:
    text = "".join(f"{line}\n" for line in lines)
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())


def diff(number: int, symbol: str = "BTCUSDT", stream: str = "btcusdt@depth@0ms") -> str:
    data = f'{{"e":"depthUpdate","E":{number},"s":"{symbol}","U":{number},"u":{number},"pu":{number - 1}}}'
    return f'{{"stream":"{stream}","data":{data}}}'


def binance_session(playback: Playback, *streams: str, route: str = "public") -> BinanceSession:
    return BinanceSession(playback.source(), route, streams, NOW_MS, combined=True)


def played(session: Session) -> list[tuple[float, Frame]]:
    """All frames with their times, in ms after the start of the playback."""
    found = []
    start = session.next_ms()
    while (due := session.next_ms()) < math.inf:
        found += [(due - start, frame) for frame in session.pop(math.ceil(due))]
    return found


@pytest.mark.parametrize(("unit", "name"), [(1, "s"), (1_000, "ms"), (1_000_000, "us"), (1_000_000_000, "ns")])
def test_times_are_told_by_size(tmp_path: Path, unit: int, name: str) -> None:
    """Seconds, milliseconds, microseconds and nanoseconds give the same pauses."""
    base = 1_786_310_819 * unit
    recording(tmp_path, f"{name}.jsonl", *(f'{{"ts":{base + i * unit},"frame":{diff(i)}}}' for i in (1, 2, 4)))
    playback = Playback(FrameRecordings.at(tmp_path), BINANCE, 1.0)
    assert [round(time) for time, _ in played(binance_session(playback, DEPTH))] == [0, 1000, 3000]


@pytest.mark.parametrize(("speed", "end"), [(1.0, 3000), (4.0, 750), (math.inf, 0)])
def test_speed(tmp_path: Path, speed: float, end: float) -> None:
    """N times faster, or all at once, in the same order."""
    recording(tmp_path, "a.jsonl", *(f'{{"ts":{1_786_310_819 + i},"frame":{diff(i)}}}' for i in range(4)))
    found = played(binance_session(Playback(FrameRecordings.at(tmp_path), BINANCE, speed), DEPTH))
    assert found[-1][0] == pytest.approx(end, abs=2)
    assert [json.loads(frame.text)["data"]["u"] for _, frame in found] == [0, 1, 2, 3]


def test_frames_are_sent_byte_for_byte(tmp_path: Path) -> None:
    """Odd spacing and number texts survive; only the stream's name is the one subscribed to."""
    payload = '{"e":"depthUpdate","s":"BTCUSDT", "p":1.50,  "b":[["1.10","0.000"]]}'
    line = f'{{"ts":1786310819000,"frame":{{"stream":"btcusdt@depth@0ms","data":{payload}}}}}'
    recording(tmp_path, "a.jsonl.gz", line)
    ((_, frame),) = played(binance_session(Playback(FrameRecordings.at(tmp_path), BINANCE, 1.0), DEPTH))
    assert frame.text == f'{{"stream":"{DEPTH}","data":{payload}}}'


def test_raw_texts_and_sent_frames(tmp_path: Path) -> None:
    """``raw`` holds a frame as text; what the recorder had sent is passed over."""
    text = '{"topic":"tickers.BTCUSDT","type":"snapshot","data":{"symbol":"BTCUSDT"},"cs":1,"ts":2}'
    recording(
        tmp_path,
        "a.jsonl",
        '{"ts":1786310819.1,"dir":"send","frame":{"op":"subscribe","args":["tickers.BTCUSDT"]}}',
        '{"ts":1786310819.2,"dir":"recv","frame":{"success":true,"ret_msg":"","op":"subscribe"}}',
        json.dumps({"ts": 1786310819.3, "raw": text}),
        f'{{"ts":1786310819.4,"dir":"recv","frame":{text}}}',
    )
    session = BybitSession(Playback(FrameRecordings.at(tmp_path), BYBIT, 1.0).source(), "c")
    session.receive('{"op":"subscribe","args":["tickers.BTCUSDT","tickers.ETHUSDT"]}', NOW_MS)
    assert [frame.text for _, frame in played(session)] == [text, text]


def test_files_are_merged_by_time_and_long_pauses_skipped(tmp_path: Path) -> None:
    """Overlapping files interleave; more than a minute of nothing is left out."""
    recording(tmp_path, "b.jsonl", *(f'{{"ts":{1_786_310_819 + i},"frame":{diff(i)}}}' for i in (1, 3, 500)))
    recording(tmp_path, "a.jsonl", *(f'{{"ts":{1_786_310_819 + i},"frame":{diff(i)}}}' for i in (2, 4, 501)))
    found = played(binance_session(Playback(FrameRecordings.at(tmp_path), BINANCE, 1.0), DEPTH))
    assert [json.loads(frame.text)["data"]["u"] for _, frame in found] == [1, 2, 3, 4, 500, 501]
    assert [round(time) for time, _ in found] == [0, 1000, 2000, 3000, 3000, 4000]


def test_bare_frames_carry_their_own_time(tmp_path: Path) -> None:
    """Without a receive time the exchange's event time counts."""
    recording(tmp_path, "a.jsonl", *(diff(1_786_310_819_000 + i * 500) for i in range(3)))
    found = played(binance_session(Playback(FrameRecordings.at(tmp_path), BINANCE, 1.0), DEPTH))
    assert [round(time) for time, _ in found] == [0, 500, 1000]


def test_only_subscribed_topics_of_the_route_are_sent(tmp_path: Path) -> None:
    """Unsubscribed streams pass silently; mark prices do not come on the public route."""
    mark = '{"stream":"btcusdt@markPrice@1s","data":{"e":"markPriceUpdate","E":1786310819001}}'
    lines = [diff(1), mark, diff(2, "ETHUSDT", "ethusdt@depth@0ms")]
    recording(tmp_path, "a.jsonl", *(f'{{"ts":{1_786_310_819 + i},"frame":{line}}}' for i, line in enumerate(lines)))
    playback = Playback(FrameRecordings.at(tmp_path), BINANCE, math.inf)
    public = played(binance_session(playback, DEPTH, "btcusdt@markPrice"))
    market = played(binance_session(playback, DEPTH, "btcusdt@markPrice", route="market"))
    assert [frame.topic for _, frame in public] == [DEPTH]
    assert [frame.topic for _, frame in market] == ["btcusdt@markPrice"]


def snapshot(number: int) -> str:
    return f'{{"lastUpdateId":{number},"bids":[],"asks":[]}}'


def test_the_snapshot_is_the_next_one(tmp_path: Path) -> None:
    """Before the playback the first; then the first not older than what was sent; symbols are told by their ids."""
    for name, base in (("a", 100), ("b", 900)):
        lines = [diff(base), diff(base + 50_000, "ETHUSDT", "ethusdt@depth@0ms"), snapshot(base + 1),
                 snapshot(base + 50_002), diff(base + 1)]  # fmt: skip
        recording(
            tmp_path,
            f"{name}.jsonl",
            *(f'{{"ts":{1_786_310_819 + base + i},"frame":{line}}}' for i, line in enumerate(lines)),
        )
    playback = Playback(FrameRecordings.at(tmp_path), BINANCE, 1.0)
    served = [playback.depth("BTCUSDT")]
    connection = binance_session(playback, DEPTH)
    while connection.next_ms() < math.inf:  # 101 and 900 come together: the pause between them is skipped
        if connection.pop(math.ceil(connection.next_ms())):
            served.append(playback.depth("BTCUSDT"))
    assert [body["lastUpdateId"] for body in served if body] == [101, 101, 901, 901]
    assert playback.depth("ETHUSDT") == {"lastUpdateId": 50_102, "bids": [], "asks": []}
    assert playback.depth("XRPUSDT") is None


def test_a_capture_of_the_sidecar_is_a_recording(tmp_path: Path) -> None:
    """Both venues in one file, events, texts that are no JSON, REST snapshots by topic, a torn end."""
    base = 1_786_310_819_000_000_000
    bybit = '{"topic":"tickers.BTCUSDT","type":"snapshot","data":{},"cs":1,"ts":2}'
    lines = [
        f'{{"ts":{base},"event":"start"}}',
        f'{{"ts":{base + 1},"venue":"binance","route":"public","conn":1,"event":"open","plan":{{"x":[1]}}}}',
        f'{{"ts":{base + 2},"venue":"binance","route":"public","conn":1,"frame":{diff(7)}}}',
        f'{{"ts":{base + 3},"venue":"bybit","route":"tickers","conn":2,"frame":{bybit}}}',
        f'{{"ts":{base + 4},"venue":"bybit","route":"tickers","conn":2,"text":"torn{{"}}',
        f'{{"ts":{base + 5},"venue":"binance","route":"rest","conn":1,"topic":"{DEPTH}","frame":{snapshot(7)}}}',
        f'{{"ts":{base + 6},"venue":"binance","route":"public","conn":1,"frame":{{"result":null,"id":1}}}}',
        f'{{"ts":{base + 7},"venue":"binance","route":"public","conn":1,"frame":{diff(8)}}}',
    ]
    whole = gzip.compress("".join(f"{line}\n" for line in lines).encode())
    (tmp_path / "capture-1786310819000.jsonl.gz").write_bytes(whole + gzip.compress(b'{"ts":1}\n' * 50)[:-20])
    recordings = FrameRecordings.at(tmp_path)
    binance = Playback(recordings, BINANCE, math.inf)
    session = BybitSession(Playback(recordings, BYBIT, math.inf).source(), "c")
    session.receive('{"op":"subscribe","args":["tickers.BTCUSDT"]}', NOW_MS)
    updates = [json.loads(frame.text)["data"]["u"] for _, frame in played(binance_session(binance, DEPTH))]
    assert updates == [7, 8]
    assert [frame.text for _, frame in played(session)] == [bybit]
    assert binance.depth("BTCUSDT") == {"lastUpdateId": 7, "bids": [], "asks": []}


def test_the_newer_of_two_connections_counts(tmp_path: Path) -> None:
    """While one connection takes over from another, nothing is sent twice; a new start counts anew."""
    conns = [(1, 10), (1, 11), (2, 11), (1, 12), (2, 12), (2, 13)]
    lines = [f'{{"ts":{1_786_310_819 + i},"conn":{conn},"frame":{diff(number)}}}'
             for i, (conn, number) in enumerate(conns)]  # fmt: skip
    lines += ['{"ts":1786310829,"event":"start"}', f'{{"ts":1786310830,"conn":1,"frame":{diff(20)}}}']
    recording(tmp_path, "a.jsonl", *lines)
    found = played(binance_session(Playback(FrameRecordings.at(tmp_path), BINANCE, math.inf), DEPTH))
    assert [json.loads(frame.text)["data"]["u"] for _, frame in found] == [10, 11, 11, 12, 13, 20]


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_no_recording_is_an_error(tmp_path: Path, name: str) -> None:
    """A path without recordings is most likely a mistake."""
    (tmp_path / "empty").mkdir()
    with pytest.raises(SimulatorError, match="there are no recorded frames"):
        FrameRecordings.at(tmp_path / name)


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    """The error names file and line."""
    recording(tmp_path, "a.jsonl", '{"ts":1786310819,"frame":' + diff(1) + "}", "{broken")
    playback = Playback(FrameRecordings.at(tmp_path), BINANCE, math.inf)
    with pytest.raises(SimulatorError, match=r"a\.jsonl, line 2 is not a recorded frame"):
        played(binance_session(playback, DEPTH))


async def received(url: str, subscribe: str | None, count: int) -> list[Any]:
    """``count`` data frames from a real connection."""
    found: list[Any] = []
    async with (
        connect(url, proxy=None, compression=None, max_size=None, ping_interval=None) as ws,
        asyncio.timeout(PATIENCE_S),
    ):
        if subscribe:
            await ws.send(subscribe)
        while len(found) < count:
            frame = json.loads(await ws.recv())
            if "data" in frame:
                found.append(frame)
    return found


async def test_the_binance_capture_comes_whole_with_its_snapshot(shared_data: Path) -> None:
    """All 6,551 differences of 2024-08-08 in an unbroken chain, bridged by the snapshot that REST serves."""
    path = shared_data / "frames" / "binance_usdm" / "btcusdt_20240808_depth0ms_bookTicker_trade.jsonl.gz"
    with running_simulator(SimulatorConfig(frames=path, speed=math.inf)) as simulator:
        url = f"{simulator.urls['binance_ws']}/public/stream?streams=btcusdt@depth@0ms"
        found = await received(url, None, 6551)
        depth = await asyncio.to_thread(
            requests.get,
            f"{simulator.urls['binance']}/fapi/v1/depth",
            params={"symbol": "BTCUSDT", "limit": "1000"},
            timeout=PATIENCE_S,
        )
    snapshot = depth.json()
    updates = [frame["data"] for frame in found]
    assert snapshot["lastUpdateId"] == 5123107852948
    assert len(snapshot["bids"]) == 1000
    assert all(later["pu"] == update["u"] for update, later in pairwise(updates))
    assert [update["U"] <= snapshot["lastUpdateId"] <= update["u"] for update in updates].index(True) == 4


async def test_the_bybit_capture_comes_whole(shared_data: Path) -> None:
    """Both books of 2026-08-09 begin with the snapshot and go on by one."""
    path = shared_data / "frames" / "bybit_v5" / "linear_BTCUSDT_ETHUSDT_20260809.jsonl.gz"
    topics = ["orderbook.200.BTCUSDT", "orderbook.200.ETHUSDT", "tickers.BTCUSDT"]
    with running_simulator(SimulatorConfig(frames=path, speed=math.inf)) as simulator:
        subscribe = json.dumps({"op": "subscribe", "args": topics, "req_id": "1"})
        found = await received(simulator.urls["bybit_ws"], subscribe, 414 + 421 + 185)
    for topic, deltas in (("orderbook.200.BTCUSDT", 413), ("orderbook.200.ETHUSDT", 420)):
        books = [frame for frame in found if frame["topic"] == topic]
        assert [frame["type"] for frame in books] == ["snapshot"] + ["delta"] * deltas
        assert all(later["data"]["u"] == frame["data"]["u"] + 1 for frame, later in pairwise(books))


async def test_a_replayed_folder_plays_its_frames(shared_data: Path) -> None:
    """With ``replay`` alone the folder's own frames are played: the funding rollover of 2026 is the last."""
    with running_simulator(SimulatorConfig(replay=shared_data, speed=math.inf)) as simulator:
        url = f"{simulator.urls['binance_ws']}/market/stream?streams=lptusdt@markPrice@1s"
        found = await received(url, None, 4)
    assert [frame["data"]["T"] for frame in found] == [1790755200000] * 2 + [1790769600000] * 2
