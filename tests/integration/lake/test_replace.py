"""Replacing slices: exactly the slice, whole or not at all, and wrong rows leave everything as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest

from mts_dagster.errors import BadDataError, LakeError
from mts_dagster.lake import transact, write
from mts_dagster.lake.read import count_rows, read_slices
from mts_dagster.lake.replace import Replaced, replace_frame, replace_pieces, replace_select
from mts_dagster.lake.shared import session
from mts_dagster.lake.slices import Slice
from mts_dagster.lake.tables import bootstrap
from mts_dagster.lake.transaction import Origin
from mts_dagster.schemas import Column, Table
from mts_dagster.settings import Settings

from .conftest import JAN_1, day_slice, price_frame, rows_by_day

ORIGIN = Origin("raw/price_points", "run", "v1", "2024-01-01")
Put = Callable[..., Replaced]


def everything(con: duckdb.DuckDBPyConnection) -> list[tuple[Any, ...]]:
    """All rows with the commit that wrote them and their identity."""
    return con.execute("select snapshot_id, rowid, * from raw.price_points order by all").fetchall()


def newest_snapshot(con: duckdb.DuckDBPyConnection) -> int:
    return int(con.execute("select max(snapshot_id) from lake.snapshots()").fetchall()[0][0])


def test_a_replacement_says_what_it_did(put: Put) -> None:
    """First nothing to delete, then the day's 24 rows."""
    assert put(0, 1.0) == Replaced(rows_deleted=0, rows_inserted=24)
    assert put(0, 2.0) == Replaced(rows_deleted=24, rows_inserted=24)


def test_other_slices_stay_byte_equal(con: duckdb.DuckDBPyConnection, put: Put) -> None:
    """Same rows, same identity, same commit: neighbouring days and the same day of another coin are not rewritten."""
    put(0, 1.0, days=5)
    put(2, 1.0, coin="ethereum")
    others = [row for row in everything(con) if not (row[2] == "bitcoin" and row[3].day == 3)]
    put(2, 9.0)
    assert [row for row in everything(con) if row[4] != 9.0] == others
    assert rows_by_day(con)["bitcoin", 2] == (24, 9.0)


def test_a_range_is_one_commit(con: duckdb.DuckDBPyConnection, put: Put) -> None:
    """A year of days is one snapshot, not 365."""
    before = newest_snapshot(con)
    put(0, 1.0, days=365)
    assert newest_snapshot(con) == before + 1
    assert len(rows_by_day(con)) == 365


def test_days_with_gaps_leave_the_gaps_alone(con: duckdb.DuckDBPyConnection, put: Put, prices: Table) -> None:
    """Every second day replaced in one commit; the days between keep their rows, their identity and their commit."""
    put(0, 1.0, days=7)
    kept = [row for row in everything(con) if (row[3] - JAN_1).days % 2]
    days = range(0, 7, 2)
    frame = pd.concat([price_frame(day, 2.0) for day in days], ignore_index=True)
    before = newest_snapshot(con)
    done = replace_frame(con, prices, [day_slice(day) for day in days], frame, ORIGIN)
    assert done == Replaced(rows_deleted=96, rows_inserted=96)
    assert newest_snapshot(con) == before + 1
    assert [row for row in everything(con) if row[4] == 1.0] == kept


def test_a_thousand_gaps_are_one_statement(con: duckdb.DuckDBPyConnection, put: Put, prices: Table) -> None:
    """Every second day of more than five years: nesting has no limit that a backfill could meet."""
    put(0, 1.0, days=2000)
    days = range(0, 2000, 2)
    frame = pd.concat([price_frame(day, 2.0).head(1) for day in days], ignore_index=True)
    done = replace_frame(con, prices, [day_slice(day) for day in days], frame, ORIGIN)
    assert done == Replaced(rows_deleted=24_000, rows_inserted=1000)
    assert count_rows(con, prices) == 25_000


