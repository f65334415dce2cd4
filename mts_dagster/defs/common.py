"""What all assets share: policies with their reasons, owners, and how our errors end a step.

What belongs here: constants and the one translation from the error family to Dagster's failure.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from datetime import UTC, timedelta
from typing import ParamSpec, TypeVar, get_type_hints

import dagster as dg

from mts_dagster.errors import MtsError
from mts_dagster.runs import Days
from mts_dagster.settings import get_settings
from mts_dagster.sources.errors import SourceError

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

MARKET_DATA = ["team:market-data"]
RESEARCH = ["team:research"]

# Five years of history must be one run, not 1,800.
SINGLE_RUN = dg.BackfillPolicy.single_run()

# The clients retry a request by themselves; this one covers an outage that outlasts them.
FETCH_RETRY = dg.RetryPolicy(max_retries=3, delay=30, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)


def ends_in_failure(compute: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Turn an error of our family into a Dagster failure with its one line; only passing outages are retried."""

    @functools.wraps(compute)
    def wrapped(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        try:
            return compute(*args, **kwargs)
        except MtsError as error:
            passing = isinstance(error, SourceError) and error.is_retryable
            raise dg.Failure(description=str(error), allow_retries=passing) from error

    # Dagster reads annotations in the wrapper's module, where the names of the wrapped function mean nothing.
    wrapped.__annotations__ = get_type_hints(compute, include_extras=True)
    wrapped.__signature__ = inspect.signature(compute, eval_str=True)  # type: ignore[attr-defined]
    return wrapped


def trailing_days(context: dg.ScheduleEvaluationContext, count: int) -> Days:
    """The last ``count`` days up to the tick's own day (UTC), not before the first partition."""
    today = context.scheduled_execution_time.astimezone(UTC).date()
    return Days(max(today - timedelta(days=count - 1), get_settings().history_start), today)
