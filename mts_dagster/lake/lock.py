"""The writer lock: one writer at a time, released by the kernel or the server when a process dies.

What belongs here: taking the lock with a bounded wait, and knowing who holds it. Readers never come here. With a
SQLite catalog it is an OS file lock beside the catalog, which holds on one machine; with a Postgres catalog it is an
advisory lock of that database (``postgres_lock``), which holds for every host that uses it.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb
from filelock import FileLock, Timeout

from mts_dagster.errors import LakeError, LakeLockedError
from mts_dagster.lake import postgres_lock

POLL_S = 0.01
POSTGRES = "postgres"


@dataclass(frozen=True)
class LockState:
    """Whether a writer holds the lock right now, and who.

    Attributes:
        place: the lock file, or the database without its password.
        locked: a writer holds it.
        holder: who, in words; None when nobody does.
    """

    place: str
    locked: bool
    holder: str | None

    def __str__(self) -> str:
        return f"held by {self.holder} ({self.place})" if self.locked else f"free ({self.place})"


def writer_lock(place: str, con: duckdb.DuckDBPyConnection, *, wait_s: float) -> AbstractContextManager[None]:
    """Hold the writer lock for the body.

    Args:
        place: which lock: ``file:PATH`` or ``postgres:CONNINFO``.
        con: the writer's connection; a Postgres lock is held by a cursor of it, in a transaction of its own.
        wait_s: longest wait in seconds.

    Raises:
        LakeLockedError: somebody else kept the lock for the whole wait; names the process.
    """
    kind, _, rest = place.partition(":")
    if kind == POSTGRES:
        return postgres_lock.hold(con, rest, wait_s=wait_s, name=_own_name())
    return hold_file(Path(rest), wait_s=wait_s)


def state_of(place: str) -> LockState:
    """Look at the lock without taking it for writing and without changing anything."""
    kind, _, rest = place.partition(":")
    if kind == POSTGRES:
        holder = postgres_lock.holder_of(rest)
        return LockState(postgres_lock.place_in_words(rest), holder is not None, holder)
    locked = _is_locked(Path(rest))
    return LockState(rest, locked, describe_holder(Path(rest)) if locked else None)


@contextmanager
def hold_file(path: Path, *, wait_s: float) -> Iterator[None]:
    """Hold the OS lock on ``path``; the file's content means nothing, and it stays when the lock is released."""
    lock = FileLock(path, timeout=wait_s, poll_interval=POLL_S, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        raise LakeLockedError(
            f"the lake's writer lock {path} stayed taken for {wait_s:g} s by {describe_holder(path)}; "
            "wait for that process or end it, or raise MTS_LOCK_WAIT_S"
        ) from None
    except OSError as error:
        raise LakeError(
            f"cannot lock {path}: {error.strerror}; MTS_HOME must be a folder that you may write to"
        ) from error
    try:
        _note_holder(path)
        yield
    finally:
        lock.release()


def describe_holder(path: Path) -> str:
    """Who took the file lock last, in words."""
    try:
        holder = json.loads(_holder_path(path).read_text())
        return f"{holder['name']} since {holder['since']}"
    except (OSError, ValueError, KeyError):
        return "a process that left no name"


def _is_locked(path: Path) -> bool:
    """Ask for a shared lock on a descriptor that cannot write: it is refused while, and only while, a writer works."""
    with suppress(FileNotFoundError), path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _own_name() -> str:
    return f"process {os.getpid()} on {socket.gethostname()} (thread {threading.current_thread().name})"


def _holder_path(path: Path) -> Path:
    return path.with_name(path.name + ".holder")


def _note_holder(path: Path) -> None:
    """Leave a name for those who wait.

    It may be read half-written, and a full disk may refuse it; then the holder is simply unnamed.
    """
    note = {"name": _own_name(), "since": datetime.now(UTC).isoformat(timespec="milliseconds")}
    with suppress(OSError):
        _holder_path(path).write_text(json.dumps(note))
