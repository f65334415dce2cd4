"""Fixtures of the source tests: time, loopback servers, settings with their state in the test's own folder."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mts_dagster.settings import Settings, load_settings

from .loopback import FakeTime, MakeSettings, ScriptedServer


@pytest.fixture
def time_() -> FakeTime:
    return FakeTime()


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    server = ScriptedServer()
    yield server
    server.close()


@pytest.fixture
def second_server() -> Iterator[ScriptedServer]:
    server = ScriptedServer()
    yield server
    server.close()


@pytest.fixture
def dead_url() -> str:
    """A port of loopback on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def make_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeSettings:
    """Settings with their state in a folder of this test, and no proxy of the machine in between."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.chdir(tmp_path)

    def make(**overrides: object) -> Settings:
        return load_settings(home=tmp_path / "home", **({"http_timeout_s": 5.0} | overrides))

    return make


@pytest.fixture
def recordings() -> Path:
    folder = Path(os.environ.get("MTS_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))
    if not (folder / "rest").is_dir():
        pytest.skip(f"no recordings at {folder}; set MTS_SHARED_DATA")
    return folder
