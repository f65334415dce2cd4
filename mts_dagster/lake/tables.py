"""Creating the lake's tables from their contracts, before any writer starts.

What belongs here: DDL. A contract that gains a nullable column adds it to the stored table; any other difference is
an error that names the migration, because guessing would destroy data.
"""

from __future__ import annotations

from collections.abc import Iterable

import duckdb

from mts_dagster.errors import SchemaChangedError
from mts_dagster.lake.connection import ALIAS
from mts_dagster.lake.transaction import Origin, transact
from mts_dagster.schemas import SQL_TYPE_NAMES, Column, Table


def bootstrap(con: duckdb.DuckDBPyConnection, tables: Iterable[Table]) -> list[str]:
    """Create missing tables and add new columns; do nothing, without a lock, where all fits.

    Args:
        con: read-write connection.
        tables: every table that writers may meet.

    Returns:
        What was done, one line each; empty when the lake fitted already.

    Raises:
        SchemaChangedError: a stored table differs in another way than by new nullable columns.
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


def _stored_columns(con: duckdb.DuckDBPyConnection) -> dict[str, dict[str, str]]:
    rows = con.execute(
        "select schema_name || '.' || table_name, column_name, data_type from duckdb_columns() "
        "where database_name = ? order by column_index",
        [ALIAS],
    ).fetchall()
    stored: dict[str, dict[str, str]] = {}
    for name, column, sql_type in rows:
        stored.setdefault(name, {})[column] = SQL_TYPE_NAMES.get(sql_type, sql_type)
    return stored


def _new_columns(table: Table, stored: dict[str, str]) -> list[Column]:
    contract = {column.name: column for column in table.columns}
    for name, sql_type in stored.items():
        if name not in contract:
            raise SchemaChangedError(
                f"table {table.qualified} has a stored column {name} that its contract lacks; to give it up: "
                f'alter table {table.qualified} drop column "{name}"'
            )
        if contract[name].sql_type != sql_type:
            raise SchemaChangedError(
                f"column {table.qualified}.{name} is stored as {sql_type}, its contract says "
                f"{contract[name].sql_type}; migrate with: alter table {table.qualified} alter column "
                f'"{name}" type {contract[name].sql_type}'
            )
    new = [column for column in table.columns if column.name not in stored]
    required = [column.name for column in new if not column.nullable]
    if required:
        raise SchemaChangedError(
            f"contract of {table.qualified} gained {', '.join(required)}, which must not be null, but stored rows have "
            "no value for it: make it nullable, or drop the table and materialise it again"
        )
    return new


def _create_statements(table: Table) -> list[str]:
    columns = ", ".join(
        f'"{column.name}" {column.sql_type}{"" if column.nullable else " not null"}' for column in table.columns
    )
    statements = [f"create table {table.qualified} ({columns})"]
    if table.time_column:
        # Files by member and year: a day's replacement touches one small file set, a five-year read opens few.
        member = [f'"{table.partition_column}"'] if table.partition_column else []
        parts = ", ".join([*member, f'year("{table.time_column}")'])
        statements.append(f"alter table {table.qualified} set partitioned by ({parts})")
    return [*statements, f"comment on table {table.qualified} is {_quote(table.description)}", *_comments(table)]


def _comments(table: Table, columns: Iterable[Column] | None = None) -> list[str]:
    return [
        f'comment on column {table.qualified}."{column.name}" is '
        + _quote(column.description + (f" [{column.unit}]" if column.unit else ""))
        for column in columns or table.columns
    ]


def _quote(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
