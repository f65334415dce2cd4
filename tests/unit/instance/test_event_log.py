"""A batch leaves behind what the same events stored one by one leave behind, or nothing."""

from __future__ import annotations

import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy.exc
from dagster._core.events import DagsterEventBatchMetadata
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log import SqliteEventLogStorage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mts_dagster.instance.event_log import BatchingEventLogStorage, BatchingSqliteStorage

Make = Callable[..., EventLogEntry]
Rows = dict[str, dict[str, list[tuple[Any, ...]]]]

KINDS = ("planned", "materialized", "observed", "check planned", "log line", "step started", "run started")
STORED_ONE_BY_ONE = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.sampled_from(["bars", "macro"]),
        st.sampled_from([None, "2024-01-01", "2024-01-02"]),
        st.sampled_from(["r1", "r2"]),
    ),
    min_size=1,
    max_size=30,
)


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[BatchingEventLogStorage]:
    """Our event log in an empty folder."""
    storage = BatchingEventLogStorage(str(tmp_path / "ours"))
    yield storage
    storage.dispose()


def refuse(folder: Path, partition: str) -> None:
    """Make the index refuse one partition: a fault in the middle of a batch, in SQLite itself."""
    with sqlite3.connect(folder / "index.db") as con:
        con.execute(
            f"CREATE TRIGGER refuse BEFORE INSERT ON event_logs WHEN NEW.partition = '{partition}' "
            "BEGIN SELECT RAISE(ABORT, 'refused by the test'); END"
        )
    con.close()


def accept(folder: Path) -> None:
    """Take the fault away."""
    with sqlite3.connect(folder / "index.db") as con:
        con.execute("DROP TRIGGER refuse")
    con.close()


def both_ways(
    factory: Callable[[], Make], on_disk: Callable[[Path], Rows], events: list[tuple[Any, ...]], batch: int
) -> tuple[Rows, Rows]:
    """Rows after storing equal events one by one in the stock class, and in batches in ours."""
    with tempfile.TemporaryDirectory() as folder:
        stock_folder, our_folder = Path(folder, "stock"), Path(folder, "ours")
        stock, ours = SqliteEventLogStorage(str(stock_folder)), BatchingEventLogStorage(str(our_folder))
        make = factory()
        for kind in events:
            stock.store_event(make(*kind))
        make = factory()
        built = [make(*kind) for kind in events]
        for first in range(0, len(built), batch):
            ours.store_event_batch(built[first : first + batch])
        return on_disk(stock_folder), on_disk(our_folder)


@given(events=STORED_ONE_BY_ONE, batch=st.sampled_from([3, 100]))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_batches_of_any_mixture_leave_the_rows_of_the_stock_class(
    factory: Callable[[], Make], on_disk: Callable[[Path], Rows], events: list[tuple[Any, ...]], batch: int
) -> None:
    """Kinds, assets, partitions and runs in any order: all tables of all files are equal, ids included."""
    stock, ours = both_ways(factory, on_disk, events, batch)
    assert ours == stock


def test_a_range_run_leaves_the_rows_of_the_stock_class(
    factory: Callable[[], Make], on_disk: Callable[[Path], Rows]
) -> None:
    """All planned events of two assets, then all materializations, as Dagster stores them."""
    days = [f"2024-01-{day:02d}" for day in range(1, 31)]
    events = [
        (kind, asset, day, "r1") for kind in ("planned", "materialized") for asset in ("bars", "macro") for day in days
    ]
    stock, ours = both_ways(factory, on_disk, events, batch=60)
    assert ours == stock
    assert len(ours["index.db"]["event_logs"]) == 120
    assert len(ours["index.db"]["asset_event_tags"]) == 120  # two of the three tags of each materialization
    assert len(ours["index.db"]["asset_keys"]) == 2


def test_the_last_event_of_an_asset_decides_its_row(
    factory: Callable[[], Make], on_disk: Callable[[Path], Rows]
) -> None:
    """An asset planned between two materializations was last touched by the second, at 3 ms, not by the plan."""
    kinds = ("materialized", "planned", "materialized")
    stock, ours = both_ways(factory, on_disk, [(kind, "bars", "2024-01-01", "r1") for kind in kinds], batch=3)
    assert ours["index.db"]["asset_keys"] == stock["index.db"]["asset_keys"]
    assert "2023-11-14 22:13:20.003000" in ours["index.db"]["asset_keys"][0]


