"""The WebSocket shell with a real client: address forms, keep-alive rules, logs, orderly and abrupt ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import requests
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from mts_simulator import ConnectionRules, SimulatorConfig, running_simulator

from .conftest import NOW, SEED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mts_simulator import Simulator

PATIENCE_S = 20
DEPTH = "btcusdt@depth5@100ms"


async def frame(ws: ClientConnection) -> Any:  # noqa: ANN401  any JSON value
    async with asyncio.timeout(PATIENCE_S):
        return json.loads(await ws.recv())


async def until_closed(ws: ClientConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        async with asyncio.timeout(PATIENCE_S):
            async for _ in ws:
                pass


def dial(url: str) -> connect:
    return connect(url, proxy=None, compression=None, ping_interval=None)


@pytest.fixture
def strict() -> Iterator[Simulator]:
    """A simulator whose exchanges lose patience within a second."""
    rules = ConnectionRules(ping_every_s=0.15, pong_within_s=0.6, lifetime_s=0.9, messages_per_s=10)
    config = SimulatorConfig(seed=SEED, now=NOW, binance_rules=rules, bybit_rules=ConnectionRules(idle_s=0.3))
    with running_simulator(config) as running:
        yield running


async def test_the_combined_form(simulator: Simulator) -> None:
    """Streams in the query, frames wrapped."""
    async with dial(f"{simulator.urls['binance_ws']}/public/stream?streams={DEPTH}/ethusdt@depth5") as ws:
        names = {(await frame(ws))["stream"] for _ in range(10)}
    assert names == {DEPTH, "ethusdt@depth5"}


async def test_the_raw_form(simulator: Simulator) -> None:
    """Streams in the path, bare frames."""
    async with dial(f"{simulator.urls['binance_ws']}/public/ws/{DEPTH}/ethusdt@depth5@100ms") as ws:
        symbols = {(await frame(ws))["s"] for _ in range(10)}
    assert symbols == {"BTCUSDT", "ETHUSDT"}


async def test_subscribing_later(simulator: Simulator) -> None:
    """A connection without streams gets them by SUBSCRIBE, the acknowledgement first."""
    async with dial(f"{simulator.urls['binance_ws']}/market/ws") as ws:
        await ws.send(json.dumps({"method": "SUBSCRIBE", "params": ["btcusdt@markPrice@1s"], "id": 1}))
        assert await frame(ws) == {"result": None, "id": 1}
        assert (await frame(ws))["e"] == "markPriceUpdate"


@pytest.mark.parametrize("path", ["/ws", "/stream", "/market/ws", "/private/ws"])
async def test_retired_and_wrong_addresses_acknowledge_and_stay_silent(simulator: Simulator, path: str) -> None:
    """Only answers to messages come, never a frame."""
    async with dial(simulator.urls["binance_ws"] + path) as ws:
        for number in range(5):
            await ws.send(json.dumps({"method": "SUBSCRIBE", "params": [DEPTH], "id": number}))
            await asyncio.sleep(0.12)
        answers = [await frame(ws) for _ in range(5)]
    assert answers == [{"result": None, "id": number} for number in range(5)]
    assert simulator.streams.connections[-1].frames_sent == 0


async def test_bybit(simulator: Simulator) -> None:
    """Acknowledgement, snapshot, deltas, pong."""
    async with dial(simulator.urls["bybit_ws"]) as ws:
        await ws.send(json.dumps({"op": "subscribe", "args": ["orderbook.50.BTCUSDT"], "req_id": "1"}))
        assert (await frame(ws))["success"] is True
        assert [(await frame(ws))["type"] for _ in range(3)] == ["snapshot", "delta", "delta"]
        await ws.send('{"op":"ping"}')
        while (answer := await frame(ws)).get("ret_msg") != "pong":
            assert answer["topic"]


async def test_an_unknown_path_is_refused(simulator: Simulator) -> None:
    """The handshake fails with 404."""
    with pytest.raises(Exception, match="404"):
        async with dial(f"{simulator.urls['binance_ws']}/public/nothing"):
            pass


async def test_a_ping_of_the_client_is_answered(simulator: Simulator) -> None:
    """The pong echoes the payload."""
    async with dial(f"{simulator.urls['binance_ws']}/public/ws"), dial(simulator.urls["bybit_ws"]) as ws:
        waiter = await ws.ping(b"payload")
        async with asyncio.timeout(PATIENCE_S):
            await waiter


async def test_handshakes_are_logged_and_connections_listed(simulator: Simulator) -> None:
    """As requests of ``binance_ws``, and as connections with their topics and frames."""
    simulator.requests.clear()
    async with dial(f"{simulator.urls['binance_ws']}/public/ws/{DEPTH}") as ws:
        await frame(ws)
        await frame(ws)
        url = f"http://127.0.0.1:{simulator.port}/control/streams"
        listed = (await asyncio.to_thread(requests.get, url, timeout=PATIENCE_S)).json()[-1]
    (logged,) = simulator.requests.of("binance_ws")
    assert (logged.path, logged.status) == (f"/public/ws/{DEPTH}", 101)
    assert (listed["topics"], listed["open"]) == ([DEPTH], True)
    assert listed["frames_sent"] >= 2


async def test_the_server_pings_and_counts_pongs(strict: Simulator) -> None:
    """A client that answers stays until the connection's age ends it in order."""
    async with dial(f"{strict.urls['binance_ws']}/public/ws") as ws:
        with pytest.raises(ConnectionClosed):
            await frame(ws)
        assert ws.close_code == 1000
    assert strict.streams.connections[-1].pongs >= 3


