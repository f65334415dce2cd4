"""From any stored row back to the run that wrote it.

What belongs here: reading the origins of rows, and keeping them when maintenance is about to lose them. DuckLake gives
every row a ``snapshot_id`` (the commit that wrote it) and a ``rowid`` (never changed, never used twice in a table; the
rows of one commit have neighbouring ones). Merging files keeps both. Expiring a snapshot forgets its commit message,
and rewriting a file gives its rows the snapshot of the rewrite; so before either, maintenance stores which rowids came
from which commit in the table ``quality.row_origins``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import duckdb

from mts_dagster.errors import UsageError
from mts_dagster.lake.connection import ALIAS, METADATA
from mts_dagster.lake.text import listed, quoted
from mts_dagster.lake.transaction import Origin
from mts_dagster.schemas import Column, Table

MAINTENANCE = "maintenance"

ROW_ORIGINS = Table(
    schema="quality",
    name="row_origins",
    columns=tuple(
        Column(name, sql_type, description, nullable=False)
        for name, sql_type, description in (
            ("table_uuid", "VARCHAR", "Table as the catalog knows it; a dropped and remade one is another."),
            ("first_rowid", "BIGINT", "First rowid of the commit that was still stored when this was kept."),
            ("last_rowid", "BIGINT", "Last one, inclusive."),
            ("commit_snapshot", "BIGINT", "Snapshot of the commit; it may have expired."),
            ("committed_at", "TIMESTAMPTZ", "Time of the commit."),
            ("asset", "VARCHAR", "Asset that was materialised."),
            ("run_id", "VARCHAR", "Dagster run."),
            ("code_version", "VARCHAR", "Code version of the asset."),
            ("partitions", "VARCHAR", "Partitions of the run."),
        )
    ),
    key=("table_uuid", "first_rowid"),
    time_column=None,
    description="Which commit wrote which rows, kept beyond the life of the commit's own snapshot.",
)

# The commits that can still be asked, with their origin if they have one.
_LIVE = f"""
    select snapshot_id, snapshot_time as committed_at, extra->>'asset' as asset, extra->>'run_id' as run_id,
           extra->>'code_version' as code_version, extra->>'partitions' as partitions
    from (
        select snapshot_id, snapshot_time, case when author = 'mts' then commit_extra_info::json end as extra
        from {ALIAS}.snapshots()
    )
"""


@dataclass(frozen=True)
class RowOrigin:
    """One commit that wrote some of the rows asked for.

    Attributes:
        snapshot_id: the commit's snapshot; it may have expired since.
        committed_at: when it was stored; None where that is not known any more.
        origin: asset, run, code version and partitions; None for rows that something else than MTS wrote. (A row that
            somebody changed by UPDATE keeps its rowid: once that snapshot has expired, it counts for its first writer.)
        rows: how many of the rows asked for it wrote.
    """

    snapshot_id: int
    committed_at: datetime | None
    origin: Origin | None
    rows: int


def origin_of_rows(
    con: duckdb.DuckDBPyConnection, table: str, condition: str = "true", parameters: Sequence[object] = ()
) -> list[RowOrigin]:
    """Find the commits that wrote the rows of ``table`` that meet ``condition``, newest first.

    Args:
        con: any connection to the lake.
        table: its name, with or without its schema.
        condition: SQL on the table's columns, with ``?`` for values.
        parameters: the values.

    Raises:
        UsageError: there is no such table.
    """
    tables = _tables(con)
    name = next((name for name in tables if table in (name, name.partition(".")[2])), None)
    if name is None:
        raise UsageError(f"the lake has no table {table}; it has {', '.join(tables) or 'none yet'}")
    rows = con.execute(
        f"""
        with asked as (select snapshot_id, rowid from {name} where {condition}),
        live as ({_LIVE}),
        kept as ({_kept(tables, name)}),
        found as (
            select coalesce(kept.commit_snapshot, asked.snapshot_id) as snapshot_id,
                   coalesce(kept.committed_at, live.committed_at) as committed_at,
                   coalesce(kept.asset, nullif(live.asset, '{MAINTENANCE}')) as asset,
                   coalesce(kept.run_id, live.run_id) as run_id,
                   coalesce(kept.code_version, live.code_version) as code_version,
                   coalesce(kept.partitions, live.partitions) as partitions
            from asked
            left join live on live.snapshot_id = asked.snapshot_id
            left join kept
                on asked.rowid between kept.first_rowid and kept.last_rowid
                and (live.snapshot_id is null or live.asset = '{MAINTENANCE}')
        )
        select snapshot_id, committed_at, asset, run_id, code_version, partitions, count(*)
        from found group by all order by snapshot_id desc
        """,
        list(parameters),
    ).fetchall()
    return [
        RowOrigin(
            snapshot_id=snapshot_id,
            committed_at=committed_at,
            origin=None if asset is None else Origin(asset, run_id, code_version, partitions),
            rows=count,
        )
        for snapshot_id, committed_at, asset, run_id, code_version, partitions, count in rows
    ]


def keep_origins(con: duckdb.DuckDBPyConnection) -> int:
    """Store the origins of all rows that are stored now, where that was not done yet; inside a transaction.

    Returns:
        How many commits were added.
    """
    added = 0
    for name, uuid in _tables(con).items():
        row = con.execute(
            f"""
            insert into {ROW_ORIGINS.qualified} ({listed(column.name for column in ROW_ORIGINS.columns)})
            select ?, first_rowid, last_rowid, snapshot_id, committed_at, asset, run_id, code_version, partitions
            from (
                select snapshot_id, min(rowid) as first_rowid, max(rowid) as last_rowid
                from {name} group by snapshot_id
            )
            join ({_LIVE}) using (snapshot_id)
            where asset <> '{MAINTENANCE}'
                and snapshot_id not in (select commit_snapshot from {ROW_ORIGINS.qualified} where table_uuid = ?)
            """,
            [uuid, uuid],
        ).fetchone()
        added += int(row[0]) if row else 0
    return added


def _kept(tables: dict[str, str], table: str) -> str:
    """Query for the kept origins of ``table``; none in a lake that was never maintained."""
    if ROW_ORIGINS.qualified in tables:
        return f"from {ROW_ORIGINS.qualified} where table_uuid = {quoted(tables[table])}"
    columns = ", ".join(f'null::{column.sql_type} as "{column.name}"' for column in ROW_ORIGINS.columns)
    return f"select {columns} where false"


def _tables(con: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """Every stored table, ``schema.name``, with its uuid."""
    rows = con.execute(
        f"""
        select s.schema_name || '.' || t.table_name, t.table_uuid::varchar
        from {METADATA}.ducklake_table as t join {METADATA}.ducklake_schema as s using (schema_id)
        where t.end_snapshot is null and s.end_snapshot is null
        order by all
        """
    ).fetchall()
    return dict(rows)
