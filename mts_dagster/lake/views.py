"""Creating views in the lake.

What belongs here: DDL of views; what a view selects is the SQL folder's.
"""

from __future__ import annotations

import duckdb

from mts_dagster.lake.connection import ALIAS
from mts_dagster.lake.transaction import Origin, transact
from mts_dagster.schemas import Table


def replace_view(con: duckdb.DuckDBPyConnection, table: Table, select: str, origin: Origin) -> None:
    """Create the view, or give it a new query."""
    transact(con, lambda con: con.execute(f"create or replace view {table.qualified} as {select}"), origin)


def missing_views(con: duckdb.DuckDBPyConnection, views: list[Table]) -> list[Table]:
    """Those of ``views`` that the lake does not have yet, in the same order."""
    rows = con.execute(
        "select schema_name || '.' || view_name from duckdb_views() where database_name = ?", [ALIAS]
    ).fetchall()
    present = {name for (name,) in rows}
    return [view for view in views if view.qualified not in present]
