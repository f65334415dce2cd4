"""Every scripted WebSocket fault, seen by a real client."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import requests
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.protocol import State

from mts_simulator import StreamFault

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mts_simulator import Simulator

PATIENCE_S = 20
DIFF = "btcusdt@depth@100ms"
BOOK = "orderbook.50.BTCUSDT"


@pytest.fixture(autouse=True)
def _clean(simulator: Simulator) -> Iterator[None]:
    yield
    simulator.stream_faults.clear()


async def text(ws: ClientConnection) -> str:
    async with asyncio.timeout(PATIENCE_S):
        return str(await ws.recv())


async def frames(ws: ClientConnection, count: int) -> list[Any]:
    return [json.loads(await text(ws)) for _ in range(count)]


def binance(simulator: Simulator, *streams: str, close_timeout_s: float = 10) -> connect:
    url = f"{simulator.urls['binance_ws']}/public/ws/{'/'.join(streams or (DIFF,))}"
    return connect(url, proxy=None, compression=None, ping_interval=None, close_timeout=close_timeout_s)


def bybit(simulator: Simulator) -> connect:
    return connect(simulator.urls["bybit_ws"], proxy=None, compression=None, ping_interval=None)


async def subscribed(ws: ClientConnection, *topics: str) -> None:
    await ws.send(json.dumps({"op": "subscribe", "args": topics or (BOOK,), "req_id": "1"}))
    assert (await frames(ws, 1))[0]["success"] is True


def chained(found: list[Any]) -> list[bool]:
    return [later["pu"] == frame["u"] for frame, later in pairwise(found)]


@pytest.mark.parametrize("status", [403, 418, 429])
async def test_the_handshake_is_refused(simulator: Simulator, status: int) -> None:
    """A ban at the door: the status, ``Retry-After``, then all is well."""
    simulator.stream_faults.add(StreamFault("refuse", venue="binance", status=status, retry_after="11"))
    with pytest.raises(InvalidStatus) as refused:
        async with binance(simulator):
            pass
    assert refused.value.response.status_code == status
    assert refused.value.response.headers["Retry-After"] == "11"
    async with binance(simulator) as ws:
        assert len(await frames(ws, 1)) == 1


async def test_a_refusal_can_choose_the_route(simulator: Simulator) -> None:
    """Only the path that matches is refused."""
    simulator.stream_faults.add(StreamFault("refuse", topic="/market/*"))
    async with binance(simulator) as ws:
        assert len(await frames(ws, 1)) == 1
    assert len(simulator.stream_faults) == 1


async def test_a_reset_in_mid_frame(simulator: Simulator) -> None:
    """Whole frames, then half of one, then a reset: the client never sees the half frame."""
    simulator.stream_faults.add(StreamFault("reset", skip=2))
    async with binance(simulator) as ws:
        await frames(ws, 2)
        with pytest.raises(ConnectionClosedError) as closed:
            await text(ws)
        assert closed.value.rcvd is None
        assert isinstance(closed.value.__cause__, ConnectionResetError | EOFError | None)


async def test_an_orderly_close(simulator: Simulator) -> None:
    """The close frame carries the code."""
    simulator.stream_faults.add(StreamFault("close", code=1012, skip=1))
    async with binance(simulator) as ws:
        await frames(ws, 1)
        with pytest.raises(ConnectionClosedError):
            await text(ws)
        assert ws.close_code == 1012


async def test_a_slow_close(simulator: Simulator) -> None:
    """After the close frame the server keeps the connection open, past the client's patience."""
    simulator.stream_faults.add(StreamFault("slow_close", skip=1))
    async with binance(simulator, close_timeout_s=0.3) as ws:
        await frames(ws, 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ws.recv(), 0.5)
        assert ws.protocol.close_rcvd is not None
        assert ws.protocol.close_rcvd.code == 1001
        assert ws.state is State.CLOSING


async def test_a_half_open_connection(simulator: Simulator) -> None:
    """No frame, no pong, no close: only the client's own watchdog can tell."""
    simulator.stream_faults.add(StreamFault("half_open", skip=1))
    async with binance(simulator, close_timeout_s=0.3) as ws:
        await frames(ws, 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ws.recv(), 0.5)
        pong = asyncio.ensure_future(await ws.ping())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pong, 0.3)
    assert simulator.streams.connections[-1].frames_sent == 1


async def test_silence_after_the_acknowledgement(simulator: Simulator) -> None:
    """The topic never speaks on this connection; others do, and a new connection is well."""
    simulator.stream_faults.add(StreamFault("silence", topic=BOOK))
    async with bybit(simulator) as ws:
        await subscribed(ws, BOOK, "orderbook.50.ETHUSDT")
        assert {frame["topic"] for frame in await frames(ws, 8)} == {"orderbook.50.ETHUSDT"}
    async with bybit(simulator) as ws:
        await subscribed(ws)
        assert (await frames(ws, 1))[0]["type"] == "snapshot"


async def test_dropped_differences(simulator: Simulator) -> None:
    """Two frames are missing from the chain."""
    simulator.stream_faults.add(StreamFault("drop", skip=2, times=2))
    async with binance(simulator) as ws:
        found = await frames(ws, 5)
    assert chained(found) == [True, False, True, True]
    assert found[2]["T"] - found[1]["T"] == 300


