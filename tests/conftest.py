"""Fixtures that several test folders use: the recordings, settings of a home of one's own, an open workbench."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mts_dagster.settings import Settings, load_settings
from mts_simulator.simulator import Simulator, SimulatorConfig, running_simulator

REPOSITORY = Path(__file__).resolve().parent.parent

# Three workers share two cores: a second thread of DuckDB's costs a seventh of the processor time and saves nothing.
os.environ.setdefault("MTS_DUCKDB_THREADS", "1")

# A worker holds Dagster, pandas and thousands of tests: with Python's thresholds a fourteenth of the processor time
# goes into looking through objects that stay.
gc.set_threshold(200_000, 50, 100)


# Kernels are compiled once a worker: all that needs them runs on one. The sidecar's tests mostly wait: side by side
# they would leave the processor idle, beside others they do not.
GROUPS = {"tests/unit/backtest": "engine", "tests/integration/realtime": "realtime"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of some folders a group, before the workers' own hook reads it."""
    for item in items:
        for folder, group in GROUPS.items():
            if item.path.is_relative_to(REPOSITORY / folder):
                item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings."""
    folder = Path(os.environ.get("MTS_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "README.md").exists():
        pytest.skip(f"no recordings at {folder}; set MTS_SHARED_DATA")
    return folder


@pytest.fixture(scope="session")
def seeded_simulator() -> Iterator[Simulator]:
    """A simulator with invented markets."""
    with running_simulator(SimulatorConfig(seed=7)) as simulator:
        yield simulator


@pytest.fixture
def make_settings(tmp_path: Path) -> Callable[..., Settings]:
    """Settings of a home of the test's own, pointed at a simulator."""

    def make(simulator: Simulator, **overrides: object) -> Settings:
        return simulated_settings(simulator, tmp_path / "home", **overrides)

    return make


@pytest.fixture(autouse=True)
def _environment_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening an instance sets these for the process; the next test starts without them."""
    for name in ("DAGSTER_HOME", "DAGSTER_EVENT_BATCH_SIZE", "MTS_HOME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def simulated_settings(simulator: Simulator, home: Path, **overrides: object) -> Settings:
    """Settings that point at ``simulator`` and keep everything below ``home``."""
    pointed = {name.removeprefix("MTS_").lower(): value for name, value in simulator.env().items()}
    return load_settings(home=home, http_backoff_s=0.01, **{**pointed, **overrides})
