"""What all assets share: how those with a table are declared, policies with their reasons, how our errors end a step.

What belongs here: that declaration, constants, and the one translation from the error family to Dagster's failure.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, timedelta
from typing import Any, ParamSpec, TypeVar, cast, get_type_hints

import dagster as dg

from mts_dagster.errors import LakeLockedError, MtsError
from mts_dagster.lake.io_manager import column_schema
from mts_dagster.runs import PROCESS, STOPPED, Days, range_tags
from mts_dagster.schemas import Table
from mts_dagster.settings import Settings
from mts_dagster.sources.errors import SourceError

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

MARKET_DATA = ["team:market-data"]
RESEARCH = ["team:research"]

# Five years of history must be one run, not 1,800.
SINGLE_RUN = dg.BackfillPolicy.single_run()

# The clients retry a request by themselves; this one covers an outage that outlasts them.
FETCH_RETRY = dg.RetryPolicy(max_retries=3, delay=30, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)


def contract(table: Table) -> dict[str, Any]:
    """What the UI shows of a stored table, also before it has rows."""
    return {"dagster/column_schema": column_schema(table), "dagster/table_name": table.qualified}


def lake_asset(table: Table, **declared: Any) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:  # noqa: ANN401 - Dagster's own arguments
    """Declare the asset whose rows are ``table``: named, described and typed by it; any backfill is one run.

    Args:
        table: where the rows are.
        declared: further arguments of ``dagster.asset``, which come before what is set here.
    """
    shared = {
        "key": [table.schema, table.name],
        "description": table.description,
        "metadata": contract(table),
        "backfill_policy": SINGLE_RUN,
        "code_version": "1",
    }

    def declare(compute: Callable[..., Any]) -> dg.AssetsDefinition:
        return dg.asset(**(shared | declared))(ends_in_failure(compute))

    return declare


def ends_in_failure(compute: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Turn an error of our family into a Dagster failure with its one line.

    Only passing outages and a lock that stayed taken are retried, and those not in a run that somebody waits for: the
    clients have retried already.
    """

    @functools.wraps(compute)
    def returns(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        with _failures(args):
            return compute(*args, **kwargs)

    @functools.wraps(compute)
    def yields(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Iterator[Any]:
        with _failures(args):
            yield from cast("Iterator[Any]", compute(*args, **kwargs))

    wrapped: Any = yields if inspect.isgeneratorfunction(compute) else returns
    # Dagster reads annotations in the wrapper's module, where the names of the wrapped function mean nothing.
    wrapped.__annotations__ = get_type_hints(compute, include_extras=True)
    wrapped.__signature__ = inspect.signature(compute, eval_str=True)
    return cast("Callable[Parameters, Result]", wrapped)


@contextmanager
def _failures(args: tuple[object, ...]) -> Iterator[None]:
    awaited = any(isinstance(arg, dg.AssetExecutionContext) and PROCESS in arg.run.tags for arg in args)
    if awaited and STOPPED.is_set():
        raise dg.Failure(description="stopped before it began", allow_retries=False)
    try:
        yield
    except MtsError as error:
        passing = isinstance(error, LakeLockedError) or (isinstance(error, SourceError) and error.is_retryable)
        raise dg.Failure(description=str(error), allow_retries=passing and not awaited) from error
    except dg.DagsterExecutionInterruptedError as stop:
        if not awaited:
            raise
        STOPPED.set()
        raise dg.Failure(description="stopped", allow_retries=False) from stop


def trailing_days(context: dg.ScheduleEvaluationContext, settings: Settings, count: int) -> Days:
    """The last ``count`` days up to the tick's own day (UTC), not before the first partition."""
    today = context.scheduled_execution_time.astimezone(UTC).date()
    return Days(max(today - timedelta(days=count - 1), settings.history_start), today)


def member_request(context: dg.ScheduleEvaluationContext, dimension: str, member: str, days: Days) -> dg.RunRequest:
    """One run for one coin or indicator over ``days``; the key is the tick's: a repeated tick starts it once."""
    first, last = (str(dg.MultiPartitionKey({dimension: member, "date": day})) for day in days.keys)
    tick = context.scheduled_execution_time.astimezone(UTC).isoformat()
    return dg.RunRequest(run_key=f"{member} {tick}", tags=range_tags(first, last))