def test_a_check_planned_and_evaluated_in_one_batch_is_one_execution(
    factory: Callable[[], Make], on_disk: Callable[[Path], Rows]
) -> None:
    """The evaluation finds the row that the same, still open transaction planned."""
    events = [("check planned", "bars", None, "r1"), ("check evaluated", "bars", None, "r1")]
    stock, ours = both_ways(factory, on_disk, events, batch=2)
    assert ours == stock
    assert len(ours["index.db"]["asset_check_executions"]) == 1


def test_an_error_leaves_nothing_of_the_batch(
    storage: BatchingEventLogStorage, tmp_path: Path, make: Make, on_disk: Callable[[Path], Rows]
) -> None:
    """The third of four events fails: neither the run's file nor the index holds any of them."""
    storage.store_event_batch([make("planned", partition="2024-01-01") for _ in range(2)])
    before = on_disk(tmp_path / "ours")
    refuse(tmp_path / "ours", "2024-01-03")
    batch = [make("materialized", partition=f"2024-01-0{day}") for day in (1, 2, 3, 4)]
    with pytest.raises(sqlalchemy.exc.IntegrityError, match="refused by the test"):
        storage.store_event_batch(batch)
    assert on_disk(tmp_path / "ours") == before


def test_after_an_error_the_storage_goes_on(
    storage: BatchingEventLogStorage, tmp_path: Path, make: Make, on_disk: Callable[[Path], Rows]
) -> None:
    """The failed batch holds no lock and leaves no half-open transaction for the next one to join."""
    batch = [make("materialized", partition=f"2024-01-0{day}") for day in (1, 2, 3)]
    refuse_at = tmp_path / "ours"
    storage.store_event(make("run started"))
    refuse(refuse_at, "2024-01-03")
    with pytest.raises(sqlalchemy.exc.IntegrityError):
        storage.store_event_batch(batch)
    accept(refuse_at)
    storage.store_event_batch(batch)
    assert len(on_disk(refuse_at)["index.db"]["event_logs"]) == 4


def test_the_index_is_joined_only_by_the_thread_that_writes_the_batch(
    storage: BatchingEventLogStorage, make: Make
) -> None:
    """A reader in another thread waits for the batch and then sees all of it, never the open transaction."""
    batch = [make("materialized", partition=f"2024-01-{day:02d}") for day in range(1, 21)]
    storage.store_event(make("run started"))
    seen: list[int] = []
    inside = threading.Event()

    def read() -> None:
        inside.wait(10)
        seen.append(len(storage.get_materialized_partitions(dg.AssetKey("bars"))))

    reader = threading.Thread(target=read)
    reader.start()
    original = storage.store_asset_event_tags

    def reached(events: Sequence[EventLogEntry], event_ids: Sequence[int]) -> None:
        inside.set()
        original(events, event_ids)

    storage.store_asset_event_tags = reached  # type: ignore[method-assign]
    storage.store_event_batch(batch)
    reader.join(10)
    assert seen == [20]


@pytest.mark.parametrize("batched", [False, True], ids=["stock", "ours"])
def test_a_watcher_of_a_run_sees_its_events(tmp_path: Path, make: Make, batched: bool) -> None:
    """``watch`` reports the events of a batch as it reports single ones in the stock class."""
    cls = BatchingEventLogStorage if batched else SqliteEventLogStorage
    storage = cls(str(tmp_path / "watched"))
    events = [make("materialized", partition=f"2024-01-{day:02d}") for day in range(1, 11)]
    seen: list[str] = []
    complete = threading.Event()

    def callback(event: EventLogEntry, _cursor: str) -> None:
        seen.append(str(event.get_dagster_event().partition))
        if len(seen) == len(events):
            complete.set()

    storage.watch("r1", None, callback)
    try:
        if batched:
            storage.store_event_batch(events)
        else:
            for event in events:
                storage.store_event(event)
        assert complete.wait(20)
    finally:
        storage.end_watch("r1", callback)
        storage.dispose()
    assert seen == [f"2024-01-{day:02d}" for day in range(1, 11)]


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """An instance on our storage that hands over batches of up to 100 events."""
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "100")
    tmp_path.joinpath("dagster.yaml").write_text(
        "storage:\n  custom:\n    module: mts_dagster.instance.event_log\n    class: BatchingSqliteStorage\n"
        f"    config: {{base_dir: '{tmp_path}'}}\ntelemetry: {{enabled: false}}\n",
        encoding="utf-8",
    )
    with dg.DagsterInstance.from_config(str(tmp_path)) as opened:
        yield opened