def test_several_members_are_replaced_together(con: duckdb.DuckDBPyConnection, put: Put, prices: Table) -> None:
    """Two of three coins on one day; the third is not touched."""
    for coin in ("bitcoin", "ethereum", "solana"):
        put(0, 1.0, coin=coin)
    piece = Slice(JAN_1, JAN_1 + timedelta(days=1), ("bitcoin", "ethereum"))
    frame = pd.concat([price_frame(0, 2.0, coin=coin) for coin in ("bitcoin", "ethereum")], ignore_index=True)
    replace_frame(con, prices, [piece], frame, ORIGIN)
    assert {coin: price for (coin, _), (_, price) in rows_by_day(con).items()} == {
        "bitcoin": 2.0,
        "ethereum": 2.0,
        "solana": 1.0,
    }


def test_only_the_files_of_the_slice_are_opened(con: duckdb.DuckDBPyConnection, put: Put, prices: Table) -> None:
    """Three coins and two years are six files; a coin's day lies in one."""
    for coin in ("a", "b", "c"):
        put(360, 1.0, days=12, coin=coin)
    where, parameters = day_slice(361, coin="b").predicate(prices)
    plan = con.execute(f"explain analyze select * from raw.price_points where {where}", parameters).fetchall()[0][1]
    assert con.execute("select count(distinct filename) from raw.price_points").fetchall() == [(6,)]
    assert "Total Files Read: 1 " in plan


def refused(con: duckdb.DuckDBPyConnection, table: Table, slices: Sequence[Slice], frame: pd.DataFrame) -> str:
    """The message of a replacement that must fail and change nothing."""
    before, snapshot = everything(con), newest_snapshot(con)
    with pytest.raises(BadDataError) as caught:
        replace_frame(con, table, slices, frame, ORIGIN)
    assert everything(con) == before
    assert newest_snapshot(con) == snapshot
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith("; nothing stored")
    return message


def test_rows_outside_the_slice_are_refused(con: duckdb.DuckDBPyConnection, put: Put, prices: Table) -> None:
    """The message names table, columns, count, partition and the first rows; the end of the window is exclusive."""
    put(0, 1.0)
    frame = price_frame(0, 2.0, days=2).head(26)
    assert refused(con, prices, [day_slice(0)], frame) == (
        "table raw.price_points, column sampled_at, coin: 2 rows lie outside the partition bitcoin [2024-01-01 00:00, "
        "2024-01-02 00:00) UTC, first by ['coin', 'sampled_at']: [('bitcoin', '2024-01-02 00:00:00+00:00'), "
        "('bitcoin', '2024-01-02 01:00:00+00:00')]; nothing stored"
    )


def test_rows_of_another_member_are_refused(con: duckdb.DuckDBPyConnection, put: Put, prices: Table) -> None:
    """The right day of the wrong coin would never be deleted again."""
    put(0, 1.0)
    message = refused(con, prices, [day_slice(0)], price_frame(0, 2.0, coin="ethereum"))
    assert "24 rows lie outside the partition bitcoin" in message


def test_double_keys_are_refused(con: duckdb.DuckDBPyConnection, put: Put, prices: Table) -> None:
    """The message counts the rows and shows the first keys."""
    put(0, 1.0)
    frame = pd.concat([price_frame(0, 2.0), price_frame(0, 3.0).head(1)], ignore_index=True)
    assert refused(con, prices, [day_slice(0)], frame) == (
        "table raw.price_points, column coin, sampled_at: 2 rows share their key, first: "
        "[('bitcoin', '2024-01-01 00:00:00+00:00')]; nothing stored"
    )


def test_nulls_are_refused(con: duckdb.DuckDBPyConnection, put: Put, prices: Table) -> None:
    """Also where rows come from a query and no frame was validated."""
    put(0, 1.0)
    frame = price_frame(0, 2.0)
    frame.loc[5, "price_usd"] = None
    assert "column price_usd: 1 rows are null, first by ['coin', 'sampled_at']: [('bitcoin', '2024-01-01 05" in (
        refused(con, prices, [day_slice(0)], frame)
    )


def test_a_value_that_does_not_fit_is_refused(con: duckdb.DuckDBPyConnection, put: Put, prices: Table) -> None:
    """A query that yields text where a number belongs."""
    put(0, 1.0)
    frame = price_frame(0, 2.0).assign(price_usd="a lot")
    assert "table raw.price_points: a value does not fit its column: Conversion Error" in (
        refused(con, prices, [day_slice(0)], frame)
    )


