"""Keeping the lake and the landing folder small.

What belongs here: the jobs and their schedules; the steps are in ``mts_dagster.lake.maintenance`` and
``mts_dagster.live.expiry``.
"""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg

from mts_dagster.defs.common import ends_in_failure
from mts_dagster.lake.maintenance import maintain
from mts_dagster.live.expiry import expire
from mts_dagster.research.pins import pinned_snapshots
from mts_dagster.settings import Settings


@dg.op(description="Merge small files, expire old snapshots, clean up, with a dry run before orphans go.")
@ends_in_failure
def maintain_lake(context: dg.OpExecutionContext, settings: dg.ResourceParam[Settings]) -> None:
    """Run all maintenance steps under the writer lock and log what they did.

    Snapshots that stored backtests read stay, so that these can be reproduced.
    """
    context.log.info(str(maintain(settings, pinned=pinned_snapshots(settings))))


@dg.job(description="Lake maintenance; safe beside readers, waits for writers.")
def maintenance() -> None:
    """One step."""
    maintain_lake()


@dg.schedule(
    job=maintenance,
    cron_schedule="30 3 * * 0",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Lake maintenance, Sundays at 03:30 UTC.",
)
def maintenance_weekly() -> dg.RunRequest:
    """One run."""
    return dg.RunRequest(run_key=None)


@dg.op(description="Delete segments that are old and stored; those that are not stored stay and are named.")
@ends_in_failure
def expire_stored_segments(context: dg.OpExecutionContext, settings: dg.ResourceParam[Settings]) -> None:
    """Delete what is proven stored, and warn about the rest."""
    done = expire(settings, datetime.now(UTC))
    context.log.info("deleted %d segments", done.deleted)
    if done.kept:
        context.log.warning(
            "%d old hours have segments that are not stored, run them again: %s", len(done.kept), ", ".join(done.kept)
        )


@dg.job(description="Deletion of stored segments after MTS_LANDING_KEEP_DAYS.")
def expire_landing() -> None:
    """One step."""
    expire_stored_segments()


@dg.schedule(
    job=expire_landing,
    cron_schedule="50 3 * * *",  # a day has some 100,000 segments: a week of them is too many to keep
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Deletion of stored segments, daily at 03:50 UTC.",
)
def expire_landing_daily() -> dg.RunRequest:
    """One run."""
    return dg.RunRequest(run_key=None)
