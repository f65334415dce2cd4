"""Snapshots that stored results refer to, and so must not expire.

What belongs here: that question alone, without the engine, for maintenance.
"""

from __future__ import annotations

import duckdb

from mts_dagster.backtest_schemas import BacktestRuns, WalkForward
from mts_dagster.errors import LakeNotFoundError
from mts_dagster.lake.connection import ALIAS
from mts_dagster.lake.shared import session
from mts_dagster.schemas import Table, table_of
from mts_dagster.settings import Settings

RUNS, WALKS = table_of(BacktestRuns), table_of(WalkForward)


def pinned_snapshots(settings: Settings) -> set[int]:
    """Snapshots that stored results refer to: maintenance must keep them, or nothing could be reproduced."""
    try:
        with session(settings) as con:
            present = [table for table in (RUNS, WALKS) if is_stored(con, table)]
            queries = " union ".join(f"select lake_snapshot from {table.qualified}" for table in present)  # noqa: S608 - as above
            return {int(snapshot) for (snapshot,) in con.execute(queries).fetchall()} if present else set()
    except LakeNotFoundError:
        return set()


def is_stored(con: duckdb.DuckDBPyConnection, table: Table) -> bool:
    """Whether the lake has a table."""
    row = con.execute(
        "select count(*) from duckdb_tables() where database_name = ? and schema_name = ? and table_name = ?",
        [ALIAS, table.schema, table.name],
    ).fetchone()
    return bool(row and row[0])
