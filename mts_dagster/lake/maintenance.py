"""Housekeeping of the lake: small files merged, old snapshots forgotten, files that nobody needs deleted.

What belongs here: the steps, each its own transaction under the writer lock, and their report. DuckLake's own
``CHECKPOINT`` would bundle them; separately, writers get in between, pinned snapshots survive, and nothing is deleted
unchecked.

The order matters. Origins are kept before anything can lose them (``provenance``). Files are rewritten without their
deleted rows, then merged: a file with deletions is never merged, and a trailing window that is materialised again
every day leaves one such file a day. Snapshots expire, which schedules files for deletion; scheduled files are deleted
when no reader can still be in the middle of them. Last come orphans, files that a killed writer left and the catalog
never knew: first listed, checked, then deleted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import PurePosixPath
from typing import Protocol, TypeVar

import duckdb

from mts_dagster.errors import LakeError
from mts_dagster.lake.connection import ALIAS, METADATA
from mts_dagster.lake.provenance import MAINTENANCE, ROW_ORIGINS, keep_origins
from mts_dagster.lake.shared import session
from mts_dagster.lake.tables import bootstrap
from mts_dagster.lake.transaction import Origin, transact
from mts_dagster.settings import Settings

Result = TypeVar("Result")

# A day replaced in a file of a year is not worth rewriting the year; two of three days are worth rewriting the third.
REWRITE_DELETED_SHARE = 0.3
# How DuckLake names its files. Anything else below the data path is not ours to delete.
OUR_FILE = re.compile(r"ducklake-[0-9a-f-]{36}(-delete)?\.parquet")


@dataclass(frozen=True)
class LakeSize:
    """Files that the newest snapshot reads."""

    data_files: int
    delete_files: int
    bytes: int


@dataclass(frozen=True)
class MaintenanceReport:
    """What a maintenance run did.

    Attributes:
        before: files before the first step.
        after: files after the last one.
        origins_kept: commits whose rows' origins were stored.
        files_rewritten: files that were rewritten without their deleted rows.
        files_merged: small files that became fewer, larger ones.
        snapshots_expired: snapshots that cannot be travelled to any more.
        snapshots_pinned: snapshots old enough to expire, kept because somebody refers to them.
        files_deleted: files deleted that no snapshot needs any more.
        orphans_deleted: files deleted that the catalog never knew.
    """

    before: LakeSize
    after: LakeSize
    origins_kept: int
    files_rewritten: int
    files_merged: int
    snapshots_expired: tuple[int, ...]
    snapshots_pinned: tuple[int, ...]
    files_deleted: int
    orphans_deleted: tuple[str, ...]


def maintain(settings: Settings, *, pinned: Collection[int] = (), now: datetime | None = None) -> MaintenanceReport:
    """Run all steps.

    Args:
        settings: which lake, and the ages ``snapshot_keep_days`` and ``file_keep_days``.
        pinned: snapshots that signals or backtests refer to; they never expire.
        now: the moment that the ages are counted from, aware UTC; the present by default.

    Raises:
        LakeError: a step found something that it must not touch; the steps before it are done.
    """
    now = now or datetime.now(UTC)
    unused_since = now - timedelta(days=settings.file_keep_days)
    with session(settings, read_only=False) as con:
        bootstrap(con, [ROW_ORIGINS])
        before = lake_size(con)
        origins = _step(con, "keep origins", keep_origins)
        rewritten = _for_each_table(con, "rewrite", rewrite_files)
        merged = _for_each_table(con, "merge", merge_files)
        expired, kept = expire_snapshots(con, now - timedelta(days=settings.snapshot_keep_days), pinned)
        deleted = delete_scheduled_files(con, unused_since)
        orphans = delete_orphans(con, unused_since)
        return MaintenanceReport(
            before=before,
            after=lake_size(con),
            origins_kept=origins,
            files_rewritten=rewritten,
            files_merged=merged,
            snapshots_expired=expired,
            snapshots_pinned=kept,
            files_deleted=deleted,
            orphans_deleted=orphans,
        )


class _TableWork(Protocol):
    def __call__(self, con: duckdb.DuckDBPyConnection, schema: str, table: str) -> int: ...


def lake_size(con: duckdb.DuckDBPyConnection) -> LakeSize:
    """Count the files that the newest snapshot reads."""
    row = con.execute(
        "select sum(file_count), sum(delete_file_count), sum(file_size_bytes) + sum(delete_file_size_bytes) "
        f"from ducklake_table_info('{ALIAS}')"
    ).fetchone()
    return LakeSize(*(int(value or 0) for value in row or (0, 0, 0)))


def rewrite_files(con: duckdb.DuckDBPyConnection, schema: str, table: str) -> int:
    """Rewrite a table's files that are largely deleted; inside a transaction. Returns how many."""
    return _processed(
        con,
        f"ducklake_rewrite_data_files('{ALIAS}', ?, schema => ?, delete_threshold => {REWRITE_DELETED_SHARE})",
        [table, schema],
    )


