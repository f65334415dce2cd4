"""Many processes on one lake: real writers, real readers, real kills."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest

from mts_dagster.errors import LakeLockedError, LakeNotFoundError
from mts_dagster.lake import connect, transact
from mts_dagster.lake.connection import SCHEMAS
from mts_dagster.lake.lock import state_of
from mts_dagster.lake.replace import Replaced
from mts_dagster.lake.status import lock_state
from mts_dagster.settings import Settings, load_settings

from .conftest import environment, hear, rows_by_day, say, succeed

pytestmark = pytest.mark.xdist_group("lake_concurrency")

# Between two looks of a reader that looks all the time: the writers need the processor too.
PAUSE_S = 0.1

Start = Callable[..., subprocess.Popen[str]]
WRITERS = 6
REPLACEMENTS = 40
DAYS = 8


@pytest.fixture(scope="module")
def patience(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[str], ...]]:
    """Somebody holds a lock for 30 s and somebody waits for it, beside the other tests of this module."""
    home = tmp_path_factory.mktemp("patience")
    settings = load_settings(home=home, catalog="", data_path="", lock_wait_s=300)
    scripts = Path(__file__).parent / "processes"

    def run(*command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *command],
            env=environment(settings),
            cwd=home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    with run(str(scripts / "hold_lock.py"), "30") as holder:
        assert hear(holder) == "held"
        with run(str(scripts / "replace_days.py"), "1", "1", "1") as waiter:
            assert hear(waiter) == "ready"
            say(waiter)
            yield holder, waiter
            waiter.kill()
        holder.kill()


@pytest.mark.timeout(600)  # eight processes, on a machine that may be busy with other things
@pytest.mark.usefixtures("patience")
def test_six_writers_a_reader_and_kills(start: Start, con: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """240 replacements of the same days by six processes, two more killed in the middle of theirs.

    No error, no half day, no double. The reader keeps one connection for all of it; each of its looks must find whole
    days of one writer each.
    """
    reader = connect(settings=settings)
    writers = [start("replace_days.py", number, REPLACEMENTS, DAYS) for number in range(1, WRITERS + 1)]
    victims = [start("replace_days.py", 99, 10_000, DAYS) for _ in range(2)]
    for process in (*writers, *victims):
        assert hear(process) == "ready"
    for process in (*writers, *victims):
        say(process)
    for victim in victims:
        hear(victim)  # its first commit; the kill hits somewhere in the next one
        victim.send_signal(signal.SIGKILL)
        assert victim.wait() == -signal.SIGKILL
    looks = 0
    while any(writer.poll() is None for writer in writers):
        assert {rows for rows, _ in rows_by_day(reader).values()} <= {24}
        looks += 1
        time.sleep(PAUSE_S)
    assert looks > 5
    for writer in writers:
        assert len(succeed(writer).splitlines()) == REPLACEMENTS
    final = rows_by_day(reader)
    assert sorted(final) == [("bitcoin", day) for day in range(DAYS)]
    assert {rows for rows, _ in final.values()} == {24}
    commits = con.execute(
        "select count(*) from lake.snapshots() where commit_extra_info->>'run_id' in ('writer-1', 'writer-2', "
        "'writer-3', 'writer-4', 'writer-5', 'writer-6')"
    ).fetchall()
    assert commits == [(WRITERS * REPLACEMENTS,)]
    reader.close()


@pytest.mark.usefixtures("con", "patience")
def test_two_first_writers_of_the_same_days(start: Start, reader: duckdb.DuckDBPyConnection) -> None:
    """Neither finds a row to delete, and still only one of them is stored."""
    writers = [start("replace_days.py", number, DAYS, DAYS) for number in (1, 2)]
    for writer in writers:
        hear(writer)
    for writer in writers:
        say(writer)
    for writer in writers:
        succeed(writer)
    assert {key: rows for key, (rows, _) in rows_by_day(reader).items()} == {
        ("bitcoin", day): 24 for day in range(DAYS)
    }


def test_two_creators_and_an_impatient_reader(start: Start, settings: Settings) -> None:
    """Two processes make the same lake; a reader that tries all the time sees none, then a furnished one."""
    writers = [start("replace_days.py", number, 1, 1) for number in (1, 2)]
    for writer in writers:
        hear(writer)
    for writer in writers:
        say(writer)
    reader = None
    while reader is None:
        try:
            reader = connect(settings=settings)
        except LakeNotFoundError:
            assert all(writer.poll() in (None, 0) for writer in writers)
            time.sleep(PAUSE_S / 10)
    schemas = reader.execute("select schema_name from duckdb_schemas() where database_name = 'lake'").fetchall()
    assert {name for (name,) in schemas} == {"main", *SCHEMAS}
    for writer in writers:
        succeed(writer)
    assert [rows for rows, _ in rows_by_day(reader).values()] == [24]
    reader.close()


@pytest.mark.parametrize("statements", [1, 2])
def test_killed_after_the_delete_or_after_the_insert(
    start: Start, put: Callable[..., Replaced], reader: duckdb.DuckDBPyConnection, statements: int
) -> None:
    """The old day stays, also for a reader that had its connection open, and the next writer is not locked out."""
    put(0, 1.0)
    victim = start("die_between.py", statements)
    hear(victim)
    say(victim)
    assert [hear(victim) for _ in range(statements)] == ["done 24"] * statements
    assert victim.wait() == -signal.SIGKILL
    assert rows_by_day(reader) == {("bitcoin", 0): (24, 1.0)}
    put(0, 2.0)
    assert rows_by_day(reader) == {("bitcoin", 0): (24, 2.0)}


@pytest.mark.usefixtures("con")
def test_a_lock_that_stays_taken_names_its_holder(start: Start, settings: Settings) -> None:
    """After the bounded wait the error tells which process to look at and which setting to raise."""
    holder = start("hold_lock.py")
    assert hear(holder) == "held"
    impatient = load_settings(**settings.model_dump() | {"lock_wait_s": 0.2})
    with pytest.raises(LakeLockedError) as caught:
        connect(read_only=False, settings=impatient)
    message = str(caught.value)
    assert f"stayed taken for 0.2 s by process {holder.pid} on " in message
    assert "MTS_LOCK_WAIT_S" in message
    assert "\n" not in message
    say(holder)
    assert succeed(holder) == "released\n"
    connect(read_only=False, settings=impatient).close()


@pytest.mark.usefixtures("con")
def test_lock_state_names_the_holder(start: Start, settings: Settings) -> None:
    """``mts doctor`` sees a writer at work, and sees it gone; looking takes nothing and changes nothing."""
    files = sorted(settings.home.iterdir())
    free = lock_state(settings)
    assert (free.locked, free.holder) == (False, None)
    assert sorted(settings.home.iterdir()) == files
    holder = start("hold_lock.py")
    assert hear(holder) == "held"
    held = lock_state(settings)
    assert held.locked
    assert held.holder is not None
    assert held.holder.startswith(f"process {holder.pid} on ")
    assert str(held) == f"held by {held.holder} ({settings.home / 'lake.sqlite.lock'})"
    holder.kill()
    holder.wait()
    assert not lock_state(settings).locked


def test_no_lake_is_not_locked(tmp_path: Path) -> None:
    """Where nothing was ever written nobody holds a lock, and asking makes no file."""
    assert not state_of(f"file:{tmp_path / 'lake.sqlite.lock'}").locked
    assert list(tmp_path.iterdir()) == []


def test_a_locked_catalog_is_waited_out(
    con: duckdb.DuckDBPyConnection, settings: Settings, put: Callable[..., Replaced], reader: duckdb.DuckDBPyConnection
) -> None:
    """Somebody who ignores our lock keeps SQLite's own: the whole transaction is repeated, not lost and not doubled."""
    put(0, 1.0)
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('begin immediate'); "
        "print('held', flush=True); sys.stdin.readline(); c.execute('commit'); print('released', flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(settings.home / "lake.sqlite")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as stranger:
        assert hear(stranger) == "held"
        tries = []

        def body(con: duckdb.DuckDBPyConnection) -> None:
            tries.append(1)
            if len(tries) == 2:
                say(stranger)
                assert hear(stranger) == "released"
            con.execute("update raw.price_points set price_usd = price_usd + 1")

        transact(con, body)
    assert len(tries) >= 2
    assert rows_by_day(reader) == {("bitcoin", 0): (24, 2.0)}


def test_thirty_seconds_of_waiting(patience: tuple[subprocess.Popen[str], ...]) -> None:
    """A writer that finds the lock taken for 30 s waits, and then writes."""
    holder, waiter = patience
    assert succeed(holder) == "released\n"
    assert succeed(waiter) == "committed 0\n"
