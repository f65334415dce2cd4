"""The parts of Dagster that our event log stands on are as they were when it was written.

After an upgrade of Dagster that fails here: read what changed, carry it over to ``mts_dagster/instance/event_log.py``
if the stored rows change, let ``test_event_log.py`` agree, and put the new digest here.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dagster._core.events import ASSET_CHECK_EVENTS, ASSET_EVENTS, EVENT_TYPE_TO_PIPELINE_RUN_STATUS
from dagster._core.storage.event_log import EventLogStorage, SqlEventLogStorage, SqlEventLogStorageTable
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage

STOOD_FOR = [
    (SqliteEventLogStorage.store_event, "store_event"),
    (EventLogStorage.store_event_batch, "store_event_batch"),
    (SqliteEventLogStorage._connect, "_connect"),
    (SqliteEventLogStorage.index_connection, "index_connection"),
    (SqliteEventLogStorage.run_connection, "run_connection"),
    (SqlEventLogStorage.index_transaction, "index_transaction"),
    (SqlEventLogStorage._check_partitions_table, "_check_partitions_table"),
    (SqlEventLogStorage._event_to_row, "_event_to_row"),
    (SqlEventLogStorage.store_asset_event_tags, "store_asset_event_tags"),
    (SqlEventLogStorage.store_asset_event, "store_asset_event"),
    (SqlEventLogStorage._store_asset_event, "_store_asset_event"),
    (SqlEventLogStorage._get_asset_entry_values, "_get_asset_entry_values"),
    (SqlEventLogStorage.store_asset_check_event, "store_asset_check_event"),
    (DagsterSqliteStorage.__init__, "DagsterSqliteStorage.__init__"),
    (DagsterSqliteStorage.from_config_value, "DagsterSqliteStorage.from_config_value"),
]
DIGESTS = {
    "store_event": "974a098a439e",
    "store_event_batch": "bd98dad40b23",
    "_connect": "3e004cfbb32d",
    "index_connection": "c919b96a36f7",
    "run_connection": "fc4657418fe4",
    "index_transaction": "21d20fd567e3",
    "_check_partitions_table": "c13456a2a9b5",
    "_event_to_row": "a6defd471355",
    "store_asset_event_tags": "8736a549906d",
    "store_asset_event": "b7fad25599f3",
    "_store_asset_event": "b07dd41edb25",
    "_get_asset_entry_values": "ea0f6ecffcb4",
    "store_asset_check_event": "f0b2f4b78a7d",
    "DagsterSqliteStorage.__init__": "b43b969daeb2",
    "DagsterSqliteStorage.from_config_value": "460468dbd72a",
}


def digest(function: Callable[..., Any]) -> str:
    """A digest of a function's source, layout aside; the same on every version of Python."""
    return hashlib.sha256(" ".join(inspect.getsource(function).split()).encode()).hexdigest()[:12]


@pytest.mark.parametrize(("function", "name"), STOOD_FOR, ids=[name for _, name in STOOD_FOR])
def test_the_code_that_a_batch_stands_for_is_unchanged(function: Callable[..., Any], name: str) -> None:
    """Whatever Dagster does for one event, or for the connection it does it on, is what was read for the batch."""
    assert digest(function) == DIGESTS[name], f"Dagster changed {name}: see the docstring of this file"


def test_the_index_mirrors_three_families_of_events() -> None:
    """Assets, checks and run states; no event belongs to two of them, which would index it twice."""
    families = [set(ASSET_EVENTS), set(ASSET_CHECK_EVENTS), set(EVENT_TYPE_TO_PIPELINE_RUN_STATUS)]
    assert all(families)
    assert len(set.union(*families)) == sum(len(family) for family in families)


def test_an_event_is_one_row_of_these_columns() -> None:
    """A column that Dagster adds must be filled by the row that it builds for us."""
    assert [column.name for column in SqlEventLogStorageTable.columns] == [
        "id",
        "run_id",
        "event",
        "dagster_event_type",
        "timestamp",
        "step_key",
        "asset_key",
        "partition",
    ]


def test_the_storage_keeps_its_event_log_where_we_exchange_it(tmp_path: Path) -> None:
    """The stock storage serves the event log from the attribute that our class replaces."""
    stock = DagsterSqliteStorage(str(tmp_path))
    assert stock.event_log_storage is stock._event_log_storage
    stock.dispose()
