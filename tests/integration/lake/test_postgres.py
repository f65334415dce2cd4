"""The same lake on a Postgres catalog: a real server on a socket in a temporary folder, started and stopped here."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest

from mts_dagster.errors import LakeError, LakeLockedError, LakeNotFoundError
from mts_dagster.lake import connect
from mts_dagster.lake.replace import Replaced
from mts_dagster.lake.status import lock_state
from mts_dagster.settings import Settings, load_settings

from . import test_concurrency, test_connection, test_maintenance, test_provenance, test_replace, test_status
from .conftest import hear, rows_by_day, say, succeed

pytestmark = pytest.mark.xdist_group("lake_postgres")

Start = Callable[..., subprocess.Popen[str]]
USER = "mts"
DATABASE = "postgres"


def binary(name: str) -> str:
    """A program of the newest server that Debian or the path offers."""
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    found = str(installed[-1]) if installed else shutil.which(name)
    if found is None:
        pytest.skip(f"PostgreSQL is not installed here ({name} is missing): apt-get install postgresql")
    return found


def server_user() -> str | None:
    """The server refuses to run as root; then it runs as somebody with fewer rights."""
    if os.getuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in known)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Folder of the socket of a server that trusts everybody who can reach it."""
    programs = {name: binary(name) for name in ("initdb", "postgres", "pg_isready", "psql")}
    user = server_user()
    folder = tempfile.mkdtemp(prefix="mts-pg-")
    if user:
        shutil.chown(folder, user)
    data = f"{folder}/data"
    subprocess.run(
        [programs["initdb"], "-D", data, "-A", "trust", "-U", USER, "--no-sync", "--no-locale", "-E", "UTF8"],
        check=True,
        capture_output=True,
        user=user,
        cwd=folder,
    )
    with subprocess.Popen(
        [programs["postgres"], "-D", data, "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        user=user,
        cwd=folder,
    ) as process:
        while subprocess.run([programs["pg_isready"], "-q", "-h", folder], check=False).returncode:
            assert process.poll() is None, "the server ended"
            time.sleep(0.05)
        yield folder
        process.send_signal(signal.SIGQUIT)  # at once: nothing of it is kept
    shutil.rmtree(folder)


@pytest.fixture
def settings(server: str, tmp_path: Path) -> Settings:
    """A lake in an emptied database; overrides the SQLite one for every test below."""
    empty = "drop schema public cascade; create schema public"
    subprocess.run([binary("psql"), "-q", "-h", server, "-U", USER, "-d", DATABASE, "-c", empty], check=True)
    conninfo = f"host={server} user={USER} password=secret dbname={DATABASE}"
    return load_settings(home=tmp_path / "home", catalog=f"postgres:{conninfo}", data_path="", lock_wait_s=300)


# What a SQLite catalog keeps, a Postgres catalog keeps as well.
test_every_type_comes_back_as_it_went_in = test_replace.test_every_type_comes_back_as_it_went_in
test_other_slices_stay_byte_equal = test_replace.test_other_slices_stay_byte_equal
test_days_with_gaps_leave_the_gaps_alone = test_replace.test_days_with_gaps_leave_the_gaps_alone
test_double_keys_are_refused = test_replace.test_double_keys_are_refused
test_a_failing_insert_keeps_the_old_rows = test_replace.test_a_failing_insert_keeps_the_old_rows
test_a_notebook_sees_each_new_state = test_connection.test_a_notebook_sees_each_new_state
test_an_open_read_transaction_does_not_stop_a_writer = (
    test_connection.test_an_open_read_transaction_does_not_stop_a_writer
)
test_even_one_row_becomes_a_file = test_connection.test_even_one_row_becomes_a_file
test_sessions_have_their_own_transactions = test_connection.test_sessions_have_their_own_transactions
test_two_creators_and_an_impatient_reader = test_concurrency.test_two_creators_and_an_impatient_reader
test_killed_after_the_delete_or_after_the_insert = test_concurrency.test_killed_after_the_delete_or_after_the_insert
test_maintenance_keeps_every_origin = test_provenance.test_maintenance_keeps_every_origin
test_pinned_snapshots_can_still_be_travelled_to = test_maintenance.test_pinned_snapshots_can_still_be_travelled_to
test_scheduled_files_wait_for_their_age = test_maintenance.test_scheduled_files_wait_for_their_age
test_what_a_killed_writer_left_is_swept_up = test_maintenance.test_what_a_killed_writer_left_is_swept_up
test_rows_freshness_and_coverage = test_status.test_rows_freshness_and_coverage


def test_four_writers_of_the_same_days(start: Start, con: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """The advisory lock does for many hosts what the file lock does for one: no error, no half day, no double."""
    reader = connect(settings=settings)
    writers = [start("replace_days.py", number, 10, 4) for number in range(1, 5)]
    victim = start("replace_days.py", 99, 10_000, 4)
    for process in (*writers, victim):
        hear(process)
    for process in (*writers, victim):
        say(process)
    hear(victim)
    victim.kill()
    while any(writer.poll() is None for writer in writers):
        assert {rows for rows, _ in rows_by_day(reader).values()} <= {24}
        time.sleep(0.1)
    for writer in writers:
        assert len(succeed(writer).splitlines()) == 10
    assert {key: rows for key, (rows, _) in rows_by_day(con).items()} == {("bitcoin", day): 24 for day in range(4)}
    reader.close()


@pytest.mark.usefixtures("con")
def test_the_lock_names_its_holder_without_the_password(start: Start, settings: Settings) -> None:
    """Process and host of the holder come from the server; the wait is bounded; the killed holder's lock is free."""
    free = lock_state(settings)
    assert (free.locked, free.holder) == (False, None)
    assert "secret" not in str(free)
    holder = start("hold_lock.py")
    assert hear(holder) == "held"
    state = lock_state(settings)
    assert state.locked
    assert state.holder is not None
    assert state.holder.startswith(f"process {holder.pid} on ")
    with pytest.raises(LakeLockedError, match=rf"stayed taken for 0\.2 s by process {holder.pid} on ") as caught:
        connect(read_only=False, settings=load_settings(**settings.model_dump() | {"lock_wait_s": 0.2}))
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    holder.kill()
    holder.wait()
    connect(read_only=False, settings=settings).close()


def test_a_waiter_gets_the_lock(start: Start, put: Callable[..., Replaced], reader: duckdb.DuckDBPyConnection) -> None:
    """Held while the waiter asks, released when it is told to, and then the waiter writes."""
    put(0, 1.0)
    holder = start("hold_lock.py", 2)
    assert hear(holder) == "held"
    waiter = start("replace_days.py", 1, 1, 1)
    hear(waiter)
    say(waiter)
    assert succeed(waiter) == "committed 0\n"
    assert succeed(holder) == "released\n"
    assert rows_by_day(reader) == {("bitcoin", 0): (24, 1000.0)}


def test_a_database_without_a_lake(settings: Settings) -> None:
    """Reading makes none, and the message hides the password."""
    with pytest.raises(LakeNotFoundError, match=r"no lake at postgres:host=.* password=\*\*\* dbname=") as caught:
        connect(settings=settings)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("read_only", [True, False])
def test_a_server_that_is_not_there(tmp_path: Path, read_only: bool) -> None:
    """One line, without the password."""
    settings = load_settings(
        home=tmp_path, catalog=f"postgres:host={tmp_path} user=mts password=secret dbname=lake", data_path=""
    )
    with pytest.raises(LakeError, match="No such file or directory") as caught:
        connect(read_only=read_only, settings=settings)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