def hand_over(instance: dg.DagsterInstance, batch: list[EventLogEntry]) -> None:
    """Report events as Dagster does: one by one, marked as one batch."""
    for at, event in enumerate(batch, start=1):
        instance.handle_new_event(event, batch_metadata=DagsterEventBatchMetadata("b", at == len(batch)))


def test_subscribers_hear_every_event_of_a_batch(instance: dg.DagsterInstance, make: Make) -> None:
    """Listeners of a run are called once for each event."""
    heard: list[str] = []
    instance.add_event_listener("r1", lambda event: heard.append(event.get_dagster_event().partition))
    hand_over(instance, [make("materialized", partition=f"2024-01-0{day}") for day in (1, 2, 3)])
    assert heard == ["2024-01-01", "2024-01-02", "2024-01-03"]


def test_dagster_stores_a_failed_batch_one_by_one(
    instance: dg.DagsterInstance,
    tmp_path: Path,
    make: Make,
    on_disk: Callable[[Path], Rows],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Dagster's fallback finds nothing of the batch: the two events before the bad one are stored exactly once."""
    runs = tmp_path / "history" / "runs"
    refuse(runs, "2024-01-03")
    with pytest.raises(sqlalchemy.exc.IntegrityError, match="refused by the test"):
        hand_over(instance, [make("materialized", partition=f"2024-01-0{day}") for day in (1, 2, 3, 4)])
    assert "Falling back to storing multiple single-event" in capsys.readouterr().err
    assert instance.get_materialized_partitions(dg.AssetKey("bars")) == {"2024-01-01", "2024-01-02"}
    assert len(on_disk(runs)["index.db"]["event_logs"]) == 2


def test_the_setting_in_dagster_yaml_reaches_the_event_log_and_keeps_the_stock_layout(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """Our storage takes the place of the stock one, in the files where a stock instance would look."""
    assert isinstance(instance.event_log_storage, BatchingEventLogStorage)
    assert instance.event_log_storage.path_for_shard("r1") == str(tmp_path / "history" / "runs" / "r1.db")
    assert tmp_path.joinpath("history", "runs", "index.db").is_file()


def test_runs_find_their_instance_through_its_reference(instance: dg.DagsterInstance) -> None:
    """A run's process rebuilds the instance from the reference that the daemon hands it."""
    with dg.DagsterInstance.from_ref(instance.get_ref()) as again:
        assert isinstance(again.event_log_storage, BatchingEventLogStorage)


def test_no_connection_checkpoints_beside_others(storage: BatchingEventLogStorage) -> None:
    """Automatic checkpoints are off on every connection to the index and to a run's file."""
    with storage.index_connection() as connection:
        assert connection.exec_driver_sql("PRAGMA wal_autocheckpoint").scalar() == 0
    with storage.run_connection("r1") as connection:
        assert connection.exec_driver_sql("PRAGMA wal_autocheckpoint").scalar() == 0


def test_a_large_batch_stays_in_the_wal_while_another_connection_is_open(
    storage: BatchingEventLogStorage, tmp_path: Path, make: Make
) -> None:
    """The database file does not change beside an open connection; the last one to close brings it up to date."""
    index = tmp_path / "ours" / "index.db"
    other = sqlite3.connect(index)
    other.execute("SELECT count(*) FROM event_logs").fetchone()
    before = index.stat().st_size
    storage.store_event_batch([make("materialized", partition=f"p{n}") for n in range(5000)])
    assert index.with_name("index.db-wal").stat().st_size > 1000 * 4096
    assert index.stat().st_size == before
    other.close()
    assert index.stat().st_size > 1000 * 4096
    assert not index.with_name("index.db-wal").exists()


def test_the_storage_class_builds_itself_from_its_setting(tmp_path: Path) -> None:
    """The stock method would build the stock class whatever the setting says."""
    built = BatchingSqliteStorage.from_config_value(None, {"base_dir": str(tmp_path)})
    assert type(built) is BatchingSqliteStorage
    assert isinstance(built.event_log_storage, BatchingEventLogStorage)
    built.dispose()
