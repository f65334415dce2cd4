"""What the lake holds, how fresh and how complete it is, and whether a writer is at work: pure reads.

What belongs here: the facts behind ``mts status`` and the lock line of ``mts doctor``, as typed values. They come from
the lake alone, which knows by which columns its tables are partitioned. How they are shown is the command line's
business.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

import duckdb

from mts_dagster.lake.connection import ALIAS, METADATA, address_of
from mts_dagster.lake.lock import LockState, state_of
from mts_dagster.lake.provenance import RowOrigin, origin_of_rows
from mts_dagster.lake.shared import session
from mts_dagster.settings import Settings

__all__ = ["LockState", "TableStatus", "lock_state", "table_statuses"]


@dataclass(frozen=True)
class TableStatus:
    """One stored table. In a table of coins or indicators a partition is a day of one of them, else a day.

    Attributes:
        table: ``schema.name``.
        rows: stored rows.
        first: smallest value of the column that decides the day.
        last: greatest value of it.
        newest_available_at: when its newest row could first be known.
        days_covered: partitions that have rows; None for a table without days.
        days_expected: the days from each member's first to its last, summed. A series without weekends has fewer.
        missing_days: partitions without rows inside those spans, ``2024-01-31`` or ``bitcoin|2024-01-31``.
        last_write: the commit that wrote its newest rows, with the run.
    """

    table: str
    rows: int
    first: datetime | date | None
    last: datetime | date | None
    newest_available_at: datetime | None
    days_covered: int | None
    days_expected: int | None
    missing_days: tuple[str, ...]
    last_write: RowOrigin | None


@dataclass(frozen=True)
class _Stored:
    """A table as the lake knows it."""

    name: str
    time_column: str | None
    partition_column: str | None
    has_available_at: bool


def table_statuses(settings: Settings) -> list[TableStatus]:
    """Look at every table, in the order of their names.

    Raises:
        LakeNotFoundError: there is no lake yet.
    """
    with session(settings) as con:
        return [_status(con, table) for table in _stored_tables(con)]


def lock_state(settings: Settings) -> LockState:
    """Whether a writer is at work right now, and who."""
    return state_of(address_of(settings).lock_place)


def _stored_tables(con: duckdb.DuckDBPyConnection) -> list[_Stored]:
    """All tables; the year of a column stands for the days of it (see ``tables``), a plain one for the members."""
    rows = con.execute(
        f"""
        with parts as (
            select part.table_id,
                   any_value("column".column_name) filter (transform = 'year') as time_column,
                   any_value("column".column_name) filter (transform = 'identity') as partition_column
            from {METADATA}.ducklake_partition_info as info
            join {METADATA}.ducklake_partition_column as part using (partition_id)
            join {METADATA}.ducklake_column as "column"
                on "column".column_id = part.column_id and "column".table_id = part.table_id
            where info.end_snapshot is null and "column".end_snapshot is null
            group by part.table_id
        ),
        available as (
            select schema_name, table_name from duckdb_columns()
            where database_name = '{ALIAS}' and column_name = 'available_at'
        )
        select s.schema_name || '.' || t.table_name, time_column, partition_column, available.table_name is not null
        from {METADATA}.ducklake_table as t
        join {METADATA}.ducklake_schema as s using (schema_id)
        left join parts using (table_id)
        left join available on available.schema_name = s.schema_name and available.table_name = t.table_name
        where t.end_snapshot is null and s.end_snapshot is null
        order by 1
        """
    ).fetchall()
    return [_Stored(*row) for row in rows]


def _status(con: duckdb.DuckDBPyConnection, table: _Stored) -> TableStatus:
    time = f'"{table.time_column}"' if table.time_column else "null"
    available = "available_at" if table.has_available_at else "null"
    rows, first, last, newest = con.execute(
        f"select count(*), min({time}), max({time}), max({available}) from {table.name}"
    ).fetchall()[0]
    covered, expected, missing = _coverage(con, table)
    newest_rows = f"rowid = (select max(rowid) from {table.name})"
    return TableStatus(
        table=table.name,
        rows=rows,
        first=first,
        last=last,
        newest_available_at=newest,
        days_covered=covered,
        days_expected=expected,
        missing_days=missing,
        last_write=next(iter(origin_of_rows(con, table.name, newest_rows)), None),
    )


def _coverage(con: duckdb.DuckDBPyConnection, table: _Stored) -> tuple[int | None, int | None, tuple[str, ...]]:
    if table.time_column is None:
        return None, None, ()
    member = f'"{table.partition_column}"' if table.partition_column else "''"
    days = f"""
        with days as (select distinct {member} as member, "{table.time_column}"::date as day from {table.name}),
        spans as (select member, min(day) as first, max(day) as last, count(*) as covered from days group by member)
    """
    covered, expected = con.execute(
        f"{days} select coalesce(sum(covered), 0)::bigint, coalesce(sum(last - first + 1), 0)::bigint from spans"
    ).fetchall()[0]
    label = "member || '|' || day" if table.partition_column else "day::varchar"
    missing = con.execute(
        f"""
        {days}
        select {label}
        from (select member, unnest(generate_series(first, last, interval 1 day))::date as day from spans)
        anti join days using (member, day)
        order by day, member
        """
    ).fetchall()
    return covered, expected, tuple(name for (name,) in missing)
