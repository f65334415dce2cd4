"""Replacing slices of a table: the one way in which rows get into the lake.

What belongs here: delete the slice, insert the new rows, check that keys are unique, all in one transaction. Rows come
from a frame or from select statements that DuckDB runs itself: one where they fit into memory, several where they may
not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pandas as pd

from mts_dagster.errors import BadDataError, LakeError
from mts_dagster.lake.slices import Slice, any_of, in_words
from mts_dagster.lake.text import listed, one_line, quoted
from mts_dagster.lake.transaction import Origin, transact
from mts_dagster.schemas import Table

SHOWN_ROWS = 3
# Staged files live for seconds and are read once: what would make them smaller costs more than it saves.
STAGED_FORMAT = "format parquet, compression uncompressed, dictionary_size_limit 1"
BYTES_AT_ONCE = 128 * 2**20
"""Staged bytes inserted by one statement: each makes a file in the lake, and keeps a few times as much in memory."""


@dataclass(frozen=True)
class Replaced:
    """What a replacement did."""

    rows_deleted: int
    rows_inserted: int


def replace_frame(
    con: duckdb.DuckDBPyConnection, table: Table, slices: Sequence[Slice], frame: pd.DataFrame, origin: Origin
) -> Replaced:
    """Replace exactly ``slices`` of ``table`` by ``frame``, which was validated against the contract before.

    Raises:
        BadDataError: a row lies outside the slices, or a key occurs twice. The stored rows stay as they were.
    """
    con.register("mts_frame", frame)
    try:
        return replace_select(con, table, slices, "select * from mts_frame", origin)
    finally:
        con.unregister("mts_frame")


def replace_select(
    con: duckdb.DuckDBPyConnection, table: Table, slices: Sequence[Slice], select: str, origin: Origin
) -> Replaced:
    """Replace exactly ``slices`` of ``table`` by the rows of ``select``.

    The rows are computed and checked in a temporary table before the lock is taken, so that the lock covers only the
    write itself.

    Raises:
        BadDataError: a row lies outside the slices, is null where it must not be or of another type, or a key occurs
            twice. The stored rows stay as they were.
    """
    _stage(con, table, slices, select)
    try:
        ordered = f"temp.mts_incoming order by {listed(table.key)}"
        return transact(con, lambda con: _replace(con, table, slices, [ordered]), origin)
    finally:
        con.execute("drop table temp.mts_incoming")


def replace_pieces(
    con: duckdb.DuckDBPyConnection,
    table: Table,
    slices: Sequence[Slice],
    pieces: Iterable[str],
    folder: Path,
    origin: Origin,
) -> Replaced:
    """Replace exactly ``slices`` of ``table`` by the rows of several select statements, in the memory that one takes.

    Each statement is asked for when the one before it is done. Its rows are checked and kept in a file until all are
    there; only then the lock is taken and everything is stored in one transaction. All statements see one state of the
    lake.

    Args:
        con: read-write connection.
        table: the table.
        slices: what is replaced.
        pieces: statements of which no two give the same key; that is not checked.
        folder: an empty folder of the caller's own on a local disk; what lies in it afterwards can be deleted.
        origin: stored with the commit.

    Raises:
        BadDataError: as ``replace_select``, for any of the pieces.
        LakeError: the folder cannot be written, or the rows not stored. The stored rows stay as they were.
    """
    sources = _sources(_stage_pieces(con, table, slices, pieces, folder))
    return transact(con, lambda con: _replace(con, table, slices, sources), origin)


def replace_members(
    con: duckdb.DuckDBPyConnection,
    parts: Sequence[tuple[Table, pd.DataFrame]],
    column: str,
    members: Sequence[str],
    origin: Origin,
) -> None:
    """Replace the rows of several tables whose ``column`` is one of ``members``, all in one transaction.

    For tables that belong to no day: whoever reads sees the old rows of all tables or the new ones.

    Args:
        con: read-write connection.
        parts: tables with their new rows, validated against their contracts before.
        column: a text column that all of the tables have.
        members: the values of it whose rows are replaced.
        origin: stored with the commit.

    Raises:
        BadDataError: a row belongs to another member, or a key occurs twice. The stored rows stay as they were.
    """
    for table, frame in parts:
        if not frame[column].isin(members).all():
            raise BadDataError(f"table {table.qualified}, column {column}: rows of others than {list(members)}")
        if frame.duplicated(list(table.key)).any():
            raise BadDataError(f"table {table.qualified}: rows share their key {listed(table.key)}; nothing stored")
    places = ", ".join("?" for _ in members)

    def body(con: duckdb.DuckDBPyConnection) -> None:
        for table, frame in parts:
            con.execute(f'delete from {table.qualified} where "{column}" in ({places})', list(members))
            columns = listed(entry.name for entry in table.columns)
            con.register("mts_rows", frame)
            try:
                con.execute(
                    f"insert into {table.qualified} ({columns}) select {columns} from mts_rows "
                    f"order by {listed(table.key)}"
                )
            finally:
                con.unregister("mts_rows")

    transact(con, body, origin)


def _stage(con: duckdb.DuckDBPyConnection, table: Table, slices: Sequence[Slice], select: str) -> None:
    """Compute the rows into a temporary table and check them; on any error nothing of it remains."""
    with _one_state(con, table):
        con.execute(f"create or replace temp table mts_incoming as {_in_types(table, select)}")
        _check(con, table, slices)


def _stage_pieces(
    con: duckdb.DuckDBPyConnection, table: Table, slices: Sequence[Slice], pieces: Iterable[str], folder: Path
) -> list[Path]:
    """Compute the rows into files ordered by key, one a piece, and check them; returns those with rows."""
    files = []
    with _one_state(con, table):
        for number, select in enumerate(pieces):
            file = folder / f"{number:05d}.parquet"
            ordered = f"{_in_types(table, select)} order by {listed(table.key)}"
            try:
                rows = _count(con.execute(f"copy ({ordered}) to {quoted(str(file))} ({STAGED_FORMAT})"))
            except duckdb.IOException as error:  # disk full; a segment that cannot be read any more
                raise LakeError(
                    f"table {table.qualified}: cannot compute its rows into {folder}: {one_line(error)}; nothing stored"
                ) from error
            if rows:
                con.execute(f"create or replace temp view mts_incoming as from read_parquet({quoted(str(file))})")
                _check(con, table, slices)
                files.append(file)
        con.execute("drop view if exists temp.mts_incoming")
    return files


@contextmanager
def _one_state(con: duckdb.DuckDBPyConnection, table: Table) -> Iterator[None]:
    """One transaction for computing and checking rows.

    Each statement outside of one would ask the catalog for its newest snapshot, which costs more than the checks
    themselves, and the rows would not come from one state of the lake.
    """
    con.execute("begin")
    try:
        yield
    except duckdb.ConversionException as error:
        con.execute("rollback")
        raise BadDataError(
            f"table {table.qualified}: a value does not fit its column: {one_line(error)}; nothing stored"
        ) from error
    except BaseException:
        con.execute("rollback")
        raise
    con.execute("commit")


def _in_types(table: Table, select: str) -> str:
    casts = ", ".join(f'"{column.name}"::{column.sql_type} as "{column.name}"' for column in table.columns)
    return f"select {casts} from ({select}) as incoming"


def _check(con: duckdb.DuckDBPyConnection, table: Table, slices: Sequence[Slice]) -> None:
    _check_inside(con, table, slices)
    _check_not_null(con, table)
    _check_unique(con, table, "temp.mts_incoming")


def _sources(files: Iterable[Path]) -> list[str]:
    """What single insert statements read: consecutive files, together no larger than ``BYTES_AT_ONCE``."""
    groups: list[list[Path]] = []
    size = 0
    for file in files:
        size += file.stat().st_size
        if not groups or size > BYTES_AT_ONCE:
            groups.append([])
            size = file.stat().st_size
        groups[-1].append(file)
    return [f"read_parquet([{', '.join(quoted(str(file)) for file in group)}])" for group in groups]


def _replace(con: duckdb.DuckDBPyConnection, table: Table, slices: Sequence[Slice], sources: Sequence[str]) -> Replaced:
    # By name: a column that the contract gained in its middle was added at the end of the stored table.
    columns = listed(column.name for column in table.columns)
    condition, parameters = any_of(table, slices)
    deleted = _count(con.execute(f"delete from {table.qualified} where {condition}", parameters))
    inserted = sum(
        _count(con.execute(f"insert into {table.qualified} ({columns}) select {columns} from {source}"))
        for source in sources
    )
    if not {table.time_column, table.partition_column} - {None} <= set(table.key):
        # A key that does not tell its slice may also be stored in another one.
        key = listed(table.key)
        for source in sources:
            _check_unique(con, table, f"{table.qualified} semi join (select {key} from {source}) using ({key})")
    return Replaced(deleted, inserted)


def _count(result: duckdb.DuckDBPyConnection) -> int:
    row = result.fetchone()
    return int(row[0]) if row else 0


def _check_inside(con: duckdb.DuckDBPyConnection, table: Table, slices: Sequence[Slice]) -> None:
    condition, parameters = any_of(table, slices)
    where = f"from temp.mts_incoming where {condition} is not true"
    row = con.execute(f"select count(*) {where}", parameters).fetchone()
    if row and row[0]:
        decisive = [column for column in (table.time_column, table.partition_column) if column]
        columns = list(dict.fromkeys([*table.key, *decisive]))
        shown = con.execute(f"select {listed(columns)} {where} limit {SHOWN_ROWS}", parameters).fetchall()
        raise BadDataError(
            f"table {table.qualified}, column {', '.join(decisive)}: {row[0]} rows lie outside the partition "
            f"{in_words(slices)}, first by {columns}: {_plain(shown)}; nothing stored"
        )


def _check_not_null(con: duckdb.DuckDBPyConnection, table: Table) -> None:
    for column in table.columns:
        if column.nullable:
            continue
        where = f'from temp.mts_incoming where "{column.name}" is null'
        row = con.execute(f"select count(*) {where}").fetchone()
        if row and row[0]:
            shown = con.execute(f"select {listed(table.key)} {where} limit {SHOWN_ROWS}").fetchall()
            raise BadDataError(
                f"table {table.qualified}, column {column.name}: {row[0]} rows are null, first by "
                f"{list(table.key)}: {_plain(shown)}; nothing stored"
            )


def _check_unique(con: duckdb.DuckDBPyConnection, table: Table, rows: str) -> None:
    doubled = f"from (select {listed(table.key)}, count(*) as times from {rows} group by all having times > 1)"
    row = con.execute(f"select sum(times) {doubled}").fetchone()
    if row and row[0]:
        shown = con.execute(f"select {listed(table.key)} {doubled} order by all limit {SHOWN_ROWS}").fetchall()
        raise BadDataError(
            f"table {table.qualified}, column {', '.join(table.key)}: {int(row[0])} rows share their key, first: "
            f"{_plain(shown)}; nothing stored"
        )


def _plain(rows: list[tuple[object, ...]]) -> list[tuple[str, ...]]:
    return [tuple(str(value) for value in row) for row in rows]
