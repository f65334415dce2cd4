"""A process that stores batches of materializations of one run: writer.py FOLDER RUN BATCHES SIZE."""

from __future__ import annotations

import sys

from dagster import AssetKey, AssetMaterialization, DagsterEventType
from dagster._core.events import DagsterEvent, StepMaterializationData
from dagster._core.events.log import EventLogEntry

from mts_dagster.instance.event_log import BatchingEventLogStorage


def materialized(run: str, number: int) -> EventLogEntry:
    """The event of one partition of the asset ``bars``."""
    asset = AssetMaterialization(AssetKey("bars"), partition=f"p{number}", tags={"dagster/data_version": str(number)})
    event = DagsterEvent(
        DagsterEventType.ASSET_MATERIALIZATION.value, "job", event_specific_data=StepMaterializationData(asset)
    )
    return EventLogEntry(  # type: ignore[no-untyped-call]
        error_info=None,
        level=10,
        user_message="",
        run_id=run,
        timestamp=1_700_000_000 + number / 1000,
        job_name="job",
        dagster_event=event,
    )


def main(folder: str, run: str, batches: int, size: int) -> None:
    """Store the batches; say so once the first one is there."""
    storage = BatchingEventLogStorage(folder)
    for batch in range(batches):
        storage.store_event_batch([materialized(run, batch * size + number) for number in range(size)])
        if batch == 0:
            print("first batch stored", flush=True)  # noqa: T201 - the parent waits for this line
    storage.dispose()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
