"""Transactions on the lake: begin, commit, roll back, under the writer lock.

Two forms. ``with write(con):`` for a notebook or a script: a context manager cannot repeat its body, so a conflict is
an error there. ``transact(con, body)`` repeats the whole body when SQLite reports a lock or DuckLake a conflict; the
IO manager and the SQL models use it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import TypeVar

import duckdb
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from mts_dagster.errors import LakeError
from mts_dagster.lake.connection import ALIAS, LOCK_VARIABLE, LOCK_WAIT_VARIABLE
from mts_dagster.lake.lock import writer_lock
from mts_dagster.lake.text import one_line

Result = TypeVar("Result")
ATTEMPTS = 8
# What SQLite, Postgres and DuckLake say, in lower case, when the catalog was locked or another commit came first. Any
# other failure (disk full, a folder that vanished) would fail again.
REPEATABLE = (
    "database is locked",
    "transaction conflict",
    "exceeded the maximum retry count",
    "unique constraint",
    "could not serialize access",
)


@dataclass(frozen=True)
class Origin:
    """Where a commit came from; stored with its snapshot, so that any row leads to the run that wrote it."""

    asset: str
    run_id: str
    code_version: str
    partitions: str


@contextmanager
def write(con: duckdb.DuckDBPyConnection, origin: Origin | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """Run the body as one transaction under the writer lock; roll back when it raises.

    The lock covers the body, so fetch and compute before it.

    Args:
        con: a connection opened with ``connect(read_only=False)``.
        origin: stored in the snapshot's commit message.

    Raises:
        LakeLockedError: another writer kept the lock for the whole bounded wait.
        LakeError: the connection is read-only, files could not be written, or the commit failed; nothing was stored.
    """
    place, wait_s = _lock_of(con)
    with writer_lock(place, con, wait_s=wait_s):
        con.execute("begin")
        try:
            yield con
            if origin is not None:
                _sign(con, origin)
        except duckdb.IOException as error:  # disk full, object store out of reach
            _roll_back_if_open(con)
            raise LakeError(f"writing failed, nothing was stored: {one_line(error)}") from error
        except BaseException:
            _roll_back_if_open(con)
            raise
        try:
            con.execute("commit")
        except duckdb.Error as error:
            _roll_back_if_open(con)
            raise LakeError(f"commit failed, nothing was stored: {one_line(error)}") from error


def transact(
    con: duckdb.DuckDBPyConnection,
    body: Callable[[duckdb.DuckDBPyConnection], Result],
    origin: Origin | None = None,
) -> Result:
    """Run ``body(con)`` as one transaction and repeat it whole when the catalog reports a conflict.

    ``body`` must be repeatable: it may run several times, and only its last run is stored.
    """
    for attempt in Retrying(
        retry=retry_if_exception(_is_repeatable),
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(multiplier=0.05, max=2.0),
        reraise=True,
    ):
        with attempt, write(con, origin):
            result = body(con)
    return result


def _is_repeatable(error: BaseException) -> bool:
    if isinstance(error, LakeError) and isinstance(error.__cause__, duckdb.Error):
        error = error.__cause__  # of a failed write or commit
    return isinstance(error, duckdb.Error) and any(pattern in str(error).lower() for pattern in REPEATABLE)


def _lock_of(con: duckdb.DuckDBPyConnection) -> tuple[str, float]:
    row = con.execute(
        f"select getvariable('{LOCK_VARIABLE}'), getvariable('{LOCK_WAIT_VARIABLE}'), "
        "(select readonly from duckdb_databases() where database_name = ?)",
        [ALIAS],
    ).fetchone()
    if row is None or row[0] is None:
        raise LakeError("this connection was not opened by mts_dagster.lake.connect")
    if row[2]:
        raise LakeError("this connection is read-only; open one with connect(read_only=False) to write")
    return str(row[0]), float(row[1])


def _sign(con: duckdb.DuckDBPyConnection, origin: Origin) -> None:
    con.execute(
        f"call {ALIAS}.set_commit_message('mts', $message, extra_info => $extra)",
        {"message": f"{origin.asset} {origin.partitions}"[:500], "extra": json.dumps(asdict(origin))},
    )


def _roll_back_if_open(con: duckdb.DuckDBPyConnection) -> None:
    """End the transaction; a failed COMMIT, or a body that ended it itself, left none."""
    with suppress(duckdb.TransactionException):
        con.execute("rollback")
