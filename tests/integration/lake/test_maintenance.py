"""Housekeeping makes files fewer and forgets what is old; rows, pinned snapshots and open readers never notice."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from mts_dagster.errors import LakeError, LakeLockedError
from mts_dagster.lake import transact
from mts_dagster.lake.maintenance import (
    LakeSize,
    delete_orphans,
    delete_scheduled_files,
    expire_snapshots,
    lake_size,
    maintain,
    merge_files,
    rewrite_files,
)
from mts_dagster.lake.replace import Replaced
from mts_dagster.settings import Settings, load_settings

from .conftest import hear, rows_by_day, say

Put = Callable[..., Replaced]
Con = duckdb.DuckDBPyConnection
TABLE = ("raw", "price_points")


def snapshots(con: Con) -> list[int]:
    return [row[0] for row in con.execute("select snapshot_id from lake.snapshots() order by 1").fetchall()]


def parquet_files(settings: Settings) -> list[Path]:
    return sorted((settings.home / "lake").rglob("*.parquet"))


def much_later() -> datetime:
    """A moment at which everything stored now is old."""
    return datetime.now(UTC) + timedelta(days=365)


def test_small_files_become_one(con: Con, put: Put, reader: Con, settings: Settings) -> None:
    """Ten commits of a day are ten files, then one; a reader that was there all the time sees the same rows."""
    for day in range(10):
        put(day, float(day))
    before = rows_by_day(reader)
    report = maintain(settings)
    assert report.before == LakeSize(data_files=10, delete_files=0, bytes=report.before.bytes)
    assert report.files_merged == 10
    # the day files, and the table of origins that the first run made
    assert (report.after.data_files, report.after.delete_files) == (2, 0)
    assert rows_by_day(reader) == rows_by_day(con) == before


def test_files_with_deleted_rows_do_not_pile_up(put: Put, reader: Con, settings: Settings) -> None:
    """A trailing window of three days, written again each day, leaves a file with deletions a day."""
    for day in range(8):
        put(day, float(day), days=3)
    before = rows_by_day(reader)
    report = maintain(settings)
    assert report.before.delete_files == 7
    assert report.files_rewritten == 7
    assert report.after.delete_files == 0
    assert rows_by_day(reader) == before


def test_a_second_run_finds_nothing_to_do(put: Put, settings: Settings, con: Con) -> None:
    """No file is touched and no snapshot made, so running it often costs nothing."""
    for day in range(4):
        put(day, float(day))
    maintain(settings)
    newest, files = snapshots(con)[-1], parquet_files(settings)
    report = maintain(settings)
    assert (report.origins_kept, report.files_rewritten, report.files_merged) == (0, 0, 0)
    assert (report.snapshots_expired, report.files_deleted, report.orphans_deleted) == ((), 0, ())
    assert report.before == report.after
    assert (snapshots(con)[-1], parquet_files(settings)) == (newest, files)


def test_young_things_are_kept(put: Put, con: Con, settings: Settings) -> None:
    """With the default ages nothing of today is forgotten or deleted: a reader may be in the middle of it."""
    for price in range(3):
        put(0, float(price))
    all_snapshots, files = snapshots(con), set(parquet_files(settings))
    report = maintain(settings)
    assert (report.snapshots_expired, report.files_deleted, report.orphans_deleted) == ((), 0, ())
    assert set(all_snapshots) <= set(snapshots(con))
    assert files <= set(parquet_files(settings))


def test_old_snapshots_go_and_their_files_with_them(put: Put, con: Con, settings: Settings) -> None:
    """Five versions of a day: one remains, the newest, and one file of it."""
    for price in range(5):
        put(0, float(price))
    report = maintain(settings, now=much_later())
    assert len(snapshots(con)) == 1
    assert report.files_deleted >= 4
    assert rows_by_day(con) == {("bitcoin", 0): (24, 4.0)}
    assert len([path for path in parquet_files(settings) if "price_points" in str(path)]) == 1


def test_pinned_snapshots_can_still_be_travelled_to(put: Put, con: Con, settings: Settings) -> None:
    """What a backtest read is what it reads when it is reproduced, whatever maintenance and writers did since."""
    put(0, 1.0, days=5)
    put(1, 2.0)
    pinned = snapshots(con)[-1]
    put(0, 3.0, days=5)
    put(2, 4.0)
    then = rows_by_day(con, at=pinned)
    report = maintain(settings, now=much_later(), pinned=[pinned])
    assert report.snapshots_pinned == (pinned,)
    put(3, 5.0)
    maintain(settings, now=much_later(), pinned=[pinned])
    assert pinned in snapshots(con)
    assert rows_by_day(con, at=pinned) == then
    assert {price for _, price in then.values()} == {1.0, 2.0}


def test_a_reader_in_a_transaction_keeps_its_picture(put: Put, reader: Con, settings: Settings) -> None:
    """It was opened before the maintenance, which merges its files away and, with the default ages, deletes none."""
    for day in range(5):
        put(day, 1.0)
    reader.execute("begin")
    before = rows_by_day(reader)
    put(0, 2.0, days=5)
    maintain(settings)
    assert rows_by_day(reader) == before
    reader.execute("commit")
    assert {price for _, price in rows_by_day(reader).values()} == {2.0}


def test_the_newest_snapshot_never_expires(con: Con, put: Put) -> None:
    """However old it is, it is the lake."""
    put(0, 1.0)
    newest = snapshots(con)[-1]
    expired, pinned = expire_snapshots(con, much_later(), pinned=[newest, 9999])
    assert newest not in expired
    assert pinned == ()
    assert snapshots(con) == [newest]


def test_scheduled_files_wait_for_their_age(con: Con, put: Put, settings: Settings) -> None:
    """Expired a moment ago is too young to delete; counted from later it is not."""
    put(0, 1.0)
    put(0, 2.0)
    expire_snapshots(con, much_later())
    files = parquet_files(settings)
    for age in (timedelta(0), timedelta(hours=1), timedelta(days=1)):
        assert delete_scheduled_files(con, datetime.now(UTC) - age) == 0
    assert parquet_files(settings) == files
    assert delete_scheduled_files(con, much_later()) == 1
    assert len(parquet_files(settings)) == 1


def test_a_cleanup_that_was_killed_half_way_goes_on(con: Con, put: Put, settings: Settings) -> None:
    """Files that are gone already are no error; the rest follows."""
    for price in range(4):
        put(0, float(price))
    expire_snapshots(con, much_later())
    live = {path for (path,) in con.execute("select distinct filename from raw.price_points").fetchall()}
    next(path for path in parquet_files(settings) if str(path) not in live).unlink()
    assert delete_scheduled_files(con, much_later()) == 3
    assert {str(path) for path in parquet_files(settings)} == live


def leave_an_orphan(settings: Settings, name: str = "ducklake-01a1faff-3b10-7050-8637-fe8208cdceea.parquet") -> Path:
    """What a writer leaves that was killed after writing its file and before its commit."""
    orphan = next((settings.home / "lake").rglob("*.parquet")).with_name(name)
    orphan.write_bytes(b"half a file")
    return orphan


def test_orphans_are_deleted_and_named(con: Con, put: Put, settings: Settings) -> None:
    """Only the file that the catalog never knew, and only when it is old enough."""
    put(0, 1.0)
    put(0, 2.0)
    orphan = leave_an_orphan(settings)
    others = [path for path in parquet_files(settings) if path != orphan]
    assert delete_orphans(con, datetime.now(UTC) - timedelta(hours=1)) == ()
    assert orphan.exists()
    assert delete_orphans(con, much_later()) == (str(orphan),)
    assert parquet_files(settings) == others
    assert rows_by_day(con) == {("bitcoin", 0): (24, 2.0)}


def test_a_file_that_the_catalog_knows_stops_the_deletion(
    con: Con, put: Put, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should DuckLake ever list an active file as an orphan again, nothing at all is deleted."""
    put(0, 1.0)
    orphan = leave_an_orphan(settings)
    (active,) = (path for path in parquet_files(settings) if path != orphan)
    real = type(con).execute

    class Confused:
        """A connection whose dry run lists an active file, as a release of DuckLake once did."""

        def __getattr__(self, name: str) -> object:
            return getattr(con, name)

        def execute(self, query: str, *parameters: object) -> object:
            assert "delete_orphaned_files" not in query or "dry_run" in query, "files are being deleted"
            if "delete_orphaned_files" in query:
                return real(con, f"select '{orphan}' as path union all select '{active}'")
            return real(con, query, *parameters)

    monkeypatch.setattr("mts_dagster.lake.maintenance._step", lambda _con, _step, body: body(Confused()))
    with pytest.raises(LakeError, match="was about to be deleted as an orphan, but the catalog knows it") as caught:
        delete_orphans(con, much_later())
    assert str(active) in str(caught.value)
    assert orphan.exists()
    assert active.exists()


