"""Fixtures of the sidecar's tests on loopback: the venue, settings with short intervals, a running sidecar."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import serve

from mts_realtime.runner import stream
from mts_realtime.settings import RealtimeSettings
from mts_realtime.sidecar import Sidecar
from tests.integration.realtime.running import Running, Start
from tests.integration.realtime.venue import Venue


@pytest.fixture
async def venue() -> AsyncIterator[Venue]:
    """A venue with two symbols, serving on a free port until the test ends."""
    scripted = Venue(("BTCUSDT", "ETHUSDT"))
    options: dict[str, Any] = {"compression": None, "ping_interval": None, "close_timeout": 0.2}
    async with serve(scripted.serve, "127.0.0.1", 0, process_request=scripted.answer, **options) as server:
        scripted.port = next(iter(server.sockets)).getsockname()[1]
        market = asyncio.create_task(scripted.run())
        yield scripted
        market.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await market


@pytest.fixture
def make_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, venue: Venue) -> Callable[..., RealtimeSettings]:
    """Settings that point at the venue, with all intervals short."""
    monkeypatch.chdir(tmp_path)
    root = f"127.0.0.1:{venue.port}"
    fast: dict[str, Any] = {
        "home": tmp_path / "home",
        "symbols": venue.symbols,
        "binance_url": f"http://{root}",
        "bybit_url": f"http://{root}",
        "binance_ws_url": f"ws://{root}",
        "bybit_ws_url": f"ws://{root}/v5/public/linear",
        "binance_messages_per_s": 10,
        "bybit_messages_per_s": 100,
        "sample_interval_s": 0.1,
        "flush_interval_s": 0.5,
        "backoff_base_s": 0.05,
        "backoff_cap_s": 0.3,
        "subscribe_timeout_s": 1.5,
        "silence_s": 2.0,
        "connection_silence_s": 1.5,
        "close_timeout_s": 0.3,
        "feed_port": 0,
        "feed_interval_ms": 20,
    }
    return lambda **overrides: RealtimeSettings(**{**fast, **overrides})


@pytest.fixture
def start(make_settings: Callable[..., RealtimeSettings]) -> Start:
    """Begins a sidecar against the venue as an async context; it is ended in order at the end."""

    @contextlib.asynccontextmanager
    async def begin(options: dict[str, Any] | None = None, **overrides: object) -> AsyncIterator[Running]:
        running = Running(make_settings(**overrides))

        def started(sidecar: Sidecar) -> None:
            running.sidecar = sidecar

        async def run() -> None:
            running.exit_code = await stream(
                running.settings,
                stop=running.stop,
                on_started=started,
                on_signal=[running.signals.append],
                **(options or {}),
            )

        task = asyncio.create_task(run())
        try:
            yield running
        finally:
            running.stop.set()
            await task

    return begin
