"""The sidecar against the project's simulator, which was written apart from it: seeded markets and recordings."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from mts_realtime.landing import list_segments, read_segments
from mts_realtime.runner import stream
from mts_realtime.settings import RealtimeSettings, load_settings
from mts_realtime.sidecar import Sidecar
from mts_simulator import Simulator, SimulatorConfig, StreamFault, running_simulator
from tests.integration.realtime.running import Row, Running, assert_covered

Levels = list[tuple[float, float]]


@pytest.fixture
def simulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RealtimeSettings]:
    """Settings that point at a simulator, below a folder of their own."""
    monkeypatch.chdir(tmp_path)

    def make(simulator: Simulator, name: str = "home", **overrides: object) -> RealtimeSettings:
        pointed = {key.removeprefix("MTS_").lower(): value for key, value in simulator.env().items()}
        fast = {"home": tmp_path / name, "feed_port": 0, "sample_interval_s": 0.1, "flush_interval_s": 0.5}
        fast |= {"backoff_base_s": 0.05, "backoff_cap_s": 0.3, "subscribe_timeout_s": 2.0}
        return load_settings(**{**pointed, **fast, **overrides})

    return make


@contextlib.asynccontextmanager
async def running(settings: RealtimeSettings, **options: Any) -> AsyncIterator[Running]:  # noqa: ANN401 - stream's own
    """A sidecar with these settings, ended in order."""
    handle = Running(settings)

    def started(sidecar: Sidecar) -> None:
        handle.sidecar = sidecar

    task = asyncio.create_task(stream(settings, stop=handle.stop, on_started=started, **options))
    try:
        yield handle
    finally:
        handle.stop.set()
        handle.exit_code = await task


def books(rows: list[Row], exchange: str) -> dict[tuple[str, int], tuple[list[float], ...]]:
    """Levels by symbol and sequence number."""
    columns = ("bid_prices", "bid_sizes", "ask_prices", "ask_sizes")
    return {
        (row["symbol"], row["sequence_id"]): tuple(row[column] for column in columns)
        for row in rows
        if row["exchange"] == exchange
    }


async def test_seeded_markets_land_without_a_blemish(simulated: Callable[..., RealtimeSettings]) -> None:
    """Two implementations of the same documents agree: nothing unknown, quarantined, refused or out of sequence.

    Pictures and spliced updates of the same Binance books are compared by sequence number.
    """
    with running_simulator(SimulatorConfig(seed=7)) as simulator:
        async with (
            running(simulated(simulator, "pictures")) as pictures,
            running(simulated(simulator, "diffs", exchanges=("binance",), binance_depth="diff")) as diffs,
        ):
            await pictures.until(lambda: pictures.metric("rows_total", dataset="order_book") > 40)
            await diffs.until(lambda: diffs.metric("rows_total", dataset="order_book") > 40)
    for handle in (pictures, diffs):
        assert handle.metric("quarantined_frames_total") == 0
        assert handle.metric("unknown_fields_total") == 0
        assert handle.metric("resyncs_total") == 0
        assert handle.metric("reconnects_total") == 0
        assert {row["reason"] for row in handle.rows("gaps")} == {"starting"}
        assert_covered(handle, "order_book", "binance", "BTCUSDT")
    shown, spliced = books(pictures.rows("order_book"), "binance"), books(diffs.rows("order_book"), "binance")
    common = shown.keys() & spliced.keys()
    assert len(common) > 10
    assert all(shown[key] == spliced[key] for key in common)
    assert {row["funding_interval_hours"] for row in pictures.rows("funding")} <= {8.0, 4.0, 1.0}


@pytest.mark.parametrize(
    ("kind", "venue", "topic"),
    [
        ("reset", "bybit", "orderbook.*"),
        ("close", "binance", "*@depth20*"),
        ("drop", "bybit", "orderbook.*"),
        ("duplicate", "bybit", "orderbook.*"),
        ("swap", "bybit", "orderbook.*"),
        ("restart", "bybit", "orderbook.*"),
        ("crossed", "binance", "*@depth20*"),
        ("crossed", "bybit", "orderbook.*"),
        ("malformed", "*", "*"),
        ("extra_field", "*", "*"),
        ("missing_field", "*", "*"),
        ("wrong_type", "*", "*"),
    ],
)
async def test_simulated_faults_leave_no_mark_on_the_data(
    simulated: Callable[..., RealtimeSettings], kind: str, venue: str, topic: str
) -> None:
    """After each fault everything is live again; landed books are sorted and uncrossed; what is missing is declared."""
    with running_simulator(SimulatorConfig(seed=7)) as simulator:
        async with running(simulated(simulator, symbols=("BTCUSDT", "ETHUSDT"))) as handle:
            await handle.until(handle.live)
            fault = StreamFault(kind, venue=venue, topic=topic, skip=3, times=2)  # type: ignore[arg-type]
            simulator.stream_faults.add(fault)
            await handle.until(lambda: not simulator.stream_faults.pending())
            rows = handle.metric("rows_total", dataset="order_book")
            await handle.until(lambda: handle.live() and handle.metric("rows_total", dataset="order_book") > rows + 20)
    for row in handle.rows("order_book"):
        bids, asks = row["bid_prices"], row["ask_prices"]
        assert bids == sorted(set(bids), reverse=True)
        assert asks == sorted(set(asks))
        assert 0 < bids[0] < asks[0]
        assert min(row["bid_sizes"] + row["ask_sizes"]) > 0
    for exchange in ("binance", "bybit"):
        for symbol in ("BTCUSDT", "ETHUSDT"):
            assert_covered(handle, "order_book", exchange, symbol)


def rebuilt(path: Path, topic: str, until: int) -> tuple[Levels, Levels]:
    """The book of a recording as of an update id, kept in the plainest way."""
    sides: dict[str, dict[str, str]] = {"b": {}, "a": {}}
    with gzip.open(path) as lines:
        for line in lines:
            entry = json.loads(line)
            frame = entry["frame"]
            if "lastUpdateId" in frame:
                sides = {"b": dict(frame["bids"]), "a": dict(frame["asks"])}
                continue
            data = frame.get("data")
            if topic not in (frame.get("topic"), frame.get("stream")) or data["u"] > until:
                continue
            if frame.get("type") == "snapshot":
                sides = {"b": {}, "a": {}}
            for side in ("b", "a"):
                sides[side] |= dict(data[side])
    ladders = [[(float(p), float(q)) for p, q in side.items() if float(q)] for side in sides.values()]
    return sorted(ladders[0], reverse=True)[:20], sorted(ladders[1])[:20]


@pytest.mark.parametrize(
    ("exchange", "name", "topic", "options"),
    [
        (
            "bybit",
            "bybit_v5/linear_BTCUSDT_ETHUSDT_20260809.jsonl.gz",
            "orderbook.200.BTCUSDT",
            {"bybit_depth": 200},
        ),
        (
            "binance",
            "binance_usdm/btcusdt_20240808_depth0ms_bookTicker_trade.jsonl.gz",
            "btcusdt@depth@0ms",
            {"binance_depth": "diff", "binance_depth_interval_ms": 0},
        ),
    ],
)
async def test_recordings_played_over_sockets(
    simulated: Callable[..., RealtimeSettings],
    shared_data: Path,
    exchange: str,
    name: str,
    topic: str,
    options: dict[str, object],
) -> None:
    """Real frames over a real socket, as fast as possible: every landed book equals an independent rebuild."""
    path = shared_data / "frames" / name
    config = SimulatorConfig(frames=path, speed=float("inf"))
    with running_simulator(config) as simulator:
        settings = simulated(simulator, exchanges=(exchange,), symbols=("BTCUSDT",), sample_interval_s=0.02, **options)
        async with running(settings) as handle:
            await handle.until(lambda: handle.metric("rows_total", dataset="order_book") > 5, 20)
    assert handle.metric("resyncs_total", reason="sequence_gap") == 0
    assert handle.metric("quarantined_frames_total") == 0
    rows = handle.rows("order_book")
    last = rows[-1]
    bids, asks = rebuilt(path, topic, last["sequence_id"])
    assert list(zip(last["bid_prices"], last["bid_sizes"], strict=True)) == bids
    assert list(zip(last["ask_prices"], last["ask_sizes"], strict=True)) == asks
    assert all(row["bid_prices"][0] < row["ask_prices"][0] for row in rows)


async def test_own_capture_played_back_by_the_simulator(
    simulated: Callable[..., RealtimeSettings], tmp_path: Path
) -> None:
    """A capture of one sidecar, played to another one: equal books wherever both have the same sequence number."""
    with running_simulator(SimulatorConfig(seed=7)) as simulator:
        settings = simulated(simulator, "first", symbols=("BTCUSDT",), binance_depth="diff")
        async with running(settings, capture_dir=tmp_path / "kept") as first:
            await first.until(lambda: first.metric("rows_total", dataset="order_book") > 60)
    with running_simulator(SimulatorConfig(seed=7, frames=tmp_path / "kept")) as simulator:
        settings = simulated(simulator, "second", symbols=("BTCUSDT",), binance_depth="diff")
        async with running(settings) as second:
            await second.until(lambda: second.metric("rows_total", dataset="order_book") > 30)
    for exchange in ("binance", "bybit"):
        before = books(first.rows("order_book"), exchange)
        again = books(second.rows("order_book"), exchange)
        assert len(before.keys() & again.keys()) > 5
        assert all(before[key] == again[key] for key in before.keys() & again.keys())


def test_landing_is_empty_before_the_first_start(tmp_path: Path) -> None:
    """What a sensor sees before the sidecar ever ran."""
    assert read_segments(list_segments(tmp_path, "order_book"), "order_book").num_rows == 0
