"""Synthetic load: true sequences and shapes, the rate asked for, symbols that both exchanges list."""

from __future__ import annotations

import asyncio
import json
import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import requests
from websockets.asyncio.client import connect

from mts_simulator import LoadProfile, SimulatorConfig, running_simulator
from mts_simulator.load_streams import LoadBinanceFeeds, LoadBybitFeeds

from .conftest import NOW_MS

if TYPE_CHECKING:
    from mts_simulator.streams import FeedSource

PROFILE = LoadProfile(symbols=40, frames_per_s=2000)


def sent(source: FeedSource, duration_ms: int) -> list[Any]:
    """Frames of the next ``duration_ms``, millisecond by millisecond."""
    frames: list[Any] = []
    for now_ms in range(NOW_MS, NOW_MS + duration_ms):
        while source.next_ms() <= now_ms:
            frames += [json.loads(frame.text) for frame in source.pop(now_ms)]
    return frames


def test_pictures_have_the_shape_and_the_rate() -> None:
    """Twenty levels a side, uncrossed, ids that grow, 2000 frames in a second over all symbols."""
    source = LoadBinanceFeeds(PROFILE).source()
    for name in PROFILE.names():
        source.add(f"{name.lower()}@depth20@100ms", NOW_MS)
    frames = sent(source, 1000)
    assert len(frames) == pytest.approx(2000, abs=50)
    assert {frame["s"] for frame in frames} == set(PROFILE.names())
    assert all(len(frame["b"]) == len(frame["a"]) == 20 for frame in frames)
    assert all(float(frame["b"][0][0]) < float(frame["a"][0][0]) for frame in frames)
    one = [frame for frame in frames if frame["s"] == "L0001USDT"]
    assert all(later["u"] > frame["u"] for frame, later in pairwise(one))


def test_deltas_fit_the_snapshot() -> None:
    """Fifty levels a side; deltas change known levels only, and a round ends where it began."""
    source = LoadBybitFeeds(PROFILE).source()
    source.add("orderbook.50.L0007USDT", NOW_MS)
    frames = sent(source, 65 * 20)
    snapshot = {name: dict(frames[0]["data"][name]) for name in ("b", "a")}
    book = {name: dict(side) for name, side in snapshot.items()}
    for frame, later in pairwise(frames[:65]):
        assert later["data"]["u"] == frame["data"]["u"] + 1
        for name, side in book.items():
            assert {price for price, _ in later["data"][name]} <= set(side)
            side.update(later["data"][name])
    assert len(snapshot["b"]) == len(snapshot["a"]) == 50
    assert max(map(float, book["b"])) < min(map(float, book["a"]))
    assert book == snapshot


def test_unlimited_load_is_always_due() -> None:
    """Without a rate a frame is due at any time, in bounded batches."""
    source = LoadBinanceFeeds(LoadProfile(symbols=3)).source()
    source.add("l0001usdt@depth20@100ms", NOW_MS)
    assert 0 < len(source.pop(NOW_MS)) <= 5000
    assert source.next_ms() <= NOW_MS


def test_other_symbols_are_silent() -> None:
    """Names outside the profile have no feed."""
    source = LoadBinanceFeeds(PROFILE).source()
    source.add("l0041usdt@depth20@100ms", NOW_MS)
    source.add("btcusdt@depth20@100ms", NOW_MS)
    assert source.next_ms() == math.inf


async def test_load_over_the_wire() -> None:
    """Instruments list the symbols, and thousands of frames a second arrive whole and in order."""
    with running_simulator(SimulatorConfig(load=LoadProfile(symbols=20))) as simulator:
        listed = await asyncio.to_thread(requests.get, f"{simulator.urls['binance']}/fapi/v1/exchangeInfo", timeout=20)
        names = [row["symbol"] for row in listed.json()["symbols"]]
        topics = [f"orderbook.50.{name}" for name in names]
        async with (
            connect(simulator.urls["bybit_ws"], proxy=None, compression=None, max_queue=None) as ws,
            asyncio.timeout(60),
        ):
            await ws.send(json.dumps({"op": "subscribe", "args": topics}))
            await ws.recv()
            frames = [json.loads(await ws.recv()) for _ in range(10_000)]
    last: dict[str, int] = {}
    for frame in frames:
        number = frame["data"]["u"]
        assert number == last.get(frame["topic"], number - 1) + 1
        last[frame["topic"]] = number
    assert len(last) == len(names) == 20
