"""Keeping the lake small: merging files, expiring snapshots, removing files that nothing refers to.

What belongs here: the job and its schedule; the steps are in ``mts_dagster.lake.maintenance``.
"""

from __future__ import annotations

import dagster as dg

from mts_dagster.defs.common import ends_in_failure
from mts_dagster.lake.maintenance import maintain
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