def test_after_a_refusal_the_connection_goes_on(con: duckdb.DuckDBPyConnection, put: Put, prices: Table) -> None:
    """No open transaction, no table left behind, no lock held."""
    refused(con, prices, [day_slice(0)], price_frame(1, 1.0))
    assert con.execute("select count(*) from duckdb_tables() where table_name = 'mts_incoming'").fetchall() == [(0,)]
    assert put(0, 2.0).rows_inserted == 24


def test_a_failing_insert_keeps_the_old_rows(
    con: duckdb.DuckDBPyConnection, put: Put, prices: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The delete is done, the insert fails in DuckDB itself: both are rolled back."""
    put(0, 1.0)
    before = everything(con)
    monkeypatch.setattr("mts_dagster.lake.replace._check_not_null", lambda *_: None)
    frame = price_frame(0, 2.0).assign(price_usd=pd.Series([None] * 24, dtype="float64"))
    with pytest.raises(duckdb.ConstraintException):
        replace_frame(con, prices, [day_slice(0)], frame, ORIGIN)
    assert everything(con) == before


def test_a_key_that_does_not_tell_its_slice_is_unique_in_the_whole_table(con: duckdb.DuckDBPyConnection) -> None:
    """The same key on another day is found although that day is not replaced."""
    table = Table(
        schema="raw",
        name="decisions",
        columns=(Column("day", "DATE", "Day.", nullable=False), Column("id", "BIGINT", "Key.", nullable=False)),
        key=("id",),
        time_column="day",
    )
    bootstrap(con, [table])

    def put_id(day: int, number: int) -> Replaced:
        select = f"select date '2024-01-01' + {day} as day, {number} as id"
        return replace_select(
            con, table, [Slice(JAN_1 + timedelta(days=day), JAN_1 + timedelta(days=day + 1))], select, ORIGIN
        )

    put_id(0, 7)
    put_id(0, 7)
    with pytest.raises(BadDataError, match=r"column id: 2 rows share their key, first: \[\('7',\)\]; nothing stored"):
        put_id(1, 7)
    assert con.execute("from raw.decisions").fetchall() == [(date(2024, 1, 1), 7)]
    assert put_id(1, 8) == Replaced(0, 1)


def test_columns_are_matched_by_name(con: duckdb.DuckDBPyConnection, put: Put, prices: Table) -> None:
    """A column that the contract gained in its middle is stored last; all values land where they belong."""
    put(0, 1.0)
    note = Column("note", "VARCHAR", "A note.", nullable=True)
    wider = replace(prices, columns=(*prices.columns[:1], note, *prices.columns[1:]))
    bootstrap(con, [wider])
    replace_frame(con, wider, [day_slice(0)], price_frame(0, 2.0).assign(note="seen"), ORIGIN)
    assert con.execute("select distinct coin, note, price_usd, source_tier from raw.price_points").fetchall() == [
        ("bitcoin", "seen", 2.0, "demo")
    ]


def test_a_query_over_the_table_itself(con: duckdb.DuckDBPyConnection, put: Put, prices: Table) -> None:
    """The rows are computed before the slice is deleted."""
    put(0, 1.0)
    select = "select * replace (price_usd * 2 as price_usd) from raw.price_points where coin = 'bitcoin'"
    assert replace_select(con, prices, [day_slice(0)], select, ORIGIN) == Replaced(24, 24)
    assert rows_by_day(con) == {("bitcoin", 0): (24, 2.0)}


def hours_at(price: float, first: int, end: int) -> str:
    """Statement that gives some hours of the first day."""
    return f"""
        select 'bitcoin' as coin, timestamptz '2024-01-01 00:00:00+00' + to_hours(hour::int) as sampled_at,
            {price} as price_usd, null as market_cap_usd, 1.0 as volume_24h_usd, 'demo' as source_tier,
            sampled_at as available_at
        from range({first}, {end}) as hours(hour)
    """


def test_pieces_are_stored_in_one_commit(
    con: duckdb.DuckDBPyConnection, put: Put, prices: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three statements, one without rows, a file for each of the others: the day as one statement gives it."""
    monkeypatch.setattr("mts_dagster.lake.replace.BYTES_AT_ONCE", 1)
    put(0, 1.0)
    before = newest_snapshot(con)
    pieces = [hours_at(2.0, 0, 10), hours_at(2.0, 10, 10), hours_at(2.0, 10, 24)]
    assert replace_pieces(con, prices, [day_slice(0)], pieces, tmp_path, ORIGIN) == Replaced(24, 24)
    assert newest_snapshot(con) == before + 1
    assert rows_by_day(con) == {("bitcoin", 0): (24, 2.0)}
    assert con.execute("select file_count from ducklake_table_info('lake')").fetchall() == [(2,)]


def test_no_pieces_empty_the_slice(con: duckdb.DuckDBPyConnection, put: Put, prices: Table, tmp_path: Path) -> None:
    """What gives no rows any more has none; the next day stays."""
    put(0, 1.0, days=2)
    assert replace_pieces(con, prices, [day_slice(0)], [], tmp_path, ORIGIN) == Replaced(24, 0)
    assert rows_by_day(con) == {("bitcoin", 1): (24, 1.0)}


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (hours_at(2.0, 20, 26), "2 rows lie outside the partition"),
        (hours_at(2.0, 20, 22) + " union all " + hours_at(3.0, 21, 22), "2 rows share their key"),
        (hours_at(2.0, 20, 22).replace("1.0 as volume", "'many' as volume"), "a value does not fit its column"),
        ("select * from read_parquet('no such file')", "cannot compute its rows"),
    ],
)
def test_a_bad_piece_leaves_everything_as_it_was(
    con: duckdb.DuckDBPyConnection, put: Put, prices: Table, tmp_path: Path, bad: str, told: str
) -> None:
    """The first piece was sound; nothing of it is stored either, and the connection can be used on."""
    put(0, 1.0)
    before = everything(con)
    with pytest.raises(LakeError if "compute" in told else BadDataError, match=told):
        replace_pieces(con, prices, [day_slice(0)], [hours_at(2.0, 0, 20), bad], tmp_path, ORIGIN)
    assert everything(con) == before
    assert put(0, 3.0) == Replaced(24, 24)