def test_a_strangers_file_stops_the_deletion(con: Con, put: Put, settings: Settings) -> None:
    """Somebody's own Parquet file below the data path is named, and no orphan is deleted."""
    put(0, 1.0)
    orphan = leave_an_orphan(settings)
    mine = leave_an_orphan(settings, "my-research.parquet")
    with pytest.raises(LakeError, match=r"my-research\.parquet lies below the lake's data path") as caught:
        delete_orphans(con, much_later())
    assert "\n" not in str(caught.value)
    assert orphan.exists()
    assert mine.exists()


def test_what_a_killed_writer_left_is_swept_up(
    con: Con, put: Put, start: Callable[..., subprocess.Popen[str]], settings: Settings
) -> None:
    """Killed between insert and commit: its file is there, the catalog does not know it, and maintenance deletes it."""
    put(0, 1.0)
    known = parquet_files(settings)
    victim = start("die_between.py", 2)
    hear(victim)
    say(victim)
    victim.communicate()
    left = [path for path in parquet_files(settings) if path not in known]
    assert left
    assert maintain(settings, now=much_later()).orphans_deleted == tuple(str(path) for path in left)
    assert rows_by_day(con) == {("bitcoin", 0): (24, 1.0)}


def test_maintenance_waits_for_a_writer(start: Callable[..., subprocess.Popen[str]], settings: Settings) -> None:
    """It takes the writer lock like everybody else, and says who has it."""
    holder = start("hold_lock.py")
    assert hear(holder) == "held"
    with pytest.raises(LakeLockedError, match=f"process {holder.pid} "):
        maintain(load_settings(**settings.model_dump() | {"lock_wait_s": 0.2}))


