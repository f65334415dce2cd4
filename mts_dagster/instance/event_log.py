"""Dagster's SQLite event log, with batches of events written in one transaction instead of one by one.

What belongs here: the storage classes that ``dagster.yaml`` names, and nothing that other modules import. The daemon,
the webserver and every run load this module, so it imports no more than Dagster itself has loaded.

A run over a range of partitions stores two events for every partition (planned, materialized). Dagster hands them over
in batches once ``DAGSTER_EVENT_BATCH_SIZE`` is set, but its SQLite storage takes a batch apart again and spends on each
event three or four new connections, the same statements compiled anew, and synced commits in two files: the shard of
the run, and the index across runs. ``BatchingEventLogStorage.store_event_batch`` leaves the same rows behind in one
transaction over both files. All else is Dagster's own code.

Atomicity: an error leaves nothing of the batch behind, in neither file; Dagster then stores its events one by one. A
process killed at any moment leaves each file with all of the batch or nothing of it. (SQLite commits attached files in
WAL mode one after the other: a kill between the two leaves the batch in one of them. The stock class has the same gap,
once for every event.)

Checkpoints: Dagster keeps its SQLite files in WAL mode. SQLite from 3.7.0 to 3.51.2, which is what most Pythons bring,
has the "WAL-reset" bug: when a checkpoint starts just after another one was complete, while a third connection commits
and begins the WAL anew, committed pages can get lost (https://www.sqlite.org/wal.html#walresetbug). That takes
checkpoints beside open connections. Such are the automatic ones, which follow a commit that leaves 1,000 pages or more
in the WAL: hardly ever one of Dagster's small commits, but every large batch. Our connections therefore switch them
off. What is left is the checkpoint by the last connection that closes: it holds the file exclusively, so nothing can
race with it, and it comes all the time, since Dagster opens a connection for each call. The run and schedule databases
stay with Dagster's classes, whose small commits seldom reach the automatic checkpoint; that rest of the risk is
accepted. Who wants none of it takes a Python with SQLite 3.51.3 or newer, or Postgres as Dagster's storage.

Private names of Dagster used here; a unit test fails when an upgrade changes one of them or the code that
``store_event_batch`` stands for:

- ``dagster._core.storage.sqlite_storage.DagsterSqliteStorage``: the only storage that hands a custom event log to an
  instance by one relocatable setting; its attribute ``_event_log_storage`` is what we exchange.
- ``dagster._core.storage.event_log``: ``SqliteEventLogStorage`` to derive from, as Dagster's manual names it for
  ``dagster.yaml``, and ``SqlEventLogStorageTable``, the table to write.
- ``SqliteEventLogStorage._event_to_row``: the one definition of an event's row.
- ``SqliteEventLogStorage._connect``, ``_db_lock``, ``_initdb``, ``_initialized_dbs``, ``conn_string_for_shard`` and
  ``SQLITE_BUSY_TIMEOUT_SECONDS``: how a file is opened; ours does the same on an engine that is kept, which halves the
  time of storing and reading an event.
- ``SqlEventLogStorage._check_partitions_table``: looks for the table of dynamic partitions before each question for
  them, which a range of days below assets of coins asks once for every day; we look until it was seen once.
- ``dagster._core.events``: ``ASSET_EVENTS``, ``ASSET_CHECK_EVENTS``, ``EVENT_TYPE_TO_PIPELINE_RUN_STATUS``: which
  events the index mirrors.
- ``dagster._core.events.log.EventLogEntry``, ``dagster._serdes.ConfigurableClassData``: types of arguments.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from dagster._core.events import ASSET_CHECK_EVENTS, ASSET_EVENTS, EVENT_TYPE_TO_PIPELINE_RUN_STATUS
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log import SqlEventLogStorageTable, SqliteEventLogStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData
from sqlalchemy.pool import NullPool

MIRRORED_EVENTS = frozenset({*ASSET_EVENTS, *ASSET_CHECK_EVENTS, *EVENT_TYPE_TO_PIPELINE_RUN_STATUS})
MOST_ENGINES = 8
INTO_RUN_SHARD = {"schema_translate_map": {None: "run_shard"}}


class BatchingEventLogStorage(SqliteEventLogStorage):
    """Dagster's SQLite event log whose batches are one transaction."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._batch = threading.local()  # .connection: this thread's open transaction on the index and a run's shard
        self._engines: OrderedDict[str, sa.Engine] = OrderedDict()  # of the files used last
        self._has_partitions_table = False
        super().__init__(base_dir, inst_data)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store events of one run, all or none; afterwards every table holds what ``store_event`` on each had left.

        Dagster builds batches of one run only. One that is not takes the stock way, event by event.
        """
        runs = {event.run_id for event in events}
        if len(runs) != 1:
            super().store_event_batch(events)
            return
        rows = [self._event_to_row(event) for event in events]
        mirrored = [at for at, event in enumerate(events) if _kind(event) in MIRRORED_EVENTS]
        with self._transaction(runs.pop()) as connection:
            connection.execute(sa.insert(SqlEventLogStorageTable), rows, execution_options=INTO_RUN_SHARD)
            if mirrored:
                ids = _insert_into_index(connection, [rows[at] for at in mirrored])
                self._index([events[at] for at in mirrored], ids)

    def _index(self, events: Sequence[EventLogEntry], ids: Sequence[int]) -> None:
        """Do for mirrored events what Dagster does for each, by its own methods, in the open transaction."""
        assets = [(event, at) for event, at in zip(events, ids, strict=True) if _kind(event) in ASSET_EVENTS]
        if assets:
            self.store_asset_event_tags([event for event, _ in assets], [at for _, at in assets])
        for event, at in _deciding(assets):
            self.store_asset_event(event, at)
        for event, at in zip(events, ids, strict=True):
            if _kind(event) in ASSET_CHECK_EVENTS:
                self.store_asset_check_event(event, at)

    @contextmanager
    def _transaction(self, run_id: str) -> Iterator[sa.Connection]:
        """One transaction on the index with the run's shard attached; Dagster's own methods join it meanwhile."""
        with self.run_connection(run_id):
            pass  # the first connection to a shard creates its tables
        with self.index_connection() as connection:
            connection.exec_driver_sql("ATTACH DATABASE ? AS run_shard", (self.path_for_shard(run_id),))
            self._batch.connection = connection
            try:
                yield connection
            finally:
                del self._batch.connection

    @contextmanager
    def _connect(self, shard: str) -> Iterator[sa.Connection]:
        """Dagster's own, on an engine that is kept; one made for each call compiles every statement anew."""
        with self._db_lock:
            engine = self._engine(shard)
            if shard not in self._initialized_dbs:
                self._initdb(engine)
                self._initialized_dbs.add(shard)
            with engine.begin() as connection:
                yield connection

    def _engine(self, shard: str) -> sa.Engine:
        """An engine holds no connection: each is opened for its use and closed after it, as in Dagster."""
        if shard not in self._engines:
            self._engines[shard] = sa.create_engine(
                self.conn_string_for_shard(shard),
                poolclass=NullPool,
                connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS},
            )
        self._engines.move_to_end(shard)
        if len(self._engines) > MOST_ENGINES:
            self._engines.popitem(last=False)
        return self._engines[shard]

    def _check_partitions_table(self) -> None:
        """Dagster's own, until it has passed: no table of its goes away."""
        if not self._has_partitions_table:
            super()._check_partitions_table()
            self._has_partitions_table = True

    @contextmanager
    def index_connection(self) -> Iterator[sa.Connection]:
        """A connection to the index; inside a batch the batch's own, so that all of it is one transaction."""
        joined = getattr(self._batch, "connection", None)
        if joined is not None:
            yield joined
            return
        with super().index_connection() as connection:
            _leave_checkpoints_to_the_last_close(connection)
            yield connection

    @contextmanager
    def run_connection(self, run_id: str | None = None) -> Iterator[sa.Connection]:
        """A connection to the shard of a run."""
        with super().run_connection(run_id) as connection:
            _leave_checkpoints_to_the_last_close(connection)
            yield connection


