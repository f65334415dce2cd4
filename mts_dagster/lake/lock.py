"""The writer lock: one writer at a time, across processes and threads, released by the kernel when a process dies.

What belongs here: taking the OS file lock with a bounded wait, and knowing who holds it. Readers never come here.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from mts_dagster.errors import LakeError, LakeLockedError

POLL_S = 0.005


@contextmanager
def writer_lock(path: Path, *, wait_s: float) -> Iterator[None]:
    """Hold the writer lock for the body.

    Args:
        path: lock file beside the catalog; its content means nothing, its OS lock does.
        wait_s: longest wait in seconds.

    Raises:
        LakeLockedError: somebody else kept the lock for the whole wait; names the process.
    """
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


def is_locked(path: Path) -> bool:
    """Whether some writer holds the lock right now."""
    if not path.exists():
        return False
    lock = FileLock(path, timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout:
        return True
    lock.release()
    return False


def describe_holder(path: Path) -> str:
    """Who took the lock last, in words."""
    try:
        holder = json.loads(_holder_path(path).read_text())
        return f"process {holder['pid']} on {holder['host']} (thread {holder['thread']}) since {holder['since']}"
    except (OSError, ValueError, KeyError):
        return "a process that left no name"


def _holder_path(path: Path) -> Path:
    return path.with_name(path.name + ".holder")


def _note_holder(path: Path) -> None:
    """Leave a name for those who wait. The file may be read half-written; then the holder is simply unnamed."""
    _holder_path(path).write_text(
        json.dumps(
            {
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "thread": threading.current_thread().name,
                "since": datetime.now(UTC).isoformat(timespec="milliseconds"),
            }
        )
    )
