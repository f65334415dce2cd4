"""Replacing slices of a table: the one way in which rows get into the lake.

What belongs here: delete the slice, insert the new rows, check that keys are unique, all in one transaction. Rows come
from a frame or from a select statement that DuckDB runs itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import pandas as pd

from mts_dagster.errors import BadDataError
from mts_dagster.lake.slices import Slice
from mts_dagster.lake.transaction import Origin, transact
from mts_dagster.schemas import Table

SHOWN_ROWS = 3


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
        BadDataError: a row lies outside the slices, is null where it must not be, or a key occurs twice. The stored
            rows stay as they were.
    """
    casts = ", ".join(f'"{column.name}"::{column.sql_type} as "{column.name}"' for column in table.columns)
    con.execute(f"create or replace temp table mts_incoming as select {casts} from ({select}) as incoming")
    try:
        _check_inside(con, table, slices)
        _check_not_null(con, table)
        _check_unique(con, table)
        insert = f"select * from temp.mts_incoming order by {_listed(table.key)}"
        return transact(con, lambda con: _replace(con, table, slices, insert), origin)
    finally:
        con.execute("drop table temp.mts_incoming")


def _replace(con: duckdb.DuckDBPyConnection, table: Table, slices: Sequence[Slice], select: str) -> Replaced:
    deleted = 0
    for piece in slices:
        condition, parameters = piece.predicate(table)
        deleted += _count(con.execute(f"delete from {table.qualified} where {condition}", parameters))
    inserted = _count(con.execute(f"insert into {table.qualified} {select}"))
    return Replaced(deleted, inserted)


def _count(result: duckdb.DuckDBPyConnection) -> int:
    row = result.fetchone()
    return int(row[0]) if row else 0


def _check_inside(con: duckdb.DuckDBPyConnection, table: Table, slices: Sequence[Slice]) -> None:
    conditions = [piece.predicate(table) for piece in slices]
    inside = " or ".join(f"({text})" for text, _ in conditions) or "false"
    parameters = [value for _, values in conditions for value in values]
    where = f"from temp.mts_incoming where ({inside}) is not true"
    row = con.execute(f"select count(*) {where}", parameters).fetchone()
    if row and row[0]:
        columns = list(dict.fromkeys([*table.key, *([table.time_column] if table.time_column else [])]))
        shown = con.execute(f"select {_listed(columns)} {where} limit {SHOWN_ROWS}", parameters).fetchall()
        raise BadDataError(
            f"table {table.qualified}: {row[0]} rows lie outside the partition "
            f"{'; '.join(str(piece) for piece in slices)} by column {table.time_column}, first {columns}: "
            f"{_plain(shown)}; nothing stored"
        )


def _check_not_null(con: duckdb.DuckDBPyConnection, table: Table) -> None:
    for column in table.columns:
        if column.nullable:
            continue
        where = f'from temp.mts_incoming where "{column.name}" is null'
        row = con.execute(f"select count(*) {where}").fetchone()
        if row and row[0]:
            shown = con.execute(f"select {_listed(table.key)} {where} limit {SHOWN_ROWS}").fetchall()
            raise BadDataError(
                f"table {table.qualified}, column {column.name}: {row[0]} rows are null, first by "
                f"{list(table.key)}: {_plain(shown)}; nothing stored"
            )


def _check_unique(con: duckdb.DuckDBPyConnection, table: Table) -> None:
    doubled = (
        f"from (select {_listed(table.key)}, count(*) as times from temp.mts_incoming group by all having times > 1)"
    )
    row = con.execute(f"select sum(times) {doubled}").fetchone()
    if row and row[0]:
        shown = con.execute(f"select {_listed(table.key)} {doubled} order by all limit {SHOWN_ROWS}").fetchall()
        raise BadDataError(
            f"table {table.qualified}: {int(row[0])} rows share their key ({', '.join(table.key)}), first: "
            f"{_plain(shown)}; nothing stored"
        )


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(f'"{column}"' for column in columns)


def _plain(rows: list[tuple[object, ...]]) -> list[tuple[str, ...]]:
    return [tuple(str(value) for value in row) for row in rows]
