"""Runs of the command line whose process was killed do not stay "started" for ever."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from uuid import uuid4

import dagster as dg
import pytest

from mts_dagster.runs import PROCESS, end_dead_runs


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


@pytest.fixture
def dead_pid() -> int:
    """A process id that existed and is gone."""
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    return process.pid


def started_run(instance: dg.DagsterInstance, tags: dict[str, str]) -> str:
    run = dg.DagsterRun(job_name="market", run_id=str(uuid4()), status=dg.DagsterRunStatus.STARTED, tags=tags)
    return instance.add_run(run).run_id


def status(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def test_the_run_of_a_killed_process_ends(instance: dg.DagsterInstance, dead_pid: int) -> None:
    """It is marked as failed, once."""
    run_id = started_run(instance, {PROCESS: f"{socket.gethostname()}:{dead_pid}"})
    assert end_dead_runs(instance) == [run_id]
    assert status(instance, run_id) == dg.DagsterRunStatus.FAILURE
    assert end_dead_runs(instance) == []


@pytest.mark.parametrize("where", ["alive", "elsewhere", "untagged"])
def test_other_runs_go_on(instance: dg.DagsterInstance, dead_pid: int, where: str) -> None:
    """A living process, another machine, and a run that the daemon started are none of our business."""
    tags = {
        "alive": {PROCESS: f"{socket.gethostname()}:{os.getpid()}"},
        "elsewhere": {PROCESS: f"another-host:{dead_pid}"},
        "untagged": {},
    }[where]
    run_id = started_run(instance, tags)
    assert end_dead_runs(instance) == []
    assert status(instance, run_id) == dg.DagsterRunStatus.STARTED
