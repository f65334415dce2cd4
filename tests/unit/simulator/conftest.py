"""Fixtures of the simulator's tests: a seeded market, services without sockets, the shared recordings."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mts_simulator import SimulatorConfig, running_simulator
from mts_simulator.clock import to_ms
from mts_simulator.market import Market
from mts_simulator.wire import Call, Reply, Service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mts_simulator import Simulator

SEED = 7
NOW = datetime(2026, 6, 16, 12, 34, 56, tzinfo=UTC)
"""A Tuesday."""
NOW_MS = to_ms(NOW)
JsonValue = Any
"""Whatever a query or a JSON body may hold."""
KEY = "abcdefghijklmnopqrstuvwxyz123456"


def ask(
    service: Service,
    path: str,
    *,
    now_ms: int = NOW_MS,
    headers: dict[str, str] | None = None,
    **query: JsonValue,
) -> Reply:
    """The reply of a service to a request at a fixed time."""
    return service.answer(Call(path, {name: str(value) for name, value in query.items()}, headers or {}, now_ms))


def ask_json(
    service: Service,
    path: str,
    *,
    now_ms: int = NOW_MS,
    headers: dict[str, str] | None = None,
    **query: JsonValue,
) -> JsonValue:
    """The decoded body of an answer that must be 200."""
    reply = ask(service, path, now_ms=now_ms, headers=headers, **query)
    assert reply.status == 200, reply.body
    return json.loads(reply.body)


@pytest.fixture(scope="session")
def market() -> Market:
    return Market(SEED)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    root = Path(__file__).resolve().parents[3]
    folder = Path(os.environ.get("MTS_SHARED_DATA", root.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the shared recordings are not at {folder}; set MTS_SHARED_DATA")
    return folder


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with running_simulator(SimulatorConfig(seed=SEED, now=NOW)) as running:
        yield running