class BatchingSqliteStorage(DagsterSqliteStorage):
    """Dagster's storage of runs, schedules and events in SQLite files below one folder, with our event log."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(base_dir, inst_data)
        folder = Path(self._event_log_storage.path_for_shard("index")).parent
        self._event_log_storage = BatchingEventLogStorage(str(folder))

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> BatchingSqliteStorage:
        """Build from the ``config`` of ``dagster.yaml``; the stock method always builds the stock class."""
        return cls.from_local(inst_data=inst_data, **config_value)


def _kind(event: EventLogEntry) -> object:
    """The Dagster event type; None for a plain log line."""
    return event.dagster_event_type if event.is_dagster_event else None


def _insert_into_index(connection: sa.Connection, rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Insert rows in one call and return their ids: the newest ones, since this transaction is the only writer."""
    connection.execute(sa.insert(SqlEventLogStorageTable), rows)
    newest = sa.select(SqlEventLogStorageTable.c.id).order_by(SqlEventLogStorageTable.c.id.desc()).limit(len(rows))
    return list(connection.scalars(newest))[::-1]


def _deciding(events: Sequence[tuple[EventLogEntry, int]]) -> list[tuple[EventLogEntry, int]]:
    """Of each asset and event type the last event, in order: only these show in the asset's row.

    Which columns of the row an event sets depends on its type alone, and a later event overwrites an earlier one.
    """
    last: dict[tuple[object, object], tuple[EventLogEntry, int]] = {}
    for event, at in events:
        key = (event.get_dagster_event().asset_key, _kind(event))
        last.pop(key, None)
        last[key] = (event, at)
    return list(last.values())


def _leave_checkpoints_to_the_last_close(connection: sa.Connection) -> None:
    connection.exec_driver_sql("PRAGMA wal_autocheckpoint = 0")
