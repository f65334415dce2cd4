"""What the lake holds, how fresh and how complete it is, and whether a writer is at work: pure reads.

What belongs here: the facts behind ``mts status`` and the lock line of ``mts doctor``, as typed values. How they are
shown is the command line's business.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any

import duckdb

from mts_dagster.lake.connection import ALIAS, address_of, connect
from mts_dagster.lake.lock import LockState, state_of
from mts_dagster.lake.provenance import RowOrigin, origin_of_rows
from mts_dagster.schemas import Table
from mts_dagster.settings import Settings

SHOWN_MISSING = 5


@dataclass(frozen=True)
class Coverage:
    """Which day partitions have rows, counted within the span of each member (coin, indicator) of the table.

    Attributes:
        covered: partitions with rows.
        expected: days from each member's first to its last, summed. A series that knows no weekend has fewer.
        first_missing: the first days without rows inside a span, ``day`` or ``member|day``.
    """

    covered: int
    expected: int
    first_missing: tuple[str, ...]

    @property
    def missing(self) -> int:
        """Partitions without rows inside the spans."""
        return self.expected - self.covered


@dataclass(frozen=True)
class TableStatus:
    """One table.

    Attributes:
        table: ``schema.name``.
        rows: stored rows; None where the table was not made yet.
        first: smallest value of its time column.
        last: greatest value of its time column.
        newest_available_at: when its newest row could first be known.
        coverage: None for a table without days.
        last_write: the commit that wrote its newest rows.
    """

    table: str
    rows: int | None
    first: datetime | date | None = None
    last: datetime | date | None = None
    newest_available_at: datetime | None = None
    coverage: Coverage | None = None
    last_write: RowOrigin | None = None


@dataclass(frozen=True)
class LakeStatus:
    """The whole lake.

    Attributes:
        catalog: where its catalog is, without passwords.
        data_path: where its files are.
        snapshot_id: newest snapshot.
        committed_at: when that was stored.
        tables: in the order asked for.
    """

    catalog: str
    data_path: str
    snapshot_id: int
    committed_at: datetime
    tables: tuple[TableStatus, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain lists, dictionaries, numbers and text; times in ISO 8601."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain


def lake_status(settings: Settings, tables: Iterable[Table]) -> LakeStatus:
    """Look at the lake.

    Raises:
        LakeNotFoundError: there is none yet.
    """
    address = address_of(settings)
    con = connect(settings=settings)
    try:
        snapshot_id, committed_at = con.execute(
            f"select snapshot_id, snapshot_time from {ALIAS}.snapshots() order by snapshot_id desc limit 1"
        ).fetchall()[0]
        statuses = tuple(table_status(con, table) for table in tables)
    finally:
        con.close()
    return LakeStatus(str(address), address.data_path, snapshot_id, committed_at, statuses)


def table_status(con: duckdb.DuckDBPyConnection, table: Table) -> TableStatus:
    """Look at one table."""
    if not _is_stored(con, table):
        return TableStatus(table.qualified, rows=None)
    time = f'"{table.time_column}"' if table.time_column else "null"
    available = "available_at" if any(column.name == "available_at" for column in table.columns) else "null"
    rows, first, last, newest = con.execute(
        f"select count(*), min({time}), max({time}), max({available}) from {table.qualified}"
    ).fetchall()[0]
    newest_rows = f"rowid = (select max(rowid) from {table.qualified})"
    return TableStatus(
        table=table.qualified,
        rows=rows,
        first=first,
        last=last,
        newest_available_at=newest,
        coverage=_coverage(con, table) if table.time_column else None,
        last_write=next(iter(origin_of_rows(con, table, newest_rows)), None),
    )


def lock_state(settings: Settings) -> LockState:
    """Whether a writer is at work right now, and who."""
    return state_of(address_of(settings).lock_place)


def _is_stored(con: duckdb.DuckDBPyConnection, table: Table) -> bool:
    found = con.execute(
        "select 1 from duckdb_tables() where database_name = ? and schema_name = ? and table_name = ?",
        [ALIAS, table.schema, table.name],
    ).fetchone()
    return found is not None


def _coverage(con: duckdb.DuckDBPyConnection, table: Table) -> Coverage:
    member = f'"{table.partition_column}"' if table.partition_column else "''"
    days = f"""
        with days as (select distinct {member} as member, "{table.time_column}"::date as day from {table.qualified}),
        spans as (select member, min(day) as first, max(day) as last, count(*) as covered from days group by member)
    """
    covered, expected = con.execute(
        f"{days} select coalesce(sum(covered), 0), coalesce(sum(last - first + 1), 0) from spans"
    ).fetchall()[0]
    missing = con.execute(
        f"""
        {days}
        select member, day
        from (select member, unnest(generate_series(first, last, interval 1 day))::date as day from spans)
        anti join days using (member, day)
        order by day, member limit {SHOWN_MISSING}
        """
    ).fetchall()
    shown = tuple(f"{name}|{day}" if table.partition_column else str(day) for name, day in missing)
    return Coverage(int(covered), int(expected), shown)


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever a dataclass holds
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value.isoformat() if isinstance(value, date) else value
