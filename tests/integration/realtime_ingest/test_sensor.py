"""From the landing folder to runs: what the sensor asks for, what is asked again, and doing the same by hand."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin

from mts_dagster.defs.realtime.sensors import failed_contents, landing_sensor
from mts_dagster.instance.home import open_instance
from mts_dagster.lake.shared import session
from mts_dagster.runs import LIVE_HOURS, SEGMENTS, RunFailedError
from mts_dagster.workbench import Workbench, ingest_landing

from .conftest import World, book_row

pytestmark = pytest.mark.xdist_group("realtime_ingest")

BIDS, ASKS = [(99.0, 2.0)], [(101.0, 3.0)]


@pytest.fixture
def world(own_world: World) -> World:
    """Runs and their tags are looked at: nobody else's may be there."""
    return own_world


def tick(world: World, instance: dg.DagsterInstance, cursor: str | None) -> dg.SensorExecutionData:
    context = dg.build_sensor_context(
        instance=instance,
        cursor=cursor,
        resources={"bare_settings": world.settings},
        repository_def=world.definitions.get_repository_def(),
    )
    with context:
        return landing_sensor.evaluate_tick(context)


def land_hours(world: World, count: int) -> None:
    for hour in range(count):
        world.land("order_book", [book_row(3600 * hour + 1, "binance", BIDS, ASKS)])


def test_the_sensor_asks_and_then_skips(world: World) -> None:
    """Six hours: four runs with the hours' partitions, then two, then a reason; its requests can be run."""
    land_hours(world, 6)
    with open_instance(world.settings) as instance:
        first = tick(world, instance, None)
        second = tick(world, instance, first.cursor)
        third = tick(world, instance, second.cursor)
        requests = [*(first.run_requests or []), *(second.run_requests or [])]
        assert [len(data.run_requests or []) for data in (first, second, third)] == [4, 2, 0]
        assert [request.partition_key for request in requests] == [f"2026-11-20-{hour}:00" for hour in range(13, 19)]
        assert len({request.run_key for request in requests}) == 6
        assert "no hour of" in str(third.skip_message)
        job = world.definitions.resolve_job_def(LIVE_HOURS)
        done = job.execute_in_process(
            instance=instance, partition_key=requests[0].partition_key, tags=dict(requests[0].tags)
        )
    assert done.success
    assert world.rows("select count(*) from live.bid_ask_spreads") == [(1,)]


def test_the_sensor_is_on_by_default() -> None:
    """Whoever starts the sidecar and Dagster has to switch nothing on."""
    assert landing_sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert landing_sensor.minimum_interval_seconds == 30


def test_waiting_runs_make_the_sensor_wait(world: World) -> None:
    """Three runs wait in the queue: one more is asked for."""
    land_hours(world, 3)
    job = world.definitions.resolve_job_def(LIVE_HOURS)
    origin = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("mts"), "__repository__").get_job_origin(LIVE_HOURS)
    repository = RepositoryPythonOrigin(sys.executable, ModuleCodePointer("mts_dagster.definitions", "defs"))
    with open_instance(world.settings) as instance:
        for _ in range(3):
            instance.create_run_for_job(
                job,
                status=dg.DagsterRunStatus.QUEUED,
                remote_job_origin=origin,
                job_code_origin=JobPythonOrigin(LIVE_HOURS, repository),
            )
        data = tick(world, instance, None)
    assert [request.partition_key for request in data.run_requests or []] == ["2026-11-20-13:00"]


def test_a_failed_run_is_known_until_another_one_succeeds(world: World) -> None:
    """The books' table was altered by hand: the run fails, and counts until the same segments are brought in."""
    world.land("order_book", [book_row(1, "binance", BIDS, ASKS)])
    with session(world.settings, read_only=False) as con:
        con.execute("alter table live.order_book add column extra integer")
    with open_instance(world.settings) as instance:
        with pytest.raises(RunFailedError, match="extra"):
            world.run()
        (failure,) = failed_contents(instance, datetime.now(UTC)).values()
        assert failure.attempts == 1
        assert abs(datetime.now(UTC) - failure.ended) < timedelta(minutes=5)
        run = instance.create_run_for_job(
            world.definitions.resolve_job_def(LIVE_HOURS),
            tags={SEGMENTS: "by hand"},
            status=dg.DagsterRunStatus.SUCCESS,
        )
        assert run.tags[SEGMENTS] == "by hand"
        assert failed_contents(instance, datetime.now(UTC)) == {}


def test_ingest_by_hand_does_what_is_new(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """An hour, then none, then the one that got another segment; what is shown names it."""
    land_hours(world, 1)
    with Workbench.open(world.settings) as bench:
        assert ingest_landing(bench) == 1
        assert ingest_landing(bench) == 0
        world.land("order_book", [book_row(2, "binance", BIDS, ASKS)])
        assert ingest_landing(bench) == 1
    assert world.rows("select count(*) from live.order_book") == [(2,)]
    shown = capsys.readouterr().err
    assert "2026-11-20 13:00 UTC, 2 segments" in shown
