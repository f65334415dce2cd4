"""Opening the lake: what a connection promises, and what a user's mistake looks like."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from mts_dagster.errors import ConfigError, LakeError, LakeNotFoundError, MtsError
from mts_dagster.lake import connect, write
from mts_dagster.lake.connection import SCHEMAS, address_of
from mts_dagster.lake.replace import Replaced, replace_frame
from mts_dagster.lake.shared import session
from mts_dagster.lake.transaction import Origin
from mts_dagster.schemas import Table
from mts_dagster.settings import Settings, load_settings

from .conftest import day_slice, environment, price_frame, rows_by_day


def lake_at(home: Path, **overrides: str) -> Settings:
    return load_settings(home=home, **{"catalog": "", "data_path": "", **overrides})


def one_line(error: pytest.ExceptionInfo[MtsError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_missing_lake_says_what_to_do(settings: Settings) -> None:
    """A reader makes no lake, and no folder either."""
    with pytest.raises(LakeNotFoundError) as caught:
        connect(settings=settings)
    assert one_line(caught) == (
        f"no lake at sqlite:{settings.home}/lake.sqlite yet: run `mts collect` to fill one, or set MTS_HOME to where "
        "yours is"
    )
    assert not settings.home.exists()


def test_a_new_lake_is_furnished(con: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """All schemas are there in one snapshot, small writes never go into the catalog, no draft is left behind."""
    schemas = con.execute("select schema_name from duckdb_schemas() where database_name = 'lake'").fetchall()
    assert {name for (name,) in schemas} == {"main", *SCHEMAS}
    options = dict(con.execute("select option_name, value from lake.options()").fetchall())
    assert options["data_inlining_row_limit"] == "0"
    assert [path.name for path in settings.home.glob("*.new*")] == []


def test_even_one_row_becomes_a_file(con: duckdb.DuckDBPyConnection, put: Callable[..., Replaced]) -> None:
    """Inlined rows have had lost-delete bugs; one row and one deletion are files like any others."""
    put(0, 1.0)
    with write(con):
        con.execute("delete from price_points where hour(sampled_at) = 3")
    with write(con):
        con.execute("insert into price_points select * replace (price_usd + 1 as price_usd) from price_points limit 1")
    files = con.execute("select file_count, delete_file_count from ducklake_table_info('lake')").fetchall()
    assert files == [(2, 1)]


def test_a_draft_of_a_killed_creator_is_no_obstacle(settings: Settings) -> None:
    """Whoever died while making the lake left a file under another name; the next one starts afresh."""
    settings.home.mkdir()
    (settings.home / "lake.sqlite.new").write_text("half a catalog")
    (settings.home / "lake.sqlite.new-wal").write_text("its log")
    connect(read_only=False, settings=settings).close()
    connect(settings=settings).close()
    assert list(settings.home.glob("*.new*")) == []


def test_names_work_with_and_without_schema_in_utc(reader: duckdb.DuckDBPyConnection) -> None:
    """What a notebook types first just works."""
    assert reader.execute("select count(*) from price_points").fetchall() == [(0,)]
    assert reader.execute("select count(*) from raw.price_points").fetchall() == [(0,)]
    assert reader.execute("select current_setting('TimeZone')").fetchall() == [("UTC",)]


def test_a_notebook_sees_each_new_state(reader: duckdb.DuckDBPyConnection, put: Callable[..., Replaced]) -> None:
    """Opened before anything was written, never opened again, always up to date."""
    assert rows_by_day(reader) == {}
    for price in (1.0, 2.0, 3.0):
        put(0, price)
        assert rows_by_day(reader) == {("bitcoin", 0): (24, price)}


def test_an_open_read_transaction_does_not_stop_a_writer(
    reader: duckdb.DuckDBPyConnection, put: Callable[..., Replaced]
) -> None:
    """A reader in a transaction keeps its picture, and the writer does not wait for it."""
    put(0, 1.0)
    reader.execute("begin")
    assert rows_by_day(reader) == {("bitcoin", 0): (24, 1.0)}
    put(0, 2.0)
    assert rows_by_day(reader) == {("bitcoin", 0): (24, 1.0)}
    reader.execute("commit")
    assert rows_by_day(reader) == {("bitcoin", 0): (24, 2.0)}


def test_a_reader_cannot_write(reader: duckdb.DuckDBPyConnection) -> None:
    """Neither by SQL nor through ``write``, which tells how to do it."""
    with pytest.raises(duckdb.Error, match="read-only"):
        reader.execute("delete from price_points")
    with pytest.raises(LakeError, match=r"read-only; open one with connect\(read_only=False\)"), write(reader):
        pytest.fail("the body must not run")


def test_a_foreign_connection_cannot_write() -> None:
    """``write`` needs a connection that knows its lake's lock."""
    con = duckdb.connect()
    with pytest.raises(LakeError, match="was not opened by mts_dagster"), write(con):
        pytest.fail("the body must not run")
    con.close()


