"""The clients against the simulator, both on the simulator's clock: waiting moves it, and takes no time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mts_dagster.settings import Settings, load_settings
from mts_dagster.sources.http import Clock
from mts_simulator import Simulator, SimulatorConfig, running_simulator

NOW = datetime(2026, 3, 4, 12, 20, tzinfo=UTC)


@dataclass(frozen=True)
class World:
    """A running simulator, settings that point at it, and its clock as the clients' clock."""

    simulator: Simulator
    home: Path

    def settings(self, **overrides: object) -> Settings:
        urls = {f"{name}_url": url for name, url in self.simulator.urls.items()}
        defaults = {"fred_api_key": "a" * 32, "coingecko_requests_per_minute": 100_000, "http_timeout_s": 10.0}
        return load_settings(home=self.home, **(urls | defaults | overrides))

    @property
    def clock(self) -> Clock:
        return Clock(now=lambda: self.simulator.clock.now().timestamp(), sleep=self.wait)

    def wait(self, seconds: float) -> None:
        self.simulator.clock.set(self.simulator.clock.now() + timedelta(seconds=seconds))


@pytest.fixture
def start_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[SimulatorConfig], World]]:
    """Start a simulator of any kind; it stops with the test."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.chdir(tmp_path)
    running = []

    def start(config: SimulatorConfig) -> World:
        running.append(running_simulator(config))
        return World(running[-1].__enter__(), tmp_path / "home")

    yield start
    for simulator in running:
        simulator.__exit__(None, None, None)


@pytest.fixture
def world(start_world: Callable[[SimulatorConfig], World]) -> World:
    """Seeded data, at a fixed time, without limits."""
    return start_world(SimulatorConfig(now=NOW))


@pytest.fixture
def recordings() -> Path:
    folder = Path(os.environ.get("MTS_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))
    if not (folder / "ohlcv").is_dir():
        pytest.skip(f"no recordings at {folder}; set MTS_SHARED_DATA")
    return folder
