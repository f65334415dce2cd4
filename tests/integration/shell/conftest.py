"""One lake that is filled from invented markets, and the ways to look at it."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from mts_dagster import cli
from mts_dagster.lake import connect
from mts_dagster.lake.shared import session
from mts_dagster.runs import Days
from mts_dagster.settings import Settings, get_settings
from mts_dagster.workbench import Workbench, collect_macro, collect_market, compute_signals
from mts_simulator.simulator import Simulator, SimulatorConfig, running_simulator
from tests.conftest import simulated_settings

# A fixed past week, so that each run sees the same market; the first days only warm the features up.
TODAY = datetime.now(UTC).date()
FIRST, LAST = date(2024, 1, 1), date(2024, 2, 20)
HISTORY, SIGNAL_DAYS = Days(FIRST, LAST), Days(date(2024, 2, 10), LAST)


@dataclass(frozen=True)
class World:
    """A simulator and a lake filled from it."""

    simulator: Simulator
    settings: Settings

    def rows(self, query: str, parameters: list[Any] | None = None) -> list[tuple[Any, ...]]:
        """Answer of a query on the lake."""
        with session(self.settings) as con:
            return con.execute(query, parameters or []).fetchall()

    def write(self, statement: str, parameters: list[Any] | None = None) -> None:
        """Change the lake behind everybody's back."""
        with session(self.settings, read_only=False) as con:
            con.execute(statement, parameters or [])

    def run(self, work: Callable[[Workbench], None]) -> None:
        """Do something at a quiet workbench."""
        with pytest.MonkeyPatch.context() as patch, Workbench.open(self.settings) as bench:
            patch.setattr(bench.console, "quiet", True)
            work(bench)


@dataclass(frozen=True)
class Said:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:  # noqa: ANN401 - JSON
        return json.loads(self.out)


Mts = Callable[..., Said]


def is_one_line(said: Said) -> bool:
    """Whether stderr ends in one line that begins with the program's name, without a traceback."""
    last = said.err.rstrip("\n").splitlines()[-1]
    return last.startswith("mts: ") and "Traceback" not in said.err and len(last) < 400


def everything(con: duckdb.DuckDBPyConnection) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables, in a fixed order."""
    names = con.execute(
        "select schema_name || '.' || table_name from duckdb_tables() where database_name = 'lake' order by all"
    ).fetchall()
    return {name: con.execute(f"from {name} order by all").fetchall() for (name,) in names}


@pytest.fixture(scope="session")
def market() -> Iterator[Simulator]:
    """Invented markets; its faults are the tests' to add, and are gone afterwards."""
    with running_simulator(SimulatorConfig(seed=7)) as simulator:
        yield simulator


@pytest.fixture(autouse=True)
def _no_faults_stay(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "market" in request.fixturenames:
        request.getfixturevalue("market").faults.clear()


@pytest.fixture(scope="session")
def filled(market: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Seven weeks of market and macro, signals of the last eleven days. To look at, not to change."""
    world = World(market, settings_of(market, tmp_path_factory.mktemp("filled") / "home"))

    def fill(bench: Workbench) -> None:
        collect_macro(bench, HISTORY)
        collect_market(bench, HISTORY)
        compute_signals(bench, SIGNAL_DAYS)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("DAGSTER_HOME", "DAGSTER_EVENT_BATCH_SIZE", "MTS_HOME"):
            patch.setenv(name, "")
        world.run(fill)
        yield world


@pytest.fixture
def run_mts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Mts]:
    """Run a command in this process with the given environment."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, env: dict[str, str]) -> Said:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["mts", *arguments])
        get_settings.cache_clear()
        before = signal.getsignal(signal.SIGTERM)
        with pytest.raises(SystemExit) as stop:
            cli.main()
        signal.signal(signal.SIGTERM, before)
        said = capsys.readouterr()
        return Said(int(str(stop.value.code)), said.out, said.err)

    yield run
    get_settings.cache_clear()


@pytest.fixture
def copied(filled: World, tmp_path: Path) -> World:
    """A copy of the filled lake that a test may spoil."""
    home = tmp_path / "home"
    shutil.copytree(filled.settings.home, home)
    return World(filled.simulator, settings_of(filled.simulator, home))


@pytest.fixture
def empty(market: Simulator, tmp_path: Path) -> World:
    """No lake yet."""
    return World(market, simulated_settings(market, tmp_path / "home"))


def settings_of(market: Simulator, home: Path) -> Settings:
    """With a coin that has no perpetual."""
    return simulated_settings(market, home, coins=("bitcoin", "tether"))


def days_back(count: int) -> Days:
    """The last days, today included."""
    return Days(TODAY - timedelta(days=count - 1), TODAY)


def open_lake(settings: Settings) -> duckdb.DuckDBPyConnection:
    """A notebook's connection."""
    return connect(settings=settings)


def variables(simulator: Simulator, home: Path, **more: str) -> dict[str, str]:
    """Environment of a command at the simulator."""
    return {**simulator.env(), "MTS_HOME": str(home), "MTS_HTTP_BACKOFF_S": "0.01", **more}