def test_all_pieces_see_one_state_of_the_lake(
    con: duckdb.DuckDBPyConnection, settings: Settings, put: Put, prices: Table, tmp_path: Path
) -> None:
    """Somebody else commits between two pieces; the second one still reads what the first one read."""
    put(1, 7.0)

    def pieces() -> Iterator[str]:
        source = "(select max(price_usd) from raw.price_points)"
        yield hours_at(0, 0, 12).replace("0 as price_usd", f"{source} as price_usd")
        with session(settings, read_only=False) as other:
            replace_frame(other, prices, [day_slice(2)], price_frame(2, 9.0), ORIGIN)
        yield hours_at(0, 12, 24).replace("0 as price_usd", f"{source} as price_usd")

    replace_pieces(con, prices, [day_slice(0)], pieces(), tmp_path, ORIGIN)
    assert rows_by_day(con) == {("bitcoin", 0): (24, 7.0), ("bitcoin", 1): (24, 7.0), ("bitcoin", 2): (24, 9.0)}


KINDS = Table(
    schema="raw",
    name="kinds",
    columns=tuple(
        Column(f"{name}{'_or_null' if nullable else ''}", sql_type, name, nullable=nullable)
        for name, sql_type in {
            "day": "DATE",
            "time": "TIMESTAMPTZ",
            "number": "DOUBLE",
            "whole": "BIGINT",
            "flag": "BOOLEAN",
            "text": "VARCHAR",
        }.items()
        for nullable in (False, True)
    ),
    key=("whole",),
    time_column="day",
)
DTYPES = {
    "day": "datetime64[ns]",
    "day_or_null": "datetime64[ns]",
    "time": "datetime64[us, UTC]",
    "time_or_null": "datetime64[us, UTC]",
    "number": "float64",
    "number_or_null": "float64",
    "whole": "int64",
    "whole_or_null": "Int64",
    "flag": "bool",
    "flag_or_null": "boolean",
    "text": "str",
    "text_or_null": "str",
}


