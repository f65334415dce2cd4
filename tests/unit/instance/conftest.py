"""Events of every kind, and everything that an event log leaves on disk."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dagster import AssetCheckSeverity, AssetKey, AssetMaterialization, AssetObservation, DagsterEventType
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluation,
    AssetCheckEvaluationPlanned,
)
from dagster._core.events import (
    AssetMaterializationPlannedData,
    AssetObservationData,
    DagsterEvent,
    StepMaterializationData,
)
from dagster._core.events.log import EventLogEntry

Make = Callable[..., EventLogEntry]
Rows = dict[str, dict[str, list[tuple[Any, ...]]]]

START = 1_700_000_000.0
NOT_COMPARED = {
    "asset_keys": {"id", "create_timestamp"},
    "asset_check_executions": {"create_timestamp"},
}
TABLES = ("event_logs", "asset_keys", "asset_event_tags", "asset_check_executions")


class EventFactory:
    """Builds events; each is a millisecond later than the one before."""

    def __init__(self) -> None:
        self.built = 0

    def event(
        self, kind: str, asset: str = "bars", partition: str | None = "2024-01-01", run: str = "r1"
    ) -> EventLogEntry:
        self.built += 1
        return EventLogEntry(  # type: ignore[no-untyped-call]
            error_info=None,
            level=10,
            user_message=f"{kind} {self.built}",
            run_id=run,
            timestamp=START + self.built / 1000,
            step_key=asset,
            job_name="job",
            dagster_event=self._dagster_event(kind, AssetKey(asset), partition),
        )

    def _dagster_event(self, kind: str, asset: AssetKey, partition: str | None) -> DagsterEvent | None:
        tags = {
            "dagster/partition/date": partition or "",
            "dagster/data_version": str(self.built),
            "mine": "not-indexed",
        }
        planned = AssetMaterializationPlannedData(asset, partition=partition, partitions_subset=None)
        specific: dict[str, tuple[DagsterEventType, Any]] = {
            "planned": (DagsterEventType.ASSET_MATERIALIZATION_PLANNED, planned),
            "materialized": (
                DagsterEventType.ASSET_MATERIALIZATION,
                StepMaterializationData(AssetMaterialization(asset, partition=partition, tags=tags)),
            ),
            "observed": (
                DagsterEventType.ASSET_OBSERVATION,
                AssetObservationData(AssetObservation(asset, partition=partition, tags=tags)),
            ),
            "check planned": (
                DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED,
                AssetCheckEvaluationPlanned(asset_key=asset, check_name="fresh"),
            ),
            "check evaluated": (
                DagsterEventType.ASSET_CHECK_EVALUATION,
                AssetCheckEvaluation(
                    asset_key=asset,
                    check_name="fresh",
                    passed=True,
                    metadata={},
                    severity=AssetCheckSeverity.ERROR,
                ),
            ),
            "run started": (DagsterEventType.RUN_START, None),
            "step started": (DagsterEventType.STEP_START, None),
        }
        if kind == "log line":
            return None
        event_type, data = specific[kind]
        return DagsterEvent(event_type.value, "job", event_specific_data=data, step_key="/".join(asset.path))


@pytest.fixture
def factory() -> Callable[[], Make]:
    """Makes factories whose events are equal, for two storages to be compared."""
    return lambda: EventFactory().event


@pytest.fixture
def make() -> Make:
    """A fresh factory of events."""
    return EventFactory().event


def rows_on_disk(folder: Path) -> Rows:
    """All rows of all tables of all files of an event log, apart from times of writing."""
    return {file.name: {table: _rows(file, table) for table in TABLES} for file in sorted(folder.glob("*.db"))}


def _rows(file: Path, table: str) -> list[tuple[Any, ...]]:
    con = sqlite3.connect(file)
    try:
        names = [row[1] for row in con.execute(f"PRAGMA table_info({table})")]
        compared = [f'"{name}"' for name in names if name not in NOT_COMPARED.get(table, ())]
        return sorted(con.execute(f"SELECT {', '.join(compared)} FROM {table}").fetchall(), key=repr)
    finally:
        con.close()


@pytest.fixture
def on_disk() -> Callable[[Path], Rows]:
    """The reader of everything an event log stored."""
    return rows_on_disk
