"""Creating the lake's tables from their contracts, before any writer starts.

What belongs here: DDL. A contract that gains a nullable column adds it to the stored table; any other difference is
an error that names the migration, because guessing would destroy data.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import duckdb

from mts_dagster.errors import LakeError, SchemaChangedError
from mts_dagster.lake.connection import ALIAS
from mts_dagster.lake.text import quoted
from mts_dagster.lake.transaction import Origin, transact
from mts_dagster.schemas import SQL_TYPE_NAMES, Column, Table

ROW_COLUMNS = {"snapshot_id", "rowid"}  # of every row, see ``provenance``; a column of the same name would hide them


class _Stored(NamedTuple):
    sql_type: str
    nullable: bool


def bootstrap(con: duckdb.DuckDBPyConnection, tables: Iterable[Table]) -> list[str]:
    """Create missing tables and add new columns; do nothing, without a lock, where all fits.

    Args:
        con: read-write connection.
        tables: every table that writers may meet.

    Returns:
        What was done, one line each; empty when the lake fitted already.

    Raises:
        SchemaChangedError: a stored table differs in another way than by new nullable columns.
        LakeError: a contract uses a name that DuckLake needs for itself.
    """
    tables = list(tables)
    if not _plan(con, tables):
        return []
    origin = Origin(asset="bootstrap", run_id="", code_version="", partitions="")

    def create(con: duckdb.DuckDBPyConnection) -> list[str]:
        plan = _plan(con, tables)  # again: another process may have done it while this one waited for the lock
        for _, statements in plan:
            for statement in statements:
                con.execute(statement)
        return [done for done, _ in plan]

    return transact(con, create, origin)


def _plan(con: duckdb.DuckDBPyConnection, tables: list[Table]) -> list[tuple[str, list[str]]]:
    stored = _stored_columns(con)
    plan = []
    for table in tables:
        if table.qualified not in stored:
            plan.append((f"created {table.qualified}", _create_statements(table)))
        elif new := _new_columns(table, stored[table.qualified]):
            adds = [f'alter table {table.qualified} add column "{c.name}" {c.sql_type}' for c in new]
            plan.append((f"added {', '.join(c.name for c in new)} to {table.qualified}", adds + _comments(table, new)))
    return plan


def _stored_columns(con: duckdb.DuckDBPyConnection) -> dict[str, dict[str, _Stored]]:
    rows = con.execute(
        "select schema_name || '.' || table_name, column_name, data_type, is_nullable from duckdb_columns() "
        "where database_name = ? order by column_index",
        [ALIAS],
    ).fetchall()
    stored: dict[str, dict[str, _Stored]] = {}
    for name, column, sql_type, nullable in rows:
        stored.setdefault(name, {})[column] = _Stored(SQL_TYPE_NAMES.get(sql_type, sql_type), nullable)
    return stored


def _new_columns(table: Table, stored: dict[str, _Stored]) -> list[Column]:
    contract = {column.name: column for column in table.columns}
    for name, column in stored.items():
        _compare(table, name, column, contract.get(name))
    new = [column for column in table.columns if column.name not in stored]
    required = [column.name for column in new if not column.nullable]
    if required:
        raise SchemaChangedError(
            f"contract of {table.qualified} gained {', '.join(required)}, which must not be null, but stored rows have "
            f"no value for it: make it nullable, or migrate with: drop table {table.qualified}; and materialise again"
        )
    return new


def _compare(table: Table, name: str, stored: _Stored, column: Column | None) -> None:
    """Raise where a stored column differs from its contract, with the statements that would settle it."""
    if column is None:
        raise SchemaChangedError(
            f"table {table.qualified} has a stored column {name} that its contract lacks; to give it up, migrate "
            f'with: alter table {table.qualified} drop column "{name}"'
        )
    if stored.sql_type != column.sql_type:
        # DuckLake changes a type in place only where every value of the old one fits; a new column always works.
        kept, alter = f"{name}_migrated", f"alter table {table.qualified}"
        raise SchemaChangedError(
            f"column {table.qualified}.{name} is stored as {stored.sql_type}, its contract says {column.sql_type}; "
            f'migrate with: {alter} add column "{kept}" {column.sql_type}; update {table.qualified} set "{kept}" = '
            f'"{name}"::{column.sql_type}; {alter} drop column "{name}"; {alter} rename column "{kept}" to "{name}"'
            + ("" if column.nullable else f'; {alter} alter column "{name}" set not null')
        )
    if stored.nullable != column.nullable:
        change, today = ("drop", "never null") if column.nullable else ("set", "nullable")
        raise SchemaChangedError(
            f"column {table.qualified}.{name} is stored as {today}, its contract says the opposite; "
            f'migrate with: alter table {table.qualified} alter column "{name}" {change} not null'
        )


def _create_statements(table: Table) -> list[str]:
    if hidden := [column.name for column in table.columns if column.name in ROW_COLUMNS]:
        raise LakeError(
            f"contract of {table.qualified} has a column {hidden[0]}: that name belongs to DuckLake, which tells by it "
            "where a row came from; take another one"
        )
    columns = ", ".join(
        f'"{column.name}" {column.sql_type}{"" if column.nullable else " not null"}' for column in table.columns
    )
    statements = [f"create table {table.qualified} ({columns})"]
    if table.time_column:
        # Files by member and year: a day's replacement touches one small file set, a five-year read opens few.
        member = [f'"{table.partition_column}"'] if table.partition_column else []
        parts = ", ".join([*member, f'year("{table.time_column}")'])
        statements.append(f"alter table {table.qualified} set partitioned by ({parts})")
    return [*statements, f"comment on table {table.qualified} is {quoted(table.description)}", *_comments(table)]


def _comments(table: Table, columns: Iterable[Column] | None = None) -> list[str]:
    return [
        f'comment on column {table.qualified}."{column.name}" is '
        + quoted(column.description + (f" [{column.unit}]" if column.unit else ""))
        for column in columns or table.columns
    ]
