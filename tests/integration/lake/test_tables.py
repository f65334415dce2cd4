"""Tables follow their contracts: new ones are made, new nullable columns added, everything else names its migration."""

from __future__ import annotations

from dataclasses import replace

import duckdb
import pytest

from mts_dagster.errors import LakeError, SchemaChangedError
from mts_dagster.lake import write
from mts_dagster.lake.tables import bootstrap
from mts_dagster.lake.transaction import Origin
from mts_dagster.lake.views import missing_views, replace_view
from mts_dagster.schemas import Column, Table

SMALL = Table(
    schema="raw",
    name="small",
    columns=(
        Column("id", "BIGINT", "Key.", nullable=False),
        Column("day", "DATE", "Day.", nullable=False),
        Column("text", "VARCHAR", "It's text.", nullable=True, unit="words"),
        Column("size", "BIGINT", "Size.", nullable=True),
    ),
    key=("id",),
    time_column="day",
    description="A small table.",
)


@pytest.fixture
def stored(con: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """A lake with the small table and two rows in it."""
    bootstrap(con, [SMALL])
    with write(con):
        con.execute("insert into raw.small values (1, '2024-01-01', 'one', 10), (2, '2025-01-01', null, null)")
    return con


def with_column(old: str, new: Column | None) -> Table:
    """The contract with one column changed, or taken out."""
    columns = [new if column.name == old else column for column in SMALL.columns]
    return replace(SMALL, columns=tuple(column for column in columns if column))


def columns_of(con: duckdb.DuckDBPyConnection) -> list[tuple[str, str, bool]]:
    return con.execute(
        "select column_name, data_type, is_nullable from duckdb_columns() "
        "where table_name = 'small' order by column_index"
    ).fetchall()


def migrate(con: duckdb.DuckDBPyConnection, error: SchemaChangedError) -> None:
    """Do what the message says."""
    message = str(error)
    assert "\n" not in message
    statements = message.partition("migrate with: ")[2]
    assert statements
    with write(con):
        for statement in statements.split("; "):
            con.execute(statement)


def test_a_missing_table_is_made_as_its_contract_says(con: duckdb.DuckDBPyConnection) -> None:
    """Columns, nulls, comments and partitions; the second time there is nothing to do."""
    assert bootstrap(con, [SMALL]) == ["created raw.small"]
    assert columns_of(con) == [
        ("id", "BIGINT", False),
        ("day", "DATE", False),
        ("text", "VARCHAR", True),
        ("size", "BIGINT", True),
    ]
    comments = con.execute(
        "select comment from duckdb_columns() where table_name = 'small' order by column_index"
    ).fetchall()
    assert comments == [("Key.",), ("Day.",), ("It's text. [words]",), ("Size.",)]
    assert con.execute("select comment from duckdb_tables() where table_name = 'small'").fetchall() == [
        ("A small table.",)
    ]
    assert bootstrap(con, [SMALL]) == []


def test_files_are_parted_by_year(stored: duckdb.DuckDBPyConnection) -> None:
    """A day's replacement touches the files of its year only."""
    files = stored.execute("select distinct regexp_extract(filename, 'year=\\d+') from raw.small").fetchall()
    assert sorted(files) == [("year=2024",), ("year=2025",)]


def test_a_new_nullable_column_is_added(stored: duckdb.DuckDBPyConnection) -> None:
    """In the middle of the contract: it is stored at the end, and stored rows have null there."""
    new = Column("note", "VARCHAR", "A note.", nullable=True)
    wider = replace(SMALL, columns=(SMALL.columns[0], new, *SMALL.columns[1:]))
    assert bootstrap(stored, [wider]) == ["added note to raw.small"]
    assert columns_of(stored)[-1] == ("note", "VARCHAR", True)
    assert stored.execute("select id, note from raw.small order by id").fetchall() == [(1, None), (2, None)]
    assert bootstrap(stored, [wider]) == []


def test_a_new_column_that_must_not_be_null(stored: duckdb.DuckDBPyConnection) -> None:
    """No value can be guessed for stored rows; nothing is changed."""
    wider = replace(SMALL, columns=(*SMALL.columns, Column("must", "BIGINT", "Must.", nullable=False)))
    with pytest.raises(SchemaChangedError, match=r"gained must, which must not be null.*drop table raw\.small"):
        bootstrap(stored, [wider])
    assert len(columns_of(stored)) == 4


def test_a_column_that_the_contract_gave_up(stored: duckdb.DuckDBPyConnection) -> None:
    """Dropping data is the user's decision; the message's statement does it."""
    narrower = with_column("text", None)
    with pytest.raises(SchemaChangedError, match=r"stored column text that its contract lacks") as caught:
        bootstrap(stored, [narrower])
    migrate(stored, caught.value)
    assert bootstrap(stored, [narrower]) == []


@pytest.mark.parametrize(
    ("new_type", "values"), [("DOUBLE", [10.0, None]), ("VARCHAR", ["10", None]), ("INTEGER", [10, None])]
)
def test_a_changed_type(stored: duckdb.DuckDBPyConnection, new_type: str, values: list[object]) -> None:
    """Wider or not: the statements in the message carry the values over."""
    changed = with_column("size", Column("size", new_type, "Size.", nullable=True))
    with pytest.raises(
        SchemaChangedError, match=rf"raw\.small\.size is stored as BIGINT, its contract says {new_type}"
    ) as caught:
        bootstrap(stored, [changed])
    migrate(stored, caught.value)
    assert bootstrap(stored, [changed]) == []
    assert [value for (value,) in stored.execute("select size from raw.small order by id").fetchall()] == values


def test_a_column_that_may_be_null_now(stored: duckdb.DuckDBPyConnection) -> None:
    """The first null would fail the insert otherwise."""
    looser = with_column("id", Column("id", "BIGINT", "Key.", nullable=True))
    with pytest.raises(SchemaChangedError, match="stored as never null") as caught:
        bootstrap(stored, [looser])
    migrate(stored, caught.value)
    assert bootstrap(stored, [looser]) == []


def test_a_column_that_must_not_be_null_any_more(stored: duckdb.DuckDBPyConnection) -> None:
    """The migration is named; it works once no null is stored."""
    stricter = with_column("text", Column("text", "VARCHAR", "Text.", nullable=False))
    with pytest.raises(SchemaChangedError, match="stored as nullable") as caught:
        bootstrap(stored, [stricter])
    with write(stored):
        stored.execute("delete from raw.small where text is null")
    migrate(stored, caught.value)
    assert bootstrap(stored, [stricter]) == []


def test_one_wrong_table_stops_all(stored: duckdb.DuckDBPyConnection) -> None:
    """A plan is carried out whole or not at all."""
    other = replace(SMALL, name="other")
    with pytest.raises(SchemaChangedError):
        bootstrap(stored, [other, with_column("text", None)])
    assert stored.execute("select count(*) from duckdb_tables() where table_name = 'other'").fetchall() == [(0,)]


def test_names_that_ducklake_needs_are_refused(con: duckdb.DuckDBPyConnection) -> None:
    """A column ``snapshot_id`` would hide which commit a row came from."""
    table = replace(SMALL, columns=(*SMALL.columns, Column("snapshot_id", "BIGINT", "Mine.", nullable=True)))
    with pytest.raises(LakeError, match=r"contract of raw\.small has a column snapshot_id"):
        bootstrap(con, [table])


def test_a_view_is_made_once_and_changed_by_name(stored: duckdb.DuckDBPyConnection) -> None:
    """It has no rows of its own, is missing until it was made, and takes a new query without a new name."""
    view = replace(SMALL, schema="staging", name="small_view")
    assert missing_views(stored, [view]) == [view]
    origin = Origin("staging/small_view", "run", "v1", "")
    replace_view(stored, view, "select id from raw.small", origin)
    assert missing_views(stored, [view]) == []
    assert stored.execute("select id from small_view order by id").fetchall() == [(1,), (2,)]
    replace_view(stored, view, "select id * 10 as id from raw.small", origin)
    assert stored.execute("select id from staging.small_view order by id").fetchall() == [(10,), (20,)]
