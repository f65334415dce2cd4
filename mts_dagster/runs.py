"""Running the project's jobs from Python: the command line and the demo do what the UI's buttons do.

What belongs here: choosing partitions, starting a job in this process on the instance that the UI shows, and saying in
one line why it failed. The work itself is in the assets.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol

import dagster as dg

from mts_dagster.errors import MtsError, UsageError
from mts_dagster.partitions import DAY_FORMAT, coins, daily, hour_key

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
# Host and process id of a run of the command line: somebody sits and waits for it, and it ends with its process.
PROCESS = "mts/process"
# The job of all hour partitions, and the tag that says which segments of an hour a run brought in.
LIVE_HOURS = "live_hours"
SEGMENTS = "mts/segments"
# Set once somebody stopped the awaited run of this process: steps that have not begun do not begin. Dagster itself
# would retry a step that Ctrl-C ended, and go on with the others.
STOPPED = threading.Event()


class RunFailedError(MtsError):
    """A Dagster run failed; the message is the first failed step's own line."""


class StoredError(Protocol):
    """An error as Dagster keeps it in an event."""

    @property
    def message(self) -> str:
        """Class and text."""
        ...

    @property
    def cause(self) -> StoredError | None:
        """The error behind it."""
        ...


@dataclass(frozen=True)
class Days:
    """Whole UTC days, both ends included, as a person says them."""

    first: date
    last: date

    def __post_init__(self) -> None:
        if self.first > self.last:
            raise UsageError(f"the start {self.first} lies after the end {self.last}")
        known = daily.get_first_partition_key()
        if known and self.first.strftime(DAY_FORMAT) < known:
            raise UsageError(
                f"{self.first} lies before the first partition {known}; set MTS_HISTORY_START to begin earlier"
            )
        newest = daily.get_last_partition_key()
        if newest and self.last.strftime(DAY_FORMAT) > newest:
            raise UsageError(f"{self.last} lies in the future; the newest partition is {newest} (UTC)")

    @property
    def keys(self) -> tuple[str, str]:
        """First and last partition key."""
        return self.first.strftime(DAY_FORMAT), self.last.strftime(DAY_FORMAT)

    def __len__(self) -> int:
        return (self.last - self.first).days + 1

    def __str__(self) -> str:
        return f"{self.first} to {self.last}"


def range_tags(first: str, last: str) -> dict[str, str]:
    """Tags that make one run of a range of partitions; both keys are included."""
    return {RANGE_START: first, RANGE_END: last}


def run_days(definitions: dg.Definitions, instance: dg.DagsterInstance, job: str, days: Days) -> str:
    """Run a job over a range of days in one run; return its run id.

    Raises:
        RunFailedError: a step failed.
        KeyboardInterrupt: somebody pressed Ctrl-C.
    """
    first, last = days.keys
    return _run(definitions, instance, job, first, last)


def run_member_days(
    definitions: dg.Definitions, instance: dg.DagsterInstance, job: str, dimension: str, member: str, days: Days
) -> str:
    """Run a job over a range of days of one coin or indicator in one run; return its run id."""
    first, last = (str(dg.MultiPartitionKey({dimension: member, "date": day})) for day in days.keys)
    return _run(definitions, instance, job, first, last)


def run_strategy_years(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    job: str,
    strategies: tuple[str, str],
    first_year: int,
    last_year: int,
) -> str:
    """Run a job over all strategies from the first to the last of ``strategies`` and a range of years in one run."""
    first, last = (
        str(dg.MultiPartitionKey({"strategy": name, "year": str(year)}))
        for name, year in zip(strategies, (first_year, last_year), strict=True)
    )
    return _run(definitions, instance, job, first, last)


def run_members(definitions: dg.Definitions, instance: dg.DagsterInstance, job: str, first: str, last: str) -> str:
    """Run a job over the members of a dimension from ``first`` to ``last`` in one run; return its run id."""
    return _run(definitions, instance, job, first, last)


def run_hour(definitions: dg.Definitions, instance: dg.DagsterInstance, hour: datetime, content: str) -> str:
    """Run the live assets of one hour; return the run id.

    Args:
        definitions: with the job.
        instance: where the run is recorded.
        hour: a moment of it.
        content: the segments that it is meant to bring in, see ``live.watch``.
    """
    key = hour_key(hour)
    return _run(definitions, instance, LIVE_HOURS, key, key, {SEGMENTS: content})