async def test_a_client_that_sends_too_much_is_cut(strict: Simulator) -> None:
    """The eleventh message within a second closes the connection with 1008."""
    async with dial(f"{strict.urls['binance_ws']}/public/ws") as ws:
        for number in range(11):
            await ws.send(json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": number}))
        await until_closed(ws)
        assert ws.close_code == 1008


async def test_bybit_cuts_the_idle(strict: Simulator) -> None:
    """Without a ping the connection ends."""
    async with dial(strict.urls["bybit_ws"]) as ws:
        with pytest.raises(ConnectionClosed):
            await frame(ws)


async def test_a_client_without_pongs_is_cut(strict: Simulator) -> None:
    """A deaf client is closed before the connection's age ends it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", strict.port)
    writer.write(
        b"GET /binance-ws/public/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    async with asyncio.timeout(PATIENCE_S):
        everything = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert b"101 Switching Protocols" in everything
    assert b"\x03\xf0Pong timeout" in everything


async def test_moving_the_clock_ends_connections() -> None:
    """Streams do not jump: who is connected has to come again."""
    with running_simulator(SimulatorConfig(seed=SEED, now=NOW)) as running:
        async with dial(f"{running.urls['binance_ws']}/public/ws/{DEPTH}") as ws:
            await frame(ws)
            running.clock.set(datetime(2024, 1, 1, tzinfo=UTC))
            await until_closed(ws)
            assert ws.close_code == 1001
        async with dial(f"{running.urls['binance_ws']}/public/ws/{DEPTH}") as ws:
            assert abs((await frame(ws))["E"] - 1_704_067_200_000) < 60_000


async def test_a_broken_recording_ends_the_connection(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Close code 1011 and one line in the log."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"ts":1786310819,"frame":{"stream":"btcusdt@depth5@100ms","data":{"s":"BTCUSDT"}}}\n{broken\n')
    with running_simulator(SimulatorConfig(frames=path, speed=math.inf)) as running:
        async with dial(f"{running.urls['binance_ws']}/public/ws/{DEPTH}") as ws:
            await until_closed(ws)
            assert ws.close_code == 1011
    assert "a.jsonl, line 2 is not a recorded frame" in caplog.text


async def test_the_simulator_stops_with_open_connections() -> None:
    """Stopping does not wait for clients that stay."""
    with running_simulator(SimulatorConfig(seed=SEED, now=NOW)) as running:
        ws = await dial(f"{running.urls['binance_ws']}/public/ws/{DEPTH}")
        await frame(ws)
    await until_closed(ws)
    await ws.close()
