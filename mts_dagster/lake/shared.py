"""Short sessions on one DuckDB instance per process: opening a session costs a millisecond, not a third of a second.

What belongs here: sharing. Loading the extensions (DuckDB verifies their signatures) and attaching the catalog take 0.2
to 0.4 s; a run has dozens of steps that each read or write a little. Sessions of one process share extensions, catalog
and memory limit, and have their own transaction, temporary tables and variables. ``connect`` stays the door for
notebooks and programs that want an instance of their own.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from mts_dagster.lake.connection import address_of, connect, prepare_session
from mts_dagster.settings import Settings

MOST_INSTANCES = 4

Key = tuple[object, ...]
_instances: OrderedDict[Key, duckdb.DuckDBPyConnection] = OrderedDict()
_guard = threading.Lock()


@contextmanager
def session(settings: Settings, *, read_only: bool = True) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection for the body, closed behind it; the same promises and errors as ``connect``."""
    with _guard:
        con = _instance(settings, read_only=read_only).cursor()
    try:
        prepare_session(con, settings)
        yield con
    finally:
        con.close()


def _instance(settings: Settings, *, read_only: bool) -> duckdb.DuckDBPyConnection:
    """The process's instance for this lake; the one used longest ago is given up when there are too many."""
    key = _key(settings, read_only=read_only)
    if key is None or key not in _instances:
        opened = connect(read_only=read_only, settings=settings)
        key = _key(settings, read_only=read_only)
        if key is None:
            return opened
        _instances[key] = opened
    _instances.move_to_end(key)
    while len(_instances) > MOST_INSTANCES:
        _instances.popitem(last=False)[1].close()
    return _instances[key]


def _key(settings: Settings, *, read_only: bool) -> Key | None:
    """What two sessions must have in common; a lake that was deleted and made again is another one."""
    address = address_of(settings)
    if address.catalog_file is None:
        identity: object = None
    elif address.catalog_file.exists():
        identity = address.catalog_file.stat().st_ino
    else:
        return None
    return (
        os.getpid(),
        address,
        identity,
        read_only,
        settings.duckdb_memory_limit,
        settings.duckdb_threads,
        settings.lock_wait_s,
    )
