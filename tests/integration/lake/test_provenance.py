"""Any row leads to the run that wrote it, also after its file was merged and its snapshot forgotten."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import duckdb
import pytest

from mts_dagster.errors import UsageError
from mts_dagster.lake import write
from mts_dagster.lake.maintenance import maintain
from mts_dagster.lake.provenance import origin_of_rows
from mts_dagster.lake.replace import Replaced
from mts_dagster.lake.transaction import Origin
from mts_dagster.settings import Settings

Put = Callable[..., Replaced]


def runs(con: duckdb.DuckDBPyConnection, condition: str = "true", *parameters: object) -> list[tuple[str | None, int]]:
    """(run, rows), newest commit first."""
    origins = origin_of_rows(con, "price_points", condition, parameters)
    return [(origin.origin.run_id if origin.origin else None, origin.rows) for origin in origins]


def test_a_row_leads_to_its_run(put: Put, reader: duckdb.DuckDBPyConnection) -> None:
    """Run, asset, code version, partition, snapshot and time; half a day of rows is enough to ask."""
    put(0, 1.0, run_id="first")
    put(1, 1.0, run_id="second")
    noon = datetime(2024, 1, 2, 12, tzinfo=UTC)
    (origin,) = origin_of_rows(reader, "raw.price_points", "sampled_at >= ?", [noon])
    assert origin.origin == Origin("raw/price_points", "second", "v1", "bitcoin 1+1")
    assert origin.rows == 12
    snapshot, time = reader.execute(
        "select snapshot_id, snapshot_time from lake.snapshots() order by 1 desc limit 1"
    ).fetchall()[0]
    assert (origin.snapshot_id, origin.committed_at) == (snapshot, time)


def test_each_commit_is_told_once(put: Put, reader: duckdb.DuckDBPyConnection) -> None:
    """Rows of three days by two runs; the replaced ones count for who replaced them."""
    put(0, 1.0, days=3, run_id="backfill")
    put(1, 2.0, run_id="repair")
    assert runs(reader) == [("repair", 24), ("backfill", 48)]
    assert runs(reader, "price_usd = ?", 2.0) == [("repair", 24)]
    assert runs(reader, "coin = ?", "dogecoin") == []


def test_a_row_from_elsewhere_has_no_run(con: duckdb.DuckDBPyConnection, put: Put) -> None:
    """A notebook wrote it: the snapshot and its time are known, nothing is invented."""
    put(0, 1.0)
    with write(con):
        con.execute("update price_points set price_usd = 7 where hour(sampled_at) = 3")
    by_hand, by_run = origin_of_rows(con, "price_points")
    assert (by_hand.origin, by_hand.rows) == (None, 1)
    assert by_hand.committed_at is not None
    assert by_run.rows == 23


def test_an_unknown_table_is_a_users_mistake(reader: duckdb.DuckDBPyConnection) -> None:
    """The message lists the tables that there are."""
    with pytest.raises(UsageError, match=r"the lake has no table prices; it has raw\.price_points"):
        origin_of_rows(reader, "prices")


def test_virtual_columns_survive_a_merge(con: duckdb.DuckDBPyConnection, put: Put) -> None:
    """After small files became one, each row keeps its snapshot and its rowid."""
    for day in range(6):
        put(day, float(day))
    identity = "select snapshot_id, rowid, * from raw.price_points order by all"
    before = con.execute(identity).fetchall()
    with write(con):
        con.execute("call ducklake_merge_adjacent_files('lake', 'price_points', schema => 'raw')")
    assert con.execute("select count(distinct filename) from raw.price_points").fetchall() == [(1,)]
    assert con.execute(identity).fetchall() == before


def test_maintenance_keeps_every_origin(put: Put, reader: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Files rewritten and merged, snapshots gone, twice: every row still leads to its run, later ones too."""
    put(0, 1.0, days=30, run_id="backfill")
    for day in range(20):
        put(day, 2.0, run_id=f"repair-{day}")
    before = origin_of_rows(reader, "price_points")
    assert len(before) == 21
    later = datetime.now(UTC) + timedelta(days=365)
    report = maintain(settings, now=later)
    assert report.origins_kept == 21
    assert report.files_rewritten == 1
    assert len(report.snapshots_expired) > 21
    assert origin_of_rows(reader, "price_points") == before
    put(29, 3.0, run_id="late")
    assert maintain(settings, now=later).origins_kept == 1
    assert runs(reader, "price_usd = 3") == [("late", 24)]
    assert runs(reader, "price_usd = 1") == [("backfill", 9 * 24)]


def test_maintenance_invents_no_origin(con: duckdb.DuckDBPyConnection, put: Put, settings: Settings) -> None:
    """A row changed by hand has no run, and having been merged into a larger file gives it none."""
    put(0, 1.0)
    with write(con):
        con.execute("update price_points set price_usd = 7 where hour(sampled_at) = 3")
    maintain(settings)
    assert runs(con, "price_usd = 7") == [(None, 1)]
    assert runs(con, "price_usd = 1") == [("run", 23)]


def test_a_remade_table_does_not_inherit_origins(
    con: duckdb.DuckDBPyConnection, put: Put, settings: Settings, reader: duckdb.DuckDBPyConnection
) -> None:
    """Rowids begin again at 0 after a drop; the kept origins belong to the table that is gone."""
    put(0, 1.0, run_id="old")
    maintain(settings, now=datetime.now(UTC) + timedelta(days=365))
    with write(con):
        con.execute("create table raw.copy as from raw.price_points")
        con.execute("drop table raw.price_points")
        con.execute("create table raw.price_points as from raw.copy")
    assert runs(reader) == [(None, 24)]
