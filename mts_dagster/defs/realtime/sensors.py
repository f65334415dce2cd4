"""The sensor over the landing folder.

What belongs here: when a tick asks for a run and how it says so. Which hours are due is decided by
``mts_dagster.live.watch``.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import dagster as dg

from mts_dagster.live.watch import SETTLE, Due, Failure, Look, Memory, Rules, look
from mts_dagster.partitions import hour_key, midnight
from mts_dagster.runs import LIVE_HOURS, SEGMENTS
from mts_dagster.settings import Settings

INTERVAL_S = 30
FAILURES_OF = timedelta(days=1)
MOST_FAILURES = 200
# Late hours wait for the schedules, not the other way round.
PRIORITY = {"dagster/priority": "-1"}
DONE_OR_COMING = [
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]


@dg.sensor(
    job_name=LIVE_HOURS,
    minimum_interval_seconds=INTERVAL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Asks for hours of the landing folder that have new complete segments: ended ones at once, the running "
    "one every few minutes, a few a tick, oldest first.",
)
def landing_sensor(context: dg.SensorEvaluationContext, bare_settings: dg.ResourceParam[Settings]) -> dg.SensorResult:
    """Runs for the hours that are due."""
    now = datetime.now(UTC)
    queued = context.instance.get_runs_count(dg.RunsFilter(job_name=LIVE_HOURS, statuses=[dg.DagsterRunStatus.QUEUED]))
    rules = Rules(
        most=max(0, bare_settings.landing_runs_per_tick - queued),
        pause=timedelta(minutes=bare_settings.landing_running_hour_minutes),
        settle=SETTLE,
        first=midnight(bare_settings.stream_start),
    )
    memory = Memory.parse(context.cursor)
    found = look(bare_settings.landing_dir, memory, now, rules, failed_contents(context.instance, now))
    if found.due:
        return dg.SensorResult(run_requests=[_request(due) for due in found.due], cursor=found.memory.text())
    return dg.SensorResult(skip_reason=_reason(bare_settings, found), cursor=found.memory.text())


def failed_contents(instance: dg.DagsterInstance, now: datetime) -> dict[str, Failure]:
    """Contents of hours whose runs failed within the last day and that no other run has brought in or is about to."""
    records = instance.get_run_records(
        dg.RunsFilter(job_name=LIVE_HOURS, statuses=[dg.DagsterRunStatus.FAILURE], updated_after=now - FAILURES_OF),
        limit=MOST_FAILURES,
    )
    ended: dict[str, list[datetime]] = {}
    for record in records:
        content = record.dagster_run.tags.get(SEGMENTS)
        if content:
            ended.setdefault(content, []).append(record.update_timestamp.replace(tzinfo=UTC))
    return {
        content: Failure(len(times), max(times))
        for content, times in ended.items()
        if not was_ingested(instance, content, DONE_OR_COMING)
    }


def was_ingested(
    instance: dg.DagsterInstance,
    content: str,
    statuses: Iterable[dg.DagsterRunStatus] = (dg.DagsterRunStatus.SUCCESS,),
) -> bool:
    """Whether a run of these segments of an hour is in one of these states."""
    wanted = dg.RunsFilter(job_name=LIVE_HOURS, tags={SEGMENTS: content}, statuses=list(statuses))
    return bool(instance.get_runs(wanted, limit=1))


def _request(due: Due) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=due.run_key, partition_key=hour_key(due.hour), tags={SEGMENTS: due.content, **PRIORITY}
    )


def _reason(settings: Settings, found: Look) -> str:
    told = f"no hour of {settings.landing_dir} has new complete segments to ingest now"
    if found.waiting:
        told += f"; {found.waiting} wait for their time"
    if found.outside:
        told += f"; {found.outside} lie before {settings.stream_start} (MTS_STREAM_START) or in the future"
    return told