def test_a_copied_lake_keeps_house_for_itself(con: Con, put: Put, settings: Settings, tmp_path: Path) -> None:
    """Maintenance of a copy, e.g. a backup that was opened, deletes the copy's old files and none of the original's."""
    for price in range(3):
        put(0, float(price))
    con.close()
    copy = load_settings(home=tmp_path / "copy", catalog="", data_path="")
    shutil.copytree(settings.home, copy.home)
    files = parquet_files(settings)
    assert maintain(copy, now=much_later()).files_deleted >= 2
    assert parquet_files(settings) == files


@dataclass
class Model:
    """What the lake should hold: written beside it by the simplest means."""

    days: dict[tuple[str, int], float] = field(default_factory=dict)
    versions: dict[int, dict[tuple[str, int], tuple[int, float]]] = field(default_factory=dict)

    def put(self, coin: str, day: int, days: int, price: float) -> None:
        self.days.update({(coin, day + i): price for i in range(days)})

    def picture(self) -> dict[tuple[str, int], tuple[int, float]]:
        return {key: (24, price) for key, price in self.days.items()}


@pytest.mark.parametrize("seed", range(4))
def test_any_order_of_steps_keeps_rows_and_time_travel(con: Con, put: Put, seed: int) -> None:
    """Replacements, rewrites, merges, expiry and cleanup in random order, around the turn of a year and over two coins.

    After each step the newest rows, and the rows of every snapshot that was not expired, are what they were.
    """
    chance = random.Random(seed)  # noqa: S311 - a repeatable order, no secret
    model = Model()

    def replace_days() -> None:
        day, days = chance.randrange(-30, 30), chance.choice([1, 1, 2, 3, 20])
        coin, price = chance.choice(["bitcoin", "ethereum"]), float(len(model.versions) + 1)
        put(day, price, days=days, coin=coin)
        model.put(coin, day, days, price)

    def expire() -> None:
        gone, _ = expire_snapshots(con, much_later(), [v for v in model.versions if chance.random() < 0.5])
        for version in gone:
            model.versions.pop(version, None)

    steps: list[tuple[Callable[[], object], int]] = [
        (replace_days, 10),
        (lambda: transact(con, lambda con: merge_files(con, *TABLE)), 2),
        (lambda: transact(con, lambda con: rewrite_files(con, *TABLE)), 2),
        (expire, 2),
        (lambda: delete_scheduled_files(con, much_later()), 2),
        (lambda: delete_orphans(con, much_later()), 1),
    ]
    for _ in range(25):
        chance.choices([step for step, _ in steps], [weight for _, weight in steps])[0]()
        assert rows_by_day(con) == model.picture()
        for version, picture in model.versions.items():
            assert rows_by_day(con, at=version) == picture
        model.versions[snapshots(con)[-1]] = model.picture()
    assert lake_size(con).data_files >= 1
