"""Several processes on one event log: whole batches or none, whoever writes, reads or dies."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from dagster import AssetKey

from mts_dagster.instance.event_log import BatchingEventLogStorage
from mts_dagster.instance.home import open_instance
from mts_dagster.settings import Settings, load_settings

SIZE = 200
WRITER = Path(__file__).with_name("writer.py")


@contextmanager
def writing(folder: Path, run: str, batches: int) -> Iterator[subprocess.Popen[str]]:
    """A process that stores batches of a run; killed at the end if it still lives."""
    command = [sys.executable, "-W", "ignore", str(WRITER), str(folder), run, str(batches), str(SIZE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def stored(file: Path) -> dict[str, int]:
    """Events a run, as another process sees them now."""
    with closing(sqlite3.connect(file, timeout=30)) as con:
        return dict(con.execute("SELECT run_id, count(*) FROM event_logs GROUP BY run_id").fetchall())


def is_sound(file: Path) -> bool:
    """Whether SQLite finds no damage in a file."""
    with closing(sqlite3.connect(file, timeout=30)) as con:
        return bool(con.execute("PRAGMA integrity_check").fetchone() == ("ok",))


def test_a_reader_beside_two_writers_sees_whole_batches(tmp_path: Path) -> None:
    """Two runs store 10 batches each into the same index; a reader polls, nobody fails, nothing is missing."""
    reader = BatchingEventLogStorage(str(tmp_path))
    index = tmp_path / "index.db"
    polls = 0
    with writing(tmp_path, "r1", 10) as first, writing(tmp_path, "r2", 10) as second:
        while first.poll() is None or second.poll() is None:
            assert all(events % SIZE == 0 for events in stored(index).values())
            assert len(reader.get_materialized_partitions(AssetKey("bars"))) % SIZE == 0
            polls += 1
            time.sleep(0.02)  # the writers need the processor too
        assert (first.returncode, second.returncode) == (0, 0)
    reader.dispose()
    assert polls > 1
    assert stored(index) == {"r1": 10 * SIZE, "r2": 10 * SIZE}
    assert stored(tmp_path / "r1.db") == {"r1": 10 * SIZE}
    assert all(is_sound(file) for file in tmp_path.glob("*.db"))


def open_and_close(settings: Settings) -> None:
    """What each process does first."""
    with open_instance(settings) as instance:
        assert instance.get_runs() == []


def test_processes_that_open_a_new_instance_together(tmp_path: Path) -> None:
    """Webserver and daemon start at once on a new home: its databases are created once, and open ever after."""
    fork = multiprocessing.get_context("fork")
    for number in range(3):
        settings = load_settings(home=tmp_path / f"home{number}")
        openers = [fork.Process(target=open_and_close, args=(settings,)) for _ in range(4)]
        for opener in openers:
            opener.start()
        for opener in openers:
            opener.join()
        assert [opener.exitcode for opener in openers] == [0, 0, 0, 0]
        open_and_close(settings)


def test_a_killed_writer_leaves_whole_batches(tmp_path: Path) -> None:
    """``kill -9`` amid endless batches: both files hold whole batches, and the next process goes on."""
    storage = BatchingEventLogStorage(str(tmp_path))
    with writing(tmp_path, "r1", 1_000_000) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "first batch stored\n"
        while stored(tmp_path / "index.db")["r1"] < 3 * SIZE:
            assert writer.poll() is None
        writer.kill()
        writer.wait()
    in_index, in_run = stored(tmp_path / "index.db")["r1"], stored(tmp_path / "r1.db")["r1"]
    assert (in_index % SIZE, in_run % SIZE) == (0, 0)
    assert abs(in_index - in_run) <= SIZE
    with writing(tmp_path, "r2", 1) as writer:
        assert writer.wait() == 0
    assert stored(tmp_path / "index.db") == {"r1": in_index, "r2": SIZE}
    assert all(is_sound(file) for file in tmp_path.glob("*.db"))
    storage.dispose()


def test_a_killed_run_does_not_hold_up_the_next_one(tmp_path: Path) -> None:
    """The pool of a run that died inside its asset is free at once."""
    script = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("killed_run.py")), str(tmp_path)]
    environment = {**os.environ, "DAGSTER_HOME": ""}
    killed = subprocess.run([*script, "die"], check=False, capture_output=True, env=environment, timeout=90)
    assert killed.returncode == 9
    next_one = subprocess.run([*script, "live"], check=False, capture_output=True, env=environment, timeout=90)
    assert next_one.returncode == 0