def kinds_frame() -> pd.DataFrame:
    """The first row has a value everywhere, the second a null wherever it may; values that a detour would change."""
    values = {
        "day": (date(2024, 1, 1), date(2024, 1, 1)),
        "time": (
            datetime(2024, 1, 1, 1, 2, 3, 123456, tzinfo=UTC),
            datetime(2024, 1, 1, 23, 59, 59, 999999, tzinfo=UTC),
        ),
        "number": (0.1 + 0.2, -1e-300),
        "whole": (2**53 + 1, -(2**62)),
        "flag": (True, False),
        "text": ("Zürich 😀 'quoted' \\n", ""),
    }
    columns = {}
    for name, (first, second) in values.items():
        columns[name] = [first, second]
        columns[f"{name}_or_null"] = [first, None]
    return pd.DataFrame(columns, dtype=object).astype(DTYPES)


def test_every_type_comes_back_as_it_went_in(con: duckdb.DuckDBPyConnection) -> None:
    """Microseconds, whole numbers beyond 2**53, floats to the last bit, unicode, and nulls of every type."""
    bootstrap(con, [KINDS])
    frame = kinds_frame()
    replace_frame(con, KINDS, [Slice(JAN_1, JAN_1 + timedelta(days=1))], frame, ORIGIN)
    back = read_slices(con, KINDS)
    assert {name: str(dtype) for name, dtype in back.dtypes.items()} == DTYPES
    pd.testing.assert_frame_equal(back, frame.sort_values("whole", ignore_index=True))
    nulls = ", ".join(f'count(*) filter (where "{column.name}" is null)' for column in KINDS.columns)
    assert con.execute(f"select {nulls} from raw.kinds").fetchall() == [(0, 1) * 6]


def test_without_rows_the_types_are_the_same(con: duckdb.DuckDBPyConnection) -> None:
    """Code that works on a frame works on an empty one."""
    bootstrap(con, [KINDS])
    assert {name: str(dtype) for name, dtype in read_slices(con, KINDS).dtypes.items()} == DTYPES


def test_reading_slices_reads_them_alone(con: duckdb.DuckDBPyConnection, put: Put, prices: Table) -> None:
    """Half-open, one coin, ordered by key; no slice, no row."""
    put(0, 1.0, days=3)
    put(1, 2.0, coin="ethereum")
    frame = read_slices(con, prices, [day_slice(1)])
    assert frame["sampled_at"].tolist() == price_frame(1, 1.0)["sampled_at"].tolist()
    assert set(frame["coin"]) == {"bitcoin"}
    assert len(read_slices(con, prices, [])) == 0
    assert len(read_slices(con, prices)) == 96


def test_an_error_in_the_body_rolls_back(con: duckdb.DuckDBPyConnection, put: Put) -> None:
    """Whatever the body did is gone, the error comes out as it is, and the lock is free again."""
    put(0, 1.0)
    before = everything(con)

    def body() -> None:
        with write(con):
            con.execute("delete from raw.price_points")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        body()
    assert everything(con) == before
    put(0, 2.0)


def test_a_body_that_ends_the_transaction_itself(con: duckdb.DuckDBPyConnection) -> None:
    """The error that the user sees is about the commit, and the connection can go on."""
    with pytest.raises(LakeError, match="commit failed, nothing was stored"), write(con):
        con.execute("rollback")
    with write(con):
        con.execute("create table raw.t as select 1 as a")


def test_a_permanent_error_is_not_repeated(con: duckdb.DuckDBPyConnection) -> None:
    """Only what a second try can heal is tried again."""
    tries = []

    def body(con: duckdb.DuckDBPyConnection) -> None:
        tries.append(1)
        con.execute("select * from no_such_table")

    with pytest.raises(duckdb.CatalogException):
        transact(con, body)
    assert len(tries) == 1


def test_a_commit_tells_its_origin(con: duckdb.DuckDBPyConnection, put: Put) -> None:
    """Asset and partition in the message for people, everything in the extra information for programs."""
    put(0, 1.0, run_id="run-1")
    message, asset, run_id, code_version, partitions = con.execute(
        "select commit_message, commit_extra_info->>'asset', commit_extra_info->>'run_id', "
        "commit_extra_info->>'code_version', commit_extra_info->>'partitions' "
        "from lake.snapshots() order by snapshot_id desc limit 1"
    ).fetchall()[0]
    assert message == "raw/price_points bitcoin 0+1"
    assert (asset, run_id, code_version, partitions) == ("raw/price_points", "run-1", "v1", "bitcoin 0+1")
