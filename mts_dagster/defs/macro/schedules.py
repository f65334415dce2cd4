"""When macro series are pulled again: every six hours over a window that covers revisions.

What belongs here: clock times and windows of the macro job.
"""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg

from mts_dagster.defs.common import member_request, trailing_days
from mts_dagster.settings import Settings


@dg.schedule(
    job_name="macro",
    cron_schedule="10 */6 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="All configured FRED series over the trailing days, every six hours.",
)
def macro_6_hourly(
    context: dg.ScheduleEvaluationContext, bare_settings: dg.ResourceParam[Settings]
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """One run for each indicator."""
    if bare_settings.fred_api_key is None:
        yield dg.SkipReason("no FRED key: set MTS_FRED_API_KEY (free at fred.stlouisfed.org)")
        return
    days = trailing_days(context, bare_settings, bare_settings.macro_trailing_days)
    for indicator in bare_settings.macro_indicators:
        yield member_request(context, "indicator", indicator, days)
