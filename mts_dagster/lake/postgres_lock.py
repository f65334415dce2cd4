"""The writer lock of a lake with a Postgres catalog: an advisory lock in the catalog's own database.

What belongs here: the advisory lock and its holder. It works across hosts, because the server keeps it, and the server
releases it when the holder's connection dies. The transaction that holds it is not the one that writes: it ends only
after the write was committed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import duckdb

from mts_dagster.errors import LakeError, LakeLockedError
from mts_dagster.lake.extensions import load_extension
from mts_dagster.lake.text import one_line, quoted, redacted

DATABASE = "mts_lock"
# Advisory locks are numbers, private to a database: the letters MTS, and 1 for the writer.
CLASS_ID, OBJECT_ID = 0x4D5453, 1
LONGEST_NAME = 63  # Postgres cuts application_name here

_HOLDER = f"""
    select application_name as name, host(client_addr) as client, xact_start::text as since
    from pg_locks join pg_stat_activity using (pid)
    where locktype = 'advisory' and granted and classid = {CLASS_ID} and objid = {OBJECT_ID}
      and pg_locks.database = (select oid from pg_database where datname = current_database())
"""


@contextmanager
def hold(con: duckdb.DuckDBPyConnection, conninfo: str, *, wait_s: float, name: str) -> Iterator[None]:
    """Hold the lock for the body.

    Args:
        con: a connection with ``postgres_scanner`` loaded; a cursor of it keeps the lock in its own transaction.
        conninfo: libpq's connection string of the catalog.
        wait_s: longest wait in seconds.
        name: who we are, for those who wait.

    Raises:
        LakeLockedError: somebody else kept the lock for the whole wait.
        LakeError: the server cannot be reached.
    """
    cursor = con.cursor()
    try:
        _take(cursor, conninfo, wait_s, name)
        yield
    finally:
        with suppress(duckdb.Error):  # refused where nothing was begun, or the server is gone and the lock with it
            cursor.execute("rollback")
        cursor.close()


def holder_of(conninfo: str) -> str | None:
    """Who holds the lock right now, in words; None when nobody does."""
    con = duckdb.connect(config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"})
    try:
        load_extension(con, "postgres_scanner")
        _attach(con, conninfo)
        return _holder(con)
    finally:
        con.close()


def place_in_words(conninfo: str) -> str:
    """Where the lock is, for messages."""
    return f"advisory lock of the Postgres catalog {redacted(conninfo)}"


def _take(cursor: duckdb.DuckDBPyConnection, conninfo: str, wait_s: float, name: str) -> None:
    _attach(cursor, conninfo)
    cursor.execute("begin")
    _execute(cursor, f"set application_name = {quoted(name[:LONGEST_NAME])}")
    _execute(cursor, f"set local lock_timeout = {math.ceil(wait_s * 1000)}")
    try:
        _execute(cursor, f"select pg_advisory_xact_lock({CLASS_ID}, {OBJECT_ID})")
    except duckdb.Error as error:
        cursor.execute("rollback")
        holder = _holder(cursor)
        if holder is None:
            raise LakeError(f"cannot take the {place_in_words(conninfo)}: {one_line(error)}") from error
        raise LakeLockedError(
            f"the lake's writer lock, {place_in_words(conninfo)}, stayed taken for {wait_s:g} s by {holder}; "
            "wait for that process or end it, or raise MTS_LOCK_WAIT_S"
        ) from None


def _attach(con: duckdb.DuckDBPyConnection, conninfo: str) -> None:
    try:
        con.execute(f"attach if not exists {quoted(conninfo)} as {DATABASE} (type postgres)")
    except duckdb.Error as error:
        raise LakeError(f"cannot reach the Postgres catalog {redacted(conninfo)}: {one_line(error)}") from error


def _execute(con: duckdb.DuckDBPyConnection, statement: str) -> None:
    con.execute(f"call postgres_execute('{DATABASE}', {quoted(statement)})")


def _holder(con: duckdb.DuckDBPyConnection) -> str | None:
    row = con.execute(f"from postgres_query('{DATABASE}', {quoted(_HOLDER)})").fetchone()
    if row is None:
        return None
    name, client, since = row
    return f"{name or 'a process that left no name'} from {client or 'the server itself'} since {since}"
