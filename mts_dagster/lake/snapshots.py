"""Snapshots of the lake: which is the newest, which are still there, and when a table last changed.

What belongs here: what a backtest needs to say which state of the lake it read, and to find that state again. Keeping
snapshots from expiring is ``maintenance``; reading at one is ``read``.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb

from mts_dagster.errors import LakeError
from mts_dagster.lake.connection import ALIAS, METADATA

CHANGED_BY = ("ducklake_data_file", "ducklake_delete_file")


def newest_snapshot(con: duckdb.DuckDBPyConnection) -> int:
    """The state that a read sees now."""
    row = con.execute(f"select max(snapshot_id) from {ALIAS}.snapshots()").fetchone()
    return int(row[0]) if row and row[0] is not None else 0


def last_change(con: duckdb.DuckDBPyConnection, names: Sequence[str]) -> int:
    """The snapshot in which one of the tables ``schema.name`` last changed; 0 for tables that never had rows.

    Two reads between which it stays the same saw the same rows.
    """
    changes = " union all ".join(
        f"select table_id, greatest(begin_snapshot, coalesce(end_snapshot, 0)) as changed from {METADATA}.{table}"
        for table in CHANGED_BY
    )
    places = ", ".join("?" for _ in names)
    row = con.execute(
        f"""
        select max(changed) from ({changes})
        join {METADATA}.ducklake_table as t using (table_id)
        join {METADATA}.ducklake_schema as s on s.schema_id = t.schema_id
        where s.schema_name || '.' || t.table_name in ({places})
        """,
        list(names),
    ).fetchone()
    return int(row[0]) if row and row[0] is not None else 0


def require_snapshot(con: duckdb.DuckDBPyConnection, snapshot: int) -> None:
    """Make sure that a state can still be read.

    Raises:
        LakeError: it has expired, or never was.
    """
    row = con.execute(f"select count(*) from {ALIAS}.snapshots() where snapshot_id = ?", [snapshot]).fetchone()
    if not row or not row[0]:
        raise LakeError(f"snapshot {snapshot} of the lake has expired or never was: what it held cannot be read again")