def merge_files(con: duckdb.DuckDBPyConnection, schema: str, table: str) -> int:
    """Merge a table's small files; inside a transaction. Returns how many became fewer."""
    return _processed(con, f"ducklake_merge_adjacent_files('{ALIAS}', ?, schema => ?)", [table, schema])


def expire_snapshots(
    con: duckdb.DuckDBPyConnection, older_than: datetime, pinned: Collection[int] = ()
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Forget the snapshots from before ``older_than``, except the newest one and the pinned ones.

    Returns:
        The expired snapshots, and those that only being pinned kept.
    """

    def expire(con: duckdb.DuckDBPyConnection) -> tuple[tuple[int, ...], tuple[int, ...]]:
        rows = con.execute(
            f"select snapshot_id from {ALIAS}.snapshots() where snapshot_time < ? "
            f"and snapshot_id < (select max(snapshot_id) from {ALIAS}.snapshots()) order by 1",
            [older_than],
        ).fetchall()
        old = [snapshot for (snapshot,) in rows]
        expired = tuple(snapshot for snapshot in old if snapshot not in pinned)
        if expired:
            con.execute(f"call ducklake_expire_snapshots('{ALIAS}', versions => ?)", [list(expired)])
        return expired, tuple(snapshot for snapshot in old if snapshot in pinned)

    return _step(con, "expire snapshots", expire)


def delete_scheduled_files(con: duckdb.DuckDBPyConnection, older_than: datetime) -> int:
    """Delete files that no snapshot has needed since before the day of ``older_than`` (UTC). Returns how many."""
    # DuckLake writes the times of schedules and of this question differently into a SQLite catalog and compares them
    # as text: within one day everything counts as older. The last moment of the day before says what it means.
    day = older_than.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    moment = day - timedelta(microseconds=1)
    statement = f"call ducklake_cleanup_old_files('{ALIAS}', older_than => ?)"
    return _step(con, "delete scheduled files", lambda con: len(con.execute(statement, [moment]).fetchall()))


def delete_orphans(con: duckdb.DuckDBPyConnection, older_than: datetime) -> tuple[str, ...]:
    """Delete files below the data path that the catalog does not know and that are older than ``older_than``.

    Raises:
        LakeError: the list holds a file that the catalog does know (DuckLake once listed active ones) or that DuckLake
            did not name; nothing was deleted. (Another lake's files are not below the path, see ``ownership``.)
    """
    statement = f"call ducklake_delete_orphaned_files('{ALIAS}', older_than => ?"

    def delete(con: duckdb.DuckDBPyConnection) -> tuple[str, ...]:
        orphans = tuple(path for (path,) in con.execute(f"{statement}, dry_run => true)", [older_than]).fetchall())
        _check_orphans(con, orphans)
        if orphans:
            con.execute(f"{statement})", [older_than])
        return orphans

    return _step(con, "delete orphans", delete)


def _check_orphans(con: duckdb.DuckDBPyConnection, orphans: tuple[str, ...]) -> None:
    known = con.execute(
        " union all ".join(
            f"select path from {METADATA}.{table}"
            for table in ("ducklake_data_file", "ducklake_delete_file", "ducklake_files_scheduled_for_deletion")
        )
    ).fetchall()
    # Paths are kept relative to their table's folder, but a file's name alone holds a UUID.
    known_names = {PurePosixPath(path).name for (path,) in known}
    for path in orphans:
        name = PurePosixPath(path).name
        if name in known_names:
            raise LakeError(f"{path} was about to be deleted as an orphan, but the catalog knows it; nothing deleted")
        if not OUR_FILE.fullmatch(name):
            raise LakeError(
                f"{path} lies below the lake's data path but is not a file of the lake: move it away, the data path "
                "(MTS_DATA_PATH) belongs to the lake alone; no orphan deleted"
            )


def _for_each_table(con: duckdb.DuckDBPyConnection, step: str, work: _TableWork) -> int:
    """One transaction a table, so that writers of others wait for one table at most."""
    tables = con.execute(
        "select schema_name, table_name from duckdb_tables() where database_name = ? order by all", [ALIAS]
    ).fetchall()
    return sum(
        _step(con, f"{step} {schema}.{table}", partial(work, schema=schema, table=table)) for schema, table in tables
    )


def _step(con: duckdb.DuckDBPyConnection, step: str, body: Callable[[duckdb.DuckDBPyConnection], Result]) -> Result:
    return transact(con, body, Origin(asset=MAINTENANCE, run_id="", code_version="", partitions=step))


def _processed(con: duckdb.DuckDBPyConnection, function: str, parameters: list[object]) -> int:
    row = con.execute(f"select coalesce(sum(files_processed), 0) from {function}", parameters).fetchone()
    return int(row[0]) if row else 0