def test_two_instances_never_meet(settings: Settings, put: Callable[..., Replaced], tmp_path: Path) -> None:
    """Another MTS_HOME is another lake."""
    put(0, 1.0)
    other = lake_at(tmp_path / "other")
    con = connect(read_only=False, settings=other)
    assert con.execute("select count(*) from duckdb_tables() where database_name = 'lake'").fetchall() == [(0,)]
    con.close()
    files = [path for path in (tmp_path / "other").rglob("*") if path.suffix == ".parquet"]
    assert files == []
    assert address_of(settings).lock_place != address_of(other).lock_place


def test_a_folder_with_a_quote_and_a_space(tmp_path: Path) -> None:
    """Paths are quoted on their way into SQL."""
    settings = lake_at(tmp_path / "it's a home")
    con = connect(read_only=False, settings=settings)
    with write(con):
        con.execute("create table raw.t as select 1 as a")
    assert con.execute("from raw.t").fetchall() == [(1,)]
    con.close()


def test_a_relative_data_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook in another folder finds the files."""
    monkeypatch.chdir(tmp_path)
    assert address_of(lake_at(tmp_path, data_path="files")).data_path == f"{tmp_path}/files/"


@pytest.mark.parametrize("catalog", ["duckdb:lake.db", "sqlite:", "lake.sqlite", "mysql:host=db"])
@pytest.mark.parametrize("read_only", [True, False])
def test_a_wrong_catalog_names_the_allowed_ones(tmp_path: Path, catalog: str, read_only: bool) -> None:
    """The message names the setting, its two forms and what was given."""
    with pytest.raises(ConfigError) as caught:
        connect(read_only=read_only, settings=lake_at(tmp_path, catalog=catalog))
    assert one_line(caught) == (f"setting MTS_CATALOG: expected sqlite:FILE or postgres:CONNINFO, got {catalog!r}")


def test_a_catalog_that_is_no_database(tmp_path: Path) -> None:
    """A file of something else is named, and left alone."""
    file = tmp_path / "notes.txt"
    file.write_text("not a database, but long enough to have a header of one. " * 20)
    before = file.read_bytes()
    for read_only in (True, False):
        with pytest.raises(LakeError, match="cannot attach the lake") as caught:
            connect(read_only=read_only, settings=lake_at(tmp_path, catalog=f"sqlite:{file}"))
        assert str(file) in one_line(caught)
    assert file.read_bytes() == before


def test_a_database_without_a_lake_is_no_lake(tmp_path: Path) -> None:
    """An empty file where the catalog should be reads as: nothing here yet."""
    (tmp_path / "lake.sqlite").touch()
    with pytest.raises(LakeNotFoundError, match="no lake at"):
        connect(settings=lake_at(tmp_path))


def test_a_home_below_a_file_cannot_be_made(tmp_path: Path) -> None:
    """Also for root: a folder cannot be made there, and the message names setting and folder."""
    (tmp_path / "file").touch()
    with pytest.raises(LakeError) as caught:
        connect(read_only=False, settings=lake_at(tmp_path / "file" / "home"))
    assert one_line(caught) == (
        f"cannot create {tmp_path}/file/home: Not a directory; set MTS_HOME to a folder you own"
    )


def test_a_home_without_write_permission(tmp_path: Path) -> None:
    """A user who may only look gets one line; in a process of its own, because root may write everywhere."""
    home = tmp_path / "home"
    home.mkdir(mode=0o555)
    script = (
        "import os, sys\n"
        "from mts_dagster.lake import connect\n"
        "from mts_dagster.errors import LakeError\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        "try: connect(read_only=False)\n"
        "except LakeError as error: print(error)\n"
    )
    # pytest keeps its folders to itself; what lies above them is not ours to change.
    for folder in (tmp_path, *(parent for parent in tmp_path.parents if "pytest-of-" in str(parent))):
        folder.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(lake_at(home)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout == f"cannot create {home}/lake: Permission denied; set MTS_HOME to a folder you own\n"


def test_an_object_store_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and endpoint come from the environment; the error is one line and names the address that was tried.

    The endpoint is not Amazon's, so the bucket is named in the path. Nobody listens there.
    """
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "eu-central-1",
        "DUCKDB_S3_ENDPOINT": "127.0.0.1:1",
        "DUCKDB_S3_USE_SSL": "false",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LakeError, match="cannot attach the lake") as caught:
        connect(read_only=False, settings=lake_at(tmp_path / "home", data_path="s3://bucket/mts/"))
    assert "http://127.0.0.1:1/bucket/" in one_line(caught)
    assert not (tmp_path / "home" / "lake.sqlite").exists()


