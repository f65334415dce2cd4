"""What a partition costs in Dagster's own bookkeeping: the stock SQLite event log against ours.

Each measurement is one run over a range of days of an asset that computes and stores nothing, on a fresh instance, so
that only Dagster is timed: two events for every day. The two storages take turns (A B A B), since a shared machine is
never equally fast for long: one ratio a round, of neighbours in time. The stock class waits for the disk most of the
time, so other people's disk traffic shows in the wall time; the CPU time does not know it.

    python benchmarks/dagster_events.py [--days 731] [--rounds 2] [--long 1826]
"""

import argparse
import logging
import os
import platform
import sqlite3
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

import dagster as dg

from mts_dagster.instance.home import EVENT_BATCH_SIZE, open_instance
from mts_dagster.settings import load_settings

FIRST_DAY = date(2021, 1, 1)
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class Nothing(dg.IOManager):
    """Stores nothing."""

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:  # noqa: ARG002 - Dagster's signature
        """Attach a number, as a writing IO manager does."""
        context.add_output_metadata({"rows_in_run": len(context.asset_partition_keys)})

    def load_input(self, context: dg.InputContext) -> None:
        """Nothing to load."""


def job() -> dg.JobDefinition:
    """A job with one asset by day that does nothing."""
    daily = dg.DailyPartitionsDefinition(FIRST_DAY.isoformat(), timezone="UTC")

    @dg.asset(partitions_def=daily, backfill_policy=dg.BackfillPolicy.single_run(), io_manager_def=Nothing())
    def idle() -> int:
        return 1

    return dg.Definitions(assets=[idle], jobs=[dg.define_asset_job("idle_job", [idle])]).resolve_job_def("idle_job")


@contextmanager
def stock_instance(folder: Path) -> Iterator[dg.DagsterInstance]:
    """Dagster as it comes."""
    folder.joinpath("dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
    os.environ["DAGSTER_EVENT_BATCH_SIZE"] = "0"
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        yield instance


@contextmanager
def our_instance(folder: Path) -> Iterator[dg.DagsterInstance]:
    """The instance that the command line opens."""
    with open_instance(load_settings(home=folder)) as instance:
        yield instance


INSTANCES = {"stock": stock_instance, "ours": our_instance}


class Cost(NamedTuple):
    """What a run took."""

    wall_s: float
    cpu_s: float


def run(instance: dg.DagsterInstance, days: int) -> Cost:
    """One run over the first days of the calendar."""
    tags = {
        "dagster/asset_partition_range_start": FIRST_DAY.isoformat(),
        "dagster/asset_partition_range_end": (FIRST_DAY + timedelta(days=days - 1)).isoformat(),
    }
    resolved = job()
    wall, cpu = time.perf_counter(), time.process_time()
    assert resolved.execute_in_process(instance=instance, tags=tags, run_config=QUIET).success
    cost = Cost(time.perf_counter() - wall, time.process_time() - cpu)
    assert len(instance.get_materialized_partitions(dg.AssetKey("idle"))) == days
    return cost


def measure(storage: str, days: int) -> Cost:
    """Cost of a run on a fresh instance, after a first run of one day has warmed it up; prints a row."""
    with tempfile.TemporaryDirectory() as folder, INSTANCES[storage](Path(folder)) as instance:
        single = run(instance, 1)
        cost = run(instance, days)
    print(
        f"| {storage} | {days} | {single.wall_s:.2f} | {cost.wall_s:.2f} "
        f"| {cost.wall_s / days * 1000:.2f} | {cost.cpu_s / days * 1000:.2f} |",
        flush=True,
    )
    return cost


def main() -> None:
    """Measure in turns and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, default=731, help="partitions of a run in the comparison")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each storage")
    parser.add_argument("--long", type=int, default=1826, help="partitions of one more run on ours: five years")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", dg.BetaWarning)
    logging.disable(logging.CRITICAL)
    print(
        f"Python {platform.python_version()}, dagster {dg.__version__}, SQLite {sqlite3.sqlite_version}, "
        f"{os.cpu_count()} cores, batches of {EVENT_BATCH_SIZE} events\n"
    )
    print("| event log | partitions | run of one day, s | run, s | ms a partition | CPU ms a partition |")
    print("|---|---:|---:|---:|---:|---:|")
    rounds = [[measure(storage, arguments.days) for storage in INSTANCES] for _ in range(arguments.rounds)]
    measure("ours", arguments.long)
    print("\nratio stock / ours, round by round:")
    for number, (stock, ours) in enumerate(rounds, start=1):
        print(f"  {number}: wall {stock.wall_s / ours.wall_s:.1f}, CPU {stock.cpu_s / ours.cpu_s:.1f}")


if __name__ == "__main__":
    main()
