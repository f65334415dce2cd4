"""When market history is pulled again: a trailing window, because bars close and prices are revised late.

What belongs here: clock times and windows of the history jobs.
"""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg

from mts_dagster.defs.common import member_request, trailing_days
from mts_dagster.partitions import coins
from mts_dagster.runs import range_tags
from mts_dagster.settings import Settings


@dg.schedule(
    job_name="universe",
    cron_schedule="2 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Today's ranking, every hour; it also brings new coins into the coin partitions.",
)
def universe_hourly(context: dg.ScheduleEvaluationContext, bare_settings: dg.ResourceParam[Settings]) -> dg.RunRequest:
    """One run for today."""
    days = trailing_days(context, bare_settings, 1)
    return dg.RunRequest(run_key=None, tags=range_tags(*days.keys))


@dg.schedule(
    job_name="market",
    cron_schedule="5 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Price points, klines and funding of each coin over the trailing days, every hour.",
)
def market_hourly(
    context: dg.ScheduleEvaluationContext, bare_settings: dg.ResourceParam[Settings]
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """One run for each coin that has partitions."""
    days = trailing_days(context, bare_settings, bare_settings.trailing_days)
    known = context.instance.get_dynamic_partitions(str(coins.name))
    for coin in known:
        yield member_request(context, "coin", coin, days)
    if not known:
        yield dg.SkipReason("no coin has partitions yet: materialise coin_universe once, or run `mts collect`")
