"""When models and signals are computed again, after the pulls that feed them.

What belongs here: clock times and windows of the models' and the signals' jobs.
"""

from __future__ import annotations

import dagster as dg

from mts_dagster.defs.common import trailing_days
from mts_dagster.runs import range_tags
from mts_dagster.settings import Settings


@dg.schedule(
    job_name="sql_models",
    cron_schedule="20 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="All SQL models over the trailing days, every hour, a quarter of an hour after the pulls.",
)
def sql_models_hourly(
    context: dg.ScheduleEvaluationContext, bare_settings: dg.ResourceParam[Settings]
) -> dg.RunRequest:
    """One run over the trailing days."""
    return dg.RunRequest(
        run_key=None, tags=range_tags(*trailing_days(context, bare_settings, bare_settings.trailing_days).keys)
    )


@dg.schedule(
    job_name="signals",
    cron_schedule="45 0 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    # CoinGecko's last complete day is ready at about 00:35 UTC.
    description="Features and signals over the trailing days, daily at 00:45 UTC, when yesterday is complete.",
)
def signals_daily(context: dg.ScheduleEvaluationContext, bare_settings: dg.ResourceParam[Settings]) -> dg.RunRequest:
    """One run over the trailing days; macro values that came late change them."""
    return dg.RunRequest(
        run_key=None, tags=range_tags(*trailing_days(context, bare_settings, bare_settings.macro_trailing_days).keys)
    )
