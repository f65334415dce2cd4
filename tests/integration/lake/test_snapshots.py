"""Reading an older state, telling when a table last changed, and rows that belong to a name instead of a day."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from mts_dagster.errors import BadDataError, LakeError
from mts_dagster.lake import connect
from mts_dagster.lake.read import read_slices
from mts_dagster.lake.replace import replace_members
from mts_dagster.lake.snapshots import last_change, newest_snapshot, require_snapshot
from mts_dagster.lake.tables import bootstrap
from mts_dagster.lake.transaction import Origin
from mts_dagster.schemas import Column, Table
from mts_dagster.settings import load_settings

ORIGIN = Origin("test", "", "1", "")


def table(name: str) -> Table:
    """A table of results: a name, a number, a value."""
    columns = (
        Column("run_id", "VARCHAR", "Name.", nullable=False),
        Column("seq", "BIGINT", "Number.", nullable=False),
        Column("value", "DOUBLE", "Value.", nullable=True),
    )
    return Table("backtests", name, columns, ("run_id", "seq"), None)


ONE, TWO = table("one"), table("two")


def rows(run_id: str, *values: float) -> pd.DataFrame:
    return pd.DataFrame({"run_id": run_id, "seq": range(len(values)), "value": values})


@pytest.fixture
def con(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    opened = connect(read_only=False, settings=load_settings(home=tmp_path))
    bootstrap(opened, [ONE, TWO])
    yield opened
    opened.close()


def stored(con: duckdb.DuckDBPyConnection, entry: Table) -> list[tuple[str, float]]:
    return con.execute(f"select run_id, value from {entry.qualified} order by all").fetchall()


def test_rows_of_a_name_are_replaced_in_all_tables(con: duckdb.DuckDBPyConnection) -> None:
    """The other names stay; a name without new rows is emptied."""
    replace_members(con, [(ONE, rows("a", 1, 2)), (TWO, rows("a", 3))], "run_id", ["a"], ORIGIN)
    replace_members(con, [(ONE, rows("b", 4)), (TWO, rows("b", 5))], "run_id", ["b"], ORIGIN)
    replace_members(con, [(ONE, rows("a", 9)), (TWO, rows("a"))], "run_id", ["a"], ORIGIN)
    assert stored(con, ONE) == [("a", 9.0), ("b", 4.0)]
    assert stored(con, TWO) == [("b", 5.0)]


def test_it_is_one_transaction(con: duckdb.DuckDBPyConnection) -> None:
    """A failure in the second table leaves the first as it was."""
    replace_members(con, [(ONE, rows("a", 1))], "run_id", ["a"], ORIGIN)
    missing = table("never_made")
    with pytest.raises(duckdb.Error, match="never_made"):
        replace_members(con, [(ONE, rows("a", 2)), (missing, rows("a", 3))], "run_id", ["a"], ORIGIN)
    assert stored(con, ONE) == [("a", 1.0)]


def test_rows_of_another_name_are_refused(con: duckdb.DuckDBPyConnection) -> None:
    """They would never be replaced again."""
    with pytest.raises(BadDataError, match=r"rows of others than \['a'\]"):
        replace_members(con, [(ONE, rows("b", 1))], "run_id", ["a"], ORIGIN)


def test_a_key_twice_is_refused(con: duckdb.DuckDBPyConnection) -> None:
    """Nothing is stored."""
    double = pd.concat([rows("a", 1), rows("a", 2)])
    with pytest.raises(BadDataError, match="share their key"):
        replace_members(con, [(ONE, double)], "run_id", ["a"], ORIGIN)
    assert stored(con, ONE) == []


def test_an_older_state_can_be_read(con: duckdb.DuckDBPyConnection) -> None:
    """As it was, while the newest is another."""
    replace_members(con, [(ONE, rows("a", 1))], "run_id", ["a"], ORIGIN)
    before = newest_snapshot(con)
    replace_members(con, [(ONE, rows("a", 2))], "run_id", ["a"], ORIGIN)
    assert read_slices(con, ONE, snapshot=before)["value"].tolist() == [1.0]
    assert read_slices(con, ONE)["value"].tolist() == [2.0]


def test_a_table_changes_only_when_it_is_written(con: duckdb.DuckDBPyConnection) -> None:
    """Writing another table makes a snapshot, and changes nothing for whoever reads this one."""
    assert last_change(con, [ONE.qualified]) == 0
    replace_members(con, [(ONE, rows("a", 1))], "run_id", ["a"], ORIGIN)
    changed = last_change(con, [ONE.qualified])
    assert changed == newest_snapshot(con)
    replace_members(con, [(TWO, rows("a", 1))], "run_id", ["a"], ORIGIN)
    assert last_change(con, [ONE.qualified]) == changed < newest_snapshot(con)
    assert last_change(con, [ONE.qualified, TWO.qualified]) == newest_snapshot(con)


def test_deleting_rows_is_a_change(con: duckdb.DuckDBPyConnection) -> None:
    """Also when no new file comes of it."""
    replace_members(con, [(ONE, rows("a", 1, 2))], "run_id", ["a"], ORIGIN)
    before = last_change(con, [ONE.qualified])
    con.execute(f"delete from {ONE.qualified} where seq = 0")
    assert last_change(con, [ONE.qualified]) > before
    before = last_change(con, [ONE.qualified])
    con.execute(f"delete from {ONE.qualified}")
    assert last_change(con, [ONE.qualified]) > before


def test_a_state_that_never_was_is_refused(con: duckdb.DuckDBPyConnection) -> None:
    """In one line."""
    require_snapshot(con, newest_snapshot(con))
    with pytest.raises(LakeError, match="snapshot 999 of the lake has expired or never was"):
        require_snapshot(con, 999)
