"""When strategies are backtested again: nightly for the running year, weekly for their parameters.

What belongs here: clock times and partitions of the backtests' jobs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dagster as dg

from mts_dagster.defs.common import trailing_days
from mts_dagster.research.subject import Subject, tunable
from mts_dagster.runs import range_tags
from mts_dagster.settings import Settings


def build_backtest_schedules(subjects: Mapping[str, Subject]) -> list[dg.ScheduleDefinition]:
    """Schedules for all strategies, in one run each."""
    strategies, walked = list(subjects), tunable(subjects)

    @dg.schedule(
        job_name="backtests",
        cron_schedule="15 1 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="All strategies over the running year, daily at 01:15 UTC, after the signals; in the first days of "
        "January over the year before too.",
    )
    def backtests_daily(
        context: dg.ScheduleEvaluationContext, bare_settings: dg.ResourceParam[Settings]
    ) -> dg.RunRequest:
        """One run over the years of the trailing days."""
        days = trailing_days(context, bare_settings, bare_settings.macro_trailing_days)
        return dg.RunRequest(run_key=None, tags=fold_range(strategies, days.first.year, days.last.year))

    @dg.schedule(
        job_name="walk_forward",
        cron_schedule="30 2 * * 0",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Parameters of all strategies walked forward, Sundays at 02:30 UTC.",
    )
    def walk_forward_weekly() -> dg.RunRequest:
        """One run for all strategies that have parameters."""
        return dg.RunRequest(run_key=None, tags=range_tags(walked[0], walked[-1]))

    return [backtests_daily, walk_forward_weekly]


def fold_range(strategies: Sequence[str], first_year: int, last_year: int) -> dict[str, str]:
    """Tags that make one run of all strategies in a range of years; both years are included."""
    corners = [
        str(dg.MultiPartitionKey({"strategy": name, "year": str(year)}))
        for name, year in ((strategies[0], first_year), (strategies[-1], last_year))
    ]
    return range_tags(*corners)