def test_files_that_cannot_be_written(con: duckdb.DuckDBPyConnection, prices: Table, settings: Settings) -> None:
    """A folder that vanished, a full disk: one line, and the lake goes on where it was."""
    (settings.home / "lake" / "raw").write_text("a file where a folder must be")
    with pytest.raises(
        LakeError, match=r"writing failed, nothing was stored: IO Error: .*lake/raw/price_points"
    ) as caught:
        replace_frame(con, prices, [day_slice(0)], price_frame(0, 1.0), Origin("a", "", "", ""))
    one_line(caught)
    (settings.home / "lake" / "raw").unlink()
    assert replace_frame(con, prices, [day_slice(0)], price_frame(0, 1.0), Origin("a", "", "", "")).rows_inserted == 24


def test_two_lakes_do_not_share_a_data_path(settings: Settings, put: Callable[..., Replaced], tmp_path: Path) -> None:
    """The second one would delete the first one's files as orphans one day; it is not even made."""
    put(0, 1.0)
    intruder = lake_at(tmp_path / "intruder", data_path=settings.data_path)
    with pytest.raises(LakeError, match=r"the files below .*/home/lake/ are another lake's") as caught:
        connect(read_only=False, settings=intruder)
    assert "MTS_DATA_PATH" in one_line(caught)
    assert not (tmp_path / "intruder" / "lake.sqlite").exists()


def test_a_wrong_data_path_is_noticed_by_a_writer(
    settings: Settings, con: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """An existing lake is pointed at the folder of another one."""
    assert con.execute("select 1").fetchone()
    other = lake_at(tmp_path / "other")
    connect(read_only=False, settings=other).close()
    with pytest.raises(LakeError, match="are another lake's"):
        connect(read_only=False, settings=lake_at(settings.home, data_path=other.data_path))


def test_a_session_is_the_same_lake(settings: Settings, put: Callable[..., Replaced]) -> None:
    """Short sessions see the newest state, in UTC, with names without schema, and are closed behind the body."""
    put(0, 1.0)
    with session(settings) as first:
        assert rows_by_day(first) == {("bitcoin", 0): (24, 1.0)}
        assert first.execute("select current_setting('TimeZone')").fetchall() == [("UTC",)]
    with pytest.raises(duckdb.ConnectionException):
        first.execute("select 1")
    put(0, 2.0)
    with session(settings) as second:
        assert rows_by_day(second) == {("bitcoin", 0): (24, 2.0)}


def test_sessions_have_their_own_transactions(settings: Settings, put: Callable[..., Replaced]) -> None:
    """What one session has not committed, and its temporary tables, no other session of the process sees."""
    put(0, 1.0)
    with session(settings, read_only=False) as one, session(settings, read_only=False) as other:
        one.execute("create temp table mine as select 1 as a")
        with write(one):
            one.execute("update price_points set price_usd = 2")
            assert rows_by_day(other) == {("bitcoin", 0): (24, 1.0)}
        assert rows_by_day(other) == {("bitcoin", 0): (24, 2.0)}
        with pytest.raises(duckdb.CatalogException):
            other.execute("from mine")


def test_a_copied_home_reads_and_writes_its_own_files(
    con: duckdb.DuckDBPyConnection, put: Callable[..., Replaced], settings: Settings, prices: Table, tmp_path: Path
) -> None:
    """A copy of a home, such as a backup, stands for itself: it never reads or writes where it came from."""
    put(0, 1.0)
    con.close()
    copy = lake_at(tmp_path / "copy")
    shutil.copytree(settings.home, copy.home)
    before = sorted(settings.home.rglob("*.parquet"))
    with session(copy, read_only=False) as writer:
        replace_frame(
            writer, prices, [day_slice(1)], price_frame(1, 2.0), Origin("raw/price_points", "run", "v1", "bitcoin 1")
        )
    with session(copy) as reader:
        files = reader.execute("select distinct filename from raw.price_points").fetchall()
        assert rows_by_day(reader) == {("bitcoin", 0): (24, 1.0), ("bitcoin", 1): (24, 2.0)}
    assert all(name.startswith(str(copy.home)) for (name,) in files)
    assert sorted(settings.home.rglob("*.parquet")) == before
