"""What ``mts status`` tells: rows, freshness, coverage, the last write; read from the lake alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta

import duckdb
import pytest

from mts_dagster.errors import LakeNotFoundError
from mts_dagster.lake import write
from mts_dagster.lake.maintenance import maintain
from mts_dagster.lake.replace import Replaced
from mts_dagster.lake.status import TableStatus, table_statuses
from mts_dagster.lake.tables import bootstrap
from mts_dagster.schemas import TABLES
from mts_dagster.settings import Settings

Put = Callable[..., Replaced]


def status_of(settings: Settings, table: str = "raw.price_points") -> TableStatus:
    return next(status for status in table_statuses(settings) if status.table == table)


def test_rows_freshness_and_coverage(settings: Settings, put: Put) -> None:
    """Two coins with gaps: 5 of 4 + 3 days are there, and the two that are missing are named in order."""
    put(0, 1.0, days=2)
    put(3, 1.0)
    put(1, 1.0, coin="ethereum")
    put(3, 1.0, coin="ethereum")
    status = status_of(settings)
    assert status.rows == 5 * 24
    assert (status.first, status.last) == (datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 4, 23, tzinfo=UTC))
    assert status.newest_available_at == datetime(2024, 1, 4, 23, tzinfo=UTC)
    assert (status.days_covered, status.days_expected) == (5, 7)
    assert status.missing_days == ("ethereum|2024-01-03", "bitcoin|2024-01-03")[::-1]


def test_the_last_write_leads_to_its_run(settings: Settings, put: Put) -> None:
    """Also when it replaced a day in the middle, and also after maintenance."""
    put(0, 1.0, days=3, run_id="backfill")
    put(1, 2.0, run_id="repair")
    before = status_of(settings).last_write
    assert before is not None
    assert before.origin is not None
    assert (before.origin.run_id, before.rows) == ("repair", 1)
    maintain(settings, now=datetime.now(UTC) + timedelta(days=365))
    assert status_of(settings).last_write == before


def test_an_empty_table(settings: Settings, con: duckdb.DuckDBPyConnection) -> None:
    """It exists and holds nothing."""
    assert con.execute("select count(*) from price_points").fetchall() == [(0,)]
    assert status_of(settings) == TableStatus("raw.price_points", 0, None, None, None, 0, 0, (), None)


def test_a_table_of_days(settings: Settings, con: duckdb.DuckDBPyConnection) -> None:
    """Without a second dimension a missing partition is a day."""
    bootstrap(con, [TABLES["trading_signals"]])
    with write(con):
        for day in ("2024-01-01", "2024-01-03"):
            con.execute(
                "insert into signals.trading_signals select ?, ?, 'vix', 'bitcoin', 'flat', 0, 0, 'low', 1, '', '', ?",
                [day, f"{day} 00:01:00Z", f"{day} 00:01:00Z"],
            )
    status = status_of(settings, "signals.trading_signals")
    assert (status.first, status.last) == (date(2024, 1, 1), date(2024, 1, 3))
    assert (status.days_covered, status.days_expected, status.missing_days) == (2, 3, ("2024-01-02",))


def test_a_table_without_days(settings: Settings, con: duckdb.DuckDBPyConnection) -> None:
    """Any table of the lake is shown, also one that no contract knows."""
    with write(con):
        con.execute("create table quality.notes as select 1 as a")
    assert status_of(settings, "quality.notes") == TableStatus(
        "quality.notes", 1, None, None, None, None, None, (), status_of(settings, "quality.notes").last_write
    )


def test_every_table_of_the_lake_in_order(settings: Settings, con: duckdb.DuckDBPyConnection) -> None:
    """Sorted by name, schema first."""
    bootstrap(con, TABLES.values())
    names = [status.table for status in table_statuses(settings)]
    assert names == sorted(table.qualified for table in TABLES.values())


def test_it_can_be_written_as_json(settings: Settings, put: Put) -> None:
    """Plain values, and times that know how to be text."""
    put(0, 1.0)
    (told,) = json.loads(json.dumps([asdict(status) for status in table_statuses(settings)], default=str))
    assert told["rows"] == 24
    assert told["last_write"]["origin"]["run_id"] == "run"


def test_looking_changes_nothing(settings: Settings, put: Put, con: duckdb.DuckDBPyConnection) -> None:
    """No snapshot, no file, no lock."""
    put(0, 1.0)
    before = con.execute("select max(snapshot_id) from lake.snapshots()").fetchall()
    note = (settings.home / "lake.sqlite.lock.holder").read_text()
    table_statuses(settings)
    assert con.execute("select max(snapshot_id) from lake.snapshots()").fetchall() == before
    assert (settings.home / "lake.sqlite.lock.holder").read_text() == note


def test_no_lake_yet(settings: Settings) -> None:
    """The usual error, which tells what to do."""
    with pytest.raises(LakeNotFoundError):
        table_statuses(settings)
