"""A lake of its own for every test, frames whose content tells who wrote them, and processes to write with."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from mts_dagster.lake import connect, connection, postgres_lock, shared
from mts_dagster.lake.replace import Replaced, replace_frame
from mts_dagster.lake.slices import Slice
from mts_dagster.lake.tables import bootstrap
from mts_dagster.lake.transaction import Origin
from mts_dagster.schemas import TABLES, Table
from mts_dagster.settings import Settings, load_settings

PROCESSES = Path(__file__).parent / "processes"
JAN_1 = datetime(2024, 1, 1, tzinfo=UTC)
HOURS = 24


_idle: dict[tuple[str, ...], list[duckdb.DuckDBPyConnection]] = {}


@pytest.fixture(autouse=True)
def loaded_instances(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let tests take over each other's DuckDB instances, emptied, with the extensions loaded.

    DuckDB verifies 70 MB of extensions for each new instance, a quarter of a second, several times a test.
    """
    really_open, taken = connection._open, []

    def open_loaded(settings: Settings, address: connection.Address) -> duckdb.DuckDBPyConnection:
        if address.is_remote:  # sets options of the whole instance
            return really_open(settings, address)
        idle = _idle.setdefault(address.extensions, [])
        instance = idle.pop() if idle else really_open(settings, address)
        taken.append((address.extensions, instance))
        return instance.cursor()

    monkeypatch.setattr(connection, "_open", open_loaded)
    yield
    while shared._instances:
        shared._instances.popitem()[1].close()
    for extensions, instance in taken:
        for database in (connection.ALIAS, postgres_lock.DATABASE):
            instance.execute(f"detach database if exists {database}")
        _idle[extensions].append(instance)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path / "home", catalog="", data_path="", lock_wait_s=300)


@pytest.fixture
def prices() -> Table:
    return TABLES["price_points"]


@pytest.fixture
def con(settings: Settings, prices: Table) -> Iterator[duckdb.DuckDBPyConnection]:
    """A writer's connection to a lake with one table."""
    con = connect(read_only=False, settings=settings)
    bootstrap(con, [prices])
    yield con
    con.close()


@pytest.fixture
def reader(settings: Settings, con: duckdb.DuckDBPyConnection) -> Iterator[duckdb.DuckDBPyConnection]:
    """A notebook: opened once, kept open."""
    reader = connect(settings=settings)
    yield reader
    reader.close()


def price_frame(day: int, price: float, *, days: int = 1, coin: str = "bitcoin") -> pd.DataFrame:
    """Hourly prices of whole days counted from 2024-01-01, all the same, so that a mixture shows."""
    times = pd.date_range(JAN_1 + timedelta(days=day), periods=HOURS * days, freq="h", unit="us")
    return pd.DataFrame(
        {
            "coin": coin,
            "sampled_at": times,
            "price_usd": price,
            "market_cap_usd": pd.Series([None] * len(times), dtype="float64"),
            "volume_24h_usd": 1.0,
            "source_tier": "demo",
            "available_at": times,
        }
    )


def day_slice(day: int, *, days: int = 1, coin: str = "bitcoin") -> Slice:
    return Slice(JAN_1 + timedelta(days=day), JAN_1 + timedelta(days=day + days), (coin,))


@pytest.fixture
def put(con: duckdb.DuckDBPyConnection, prices: Table) -> Callable[..., Replaced]:
    """Replace whole days of one coin by one price."""

    def replace(day: int, price: float, *, days: int = 1, coin: str = "bitcoin", run_id: str = "run") -> Replaced:
        return replace_frame(
            con,
            prices,
            [day_slice(day, days=days, coin=coin)],
            price_frame(day, price, days=days, coin=coin),
            Origin("raw/price_points", run_id, "v1", f"{coin} {day}+{days}"),
        )

    return replace


def rows_by_day(con: duckdb.DuckDBPyConnection, at: int | None = None) -> dict[tuple[str, int], tuple[int, float]]:
    """(coin, day) to (rows, price); a day that mixes two writers has two prices and fails the test at once."""
    version = "" if at is None else f"at (version => {at})"
    rows = con.execute(
        f"""
        select coin, date_diff('day', timestamptz '2024-01-01 00:00:00+00', sampled_at) as day,
               count(*), count(distinct price_usd), count(distinct sampled_at), any_value(price_usd)
        from raw.price_points {version} group by all
        """
    ).fetchall()
    for coin, day, count, writers, times, _ in rows:
        assert writers == 1, f"{coin} day {day} mixes {writers} writers"
        assert count == times, f"{coin} day {day} has duplicates: {count} rows, {times} times"
    return {(coin, day): (count, price) for coin, day, count, _, _, price in rows}


@pytest.fixture
def start(settings: Settings, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start one of the scripts in ``processes`` on the test's lake; whatever is left running at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def run(script: str, *arguments: int, **overrides: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(PROCESSES / script), *(str(argument) for argument in arguments)],
            env=environment(settings) | overrides,
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        with process:  # closes its pipes and waits for it
            process.kill()


def environment(settings: Settings) -> dict[str, str]:
    """The environment of a process that works on this lake."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("MTS_")}
    return others | {
        "MTS_HOME": str(settings.home),
        "MTS_CATALOG": settings.catalog,
        "MTS_DATA_PATH": settings.data_path,
        "MTS_LOCK_WAIT_S": str(settings.lock_wait_s),
    }


def succeed(process: subprocess.Popen[str]) -> str:
    """Wait for the end of a process that must not fail; returns what it still had to say."""
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return output


def say(process: subprocess.Popen[str], word: str = "go") -> None:
    assert process.stdin is not None
    process.stdin.write(word + "\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> str:
    """The next line that the process prints; fails with its errors when it ended instead."""
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if not line:
        assert process.stderr is not None
        pytest.fail(f"the process ended without a word: {process.stderr.read()}")
    return line