async def test_a_duplicated_delta(simulator: Simulator) -> None:
    """The same frame twice."""
    simulator.stream_faults.add(StreamFault("duplicate", skip=1))
    async with bybit(simulator) as ws:
        await subscribed(ws)
        ids = [frame["data"]["u"] for frame in await frames(ws, 4)]
    assert [later - earlier for earlier, later in pairwise(ids)] == [1, 0, 1]


async def test_swapped_deltas(simulator: Simulator) -> None:
    """Two neighbours in the wrong order, nothing missing."""
    simulator.stream_faults.add(StreamFault("swap", skip=1))
    async with bybit(simulator) as ws:
        await subscribed(ws)
        ids = [frame["data"]["u"] for frame in await frames(ws, 5)]
    assert [number - ids[0] for number in ids] == [0, 2, 1, 3, 4]


async def test_a_restart_snapshot(simulator: Simulator) -> None:
    """A snapshot with ``u`` 1 replaces the book, and deltas go on from it."""
    simulator.stream_faults.add(StreamFault("restart", skip=2))
    async with bybit(simulator) as ws:
        await subscribed(ws)
        found = await frames(ws, 5)
    assert [frame["type"] for frame in found] == ["snapshot", "delta", "snapshot", "delta", "delta"]
    assert [frame["data"]["u"] for frame in found[2:]] == [1, 2, 3]


async def test_a_crossed_book(simulator: Simulator) -> None:
    """One frame has a bid above all asks."""
    simulator.stream_faults.add(StreamFault("crossed"))
    async with binance(simulator, "btcusdt@depth20@100ms") as ws:
        first, second = await frames(ws, 2)
    assert float(first["b"][0][0]) > float(first["a"][-1][0])
    assert float(second["b"][0][0]) < float(second["a"][0][0])


async def test_a_crossed_top(simulator: Simulator) -> None:
    """A book ticker's bid above its ask."""
    simulator.stream_faults.add(StreamFault("crossed"))
    async with binance(simulator, "btcusdt@bookTicker") as ws:
        first, second = await frames(ws, 2)
    assert float(first["b"]) > float(first["a"])
    assert float(second["b"]) < float(second["a"])


async def test_malformed_json(simulator: Simulator) -> None:
    """A whole WebSocket frame with half a JSON text, and the connection goes on."""
    simulator.stream_faults.add(StreamFault("malformed", skip=1))
    async with binance(simulator) as ws:
        texts = [await text(ws) for _ in range(3)]
    with pytest.raises(json.JSONDecodeError):
        json.loads(texts[1])
    assert json.loads(texts[2])["e"] == "depthUpdate"


@pytest.mark.parametrize(
    ("kind", "field", "expected"),
    [
        ("extra_field", "brandNew", {"new": True}),
        ("missing_field", "", None),
        ("missing_field", "pu", None),
        ("wrong_type", "u", "text"),
        ("wrong_type", "b", {"unexpected": True}),
    ],
)
async def test_schema_drift(simulator: Simulator, kind: str, field: str, expected: object) -> None:
    """A new, a missing or a mistyped member in one frame."""
    simulator.stream_faults.add(StreamFault(kind, field=field))  # type: ignore[arg-type]
    async with binance(simulator) as ws:
        drifted, usual = await frames(ws, 2)
    assert drifted.get(field or "u") == expected
    if kind == "extra_field":
        assert set(drifted) - {field} == set(usual)


async def test_drift_reaches_into_bybits_data(simulator: Simulator) -> None:
    """The member is taken from ``data``, in any frame that has it."""
    simulator.stream_faults.add(StreamFault("missing_field", topic="tickers.*", field="fundingRate"))
    async with bybit(simulator) as ws:
        await subscribed(ws, "tickers.BTCUSDT")
        (snapshot,) = await frames(ws, 1)
    assert "fundingRate" not in snapshot["data"]
    assert "markPrice" in snapshot["data"]


async def test_a_burst(simulator: Simulator) -> None:
    """Frames of a while come at once, none lost, in order."""
    simulator.stream_faults.add(StreamFault("burst", hold_s=1.0, skip=1))
    async with binance(simulator) as ws:
        (first,) = await frames(ws, 1)
        burst = await frames(ws, 9)
    assert all(chained([first, *burst]))
    assert simulator.streams.connections[-1].frames_sent >= 10
    assert burst[0]["E"] - burst[0]["T"] < 700


async def test_faults_through_the_control_endpoint(simulator: Simulator) -> None:
    """Posted faults act, are listed, and are cleared."""
    url = f"http://127.0.0.1:{simulator.port}/control/stream-faults"
    body = {"kind": "drop", "venue": "binance", "times": None}
    posted = await asyncio.to_thread(requests.post, url, json=body, timeout=PATIENCE_S)
    assert (posted.json()[0]["kind"], posted.json()[0]["left"]) == ("drop", None)
    async with binance(simulator) as ws:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ws.recv(), 0.5)
        await asyncio.to_thread(requests.delete, url, timeout=PATIENCE_S)
        assert len(await frames(ws, 1)) == 1


@pytest.mark.parametrize("body", [{"kind": "explode"}, {"kind": "drop", "skip": "two"}, {"kind": "drop", "x": 1}])
async def test_a_wrong_fault_is_refused(simulator: Simulator, body: object) -> None:
    """The control endpoint answers 400 with a reason."""
    url = f"http://127.0.0.1:{simulator.port}/control/stream-faults"
    reply = await asyncio.to_thread(requests.post, url, json=body, timeout=PATIENCE_S)
    assert reply.status_code == 400
