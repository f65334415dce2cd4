"""Shared by the sidecar's unit tests: the recordings, instruments, settings, and frames in both exchanges' spelling."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mts_realtime.events import Instrument
from mts_realtime.settings import RealtimeSettings


@pytest.fixture(scope="session")
def wrapped_frames(shared_data: Path) -> Callable[[str, int], Iterator[tuple[int, bytes]]]:
    """Reads a wrapped recording as (receipt time in ns, raw frame as it was sent), sent frames left out."""

    def read(name: str, ns_per_unit: int) -> Iterator[tuple[int, bytes]]:
        with gzip.open(shared_data / "frames" / name) as lines:
            for line in lines:
                wrapper, _, rest = line.rstrip().partition(b',"frame":')
                entry = json.loads(wrapper + b"}")
                if entry.get("dir") != "send":
                    yield round(entry["ts"] * ns_per_unit), rest[:-1]

    return read


@pytest.fixture(scope="session")
def bare_frames(shared_data: Path) -> Callable[[str], list[bytes]]:
    """Reads a recording that holds one raw frame a line."""

    def read(name: str) -> list[bytes]:
        return [line for line in (shared_data / "frames" / name).read_bytes().splitlines() if line]

    return read


@pytest.fixture
def make_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RealtimeSettings]:
    """Settings below a temporary home, untouched by the environment."""
    for name in list(os.environ):
        if name.startswith("MTS_") and name != "MTS_SHARED_DATA":
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def make(**overrides: object) -> RealtimeSettings:
        return RealtimeSettings(**{"home": tmp_path / "home", **overrides})  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def make_instrument() -> Callable[..., Instrument]:
    """An instrument with small steps."""

    def make(exchange: str = "binance", symbol: str = "BTCUSDT", **overrides: object) -> Instrument:
        values: dict[str, Any] = {
            "exchange": exchange,
            "venue_symbol": symbol,
            "symbol": symbol,
            "tick_size": 0.1,
            "size_step": 0.001,
            "min_size": 0.001,
            "min_notional": 5.0,
            **overrides,
        }
        return Instrument(**values)

    return make