def register_coins(instance: dg.DagsterInstance, ids: Iterable[str]) -> None:
    """Add coins to the coin dimension; known ones stay."""
    known = set(instance.get_dynamic_partitions(str(coins.name)))
    new = [coin for coin in dict.fromkeys(ids) if coin not in known]
    if new:
        instance.add_dynamic_partitions(str(coins.name), new)


def registered_coins(instance: dg.DagsterInstance) -> Sequence[str]:
    """Coins that have partitions."""
    return instance.get_dynamic_partitions(str(coins.name))


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark runs of this machine as failed whose process is gone, and return their ids.

    A command that was killed cannot say so; its run would stay "started", and keep one of the few places of the queue.
    """
    unfinished = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
    ended = []
    for run in instance.get_runs(dg.RunsFilter(statuses=unfinished)):
        host, _, pid = run.tags.get(PROCESS, "").rpartition(":")
        if host == socket.gethostname() and not _is_running(int(pid)):
            instance.report_run_failed(run, f"the process {pid} that ran it is gone")
            ended.append(run.run_id)
    return ended


def _this_process() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _is_running(pid: int) -> bool:
    """Whether a process of this machine exists; one of another user does too."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _run(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    job: str,
    first: str,
    last: str,
    tags: Mapping[str, str] | None = None,
) -> str:
    STOPPED.clear()
    result = definitions.resolve_job_def(job).execute_in_process(
        instance=instance,
        tags={**range_tags(first, last), **(tags or {}), PROCESS: _this_process()},
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
    )
    if STOPPED.is_set() or _was_interrupted(result):
        raise KeyboardInterrupt
    if not result.success:
        raise RunFailedError(_first_failure(result))
    return result.run_id


def _was_interrupted(result: dg.ExecuteInProcessResult) -> bool:
    """Whether Ctrl-C ended the run outside of an asset's computation."""
    failures = [event.job_failure_data for event in result.all_events if event.is_job_failure]
    return any(data.failure_reason and data.failure_reason.value == "UNEXPECTED_TERMINATION" for data in failures)


def _first_failure(result: dg.ExecuteInProcessResult) -> str:
    """The failed check's or step's own words, without its traceback, which stays in the run's log."""
    failure = next((event for event in result.all_events if event.is_step_failure), None)
    if failure is None:
        return f"the run failed before its first step: {_run_failure(result)} (run {result.run_id})"
    if checks := _failed_checks(result):
        return f"{'; '.join(checks)} (run {result.run_id})"
    data = failure.step_failure_data
    told = data.user_failure_data.description if data.user_failure_data else None
    words = told or (_words(data.error) if data.error else "no reason given")
    return f"{failure.step_key} failed: {words} (run {result.run_id})"


def _run_failure(result: dg.ExecuteInProcessResult) -> str:
    """Why a run failed outside of its steps, for example because the lake cannot be opened."""
    for event in result.all_events:
        error = getattr(event.event_specific_data, "error", None)
        if error is not None:
            return _words(error)
    return "no reason given; see its log in the UI"


def _words(error: StoredError) -> str:
    """The one line of the first error of our family in a chain of causes; else the first line of the chain."""
    first = error.message.strip().splitlines()[0]
    cause: StoredError | None = error
    while cause is not None:
        name, _, words = cause.message.strip().partition(": ")
        if name.startswith("mts_"):
            return words.splitlines()[0]
        cause = cause.cause
    return first


def _failed_checks(result: dg.ExecuteInProcessResult) -> list[str]:
    """Blocking checks that failed, each with its asset and what it found."""
    found = []
    for event in result.all_events:
        if event.event_type_value != dg.DagsterEventType.ASSET_CHECK_EVALUATION.value:
            continue
        judged = event.asset_check_evaluation_data
        if judged.blocking and not judged.passed and judged.severity == dg.AssetCheckSeverity.ERROR:
            rows = judged.metadata.get("failing_rows")
            count = f" ({rows.value} failing rows)" if rows is not None else ""
            detail = f": {judged.description}" if judged.description else ""
            found.append(f"{judged.asset_key.to_user_string()} fails its check {judged.check_name}{count}{detail}")
    return found
