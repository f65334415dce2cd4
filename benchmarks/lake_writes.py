"""What a write to the lake costs: opening it, replacing a day alone, and replacing days with six processes at once.

Each replacement deletes and inserts one coin's day of 24 hourly rows, the smallest write that MTS makes; a backfill
replaces years in one. The contended part starts all processes at a barrier and lets a reader look all the time; it
fails if any process fails, any commit is lost, or any look finds a day of two writers.

    python -m benchmarks.lake_writes [--replacements 200] [--processes 6] [--each 80]
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Barrier
from pathlib import Path

import duckdb
import pandas as pd

from benchmarks.machine import describe
from mts_dagster.lake import connect
from mts_dagster.lake.replace import replace_frame
from mts_dagster.lake.shared import session
from mts_dagster.lake.slices import Slice
from mts_dagster.lake.tables import bootstrap
from mts_dagster.lake.transaction import Origin
from mts_dagster.schemas import TABLES
from mts_dagster.settings import Settings, load_settings

TABLE = TABLES["price_points"]
FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)
HOURS = 24
DAYS = 8
MS = 1000.0
Seconds = tuple[float, float]  # wall, processor
MIXED_DAYS = """
    select count(*) from (
        select coin, sampled_at::date from raw.price_points group by all
        having count(*) <> 24 or count(distinct price_usd) <> 1
    )
"""


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--replacements", type=int, default=200)
    arguments.add_argument("--processes", type=int, default=6)
    arguments.add_argument("--each", type=int, default=80)
    chosen = arguments.parse_args()
    print(describe())
    with tempfile.TemporaryDirectory() as folder:
        alone(lake_in(folder, "alone"), chosen.replacements)
        contended(lake_in(folder, "contended"), chosen.processes, chosen.each)


def lake_in(folder: str, name: str) -> Settings:
    """A lake of its own, made and furnished."""
    settings = load_settings(home=Path(folder) / name, catalog="", data_path="", lock_wait_s=600)
    con = connect(read_only=False, settings=settings)
    bootstrap(con, [TABLE])
    con.close()
    return settings


def alone(settings: Settings, count: int) -> None:
    """Nobody else is there."""
    report("open a connection of its own", timed(10, lambda _: connect(settings=settings).close()))
    with session(settings, read_only=False) as con:
        report("open a session in a process that has one", timed(50, lambda _: open_session(settings)))
        report("replace a day (24 rows)", timed(count, lambda i: replace_day(con, 0, i)))
        report("replace a year (8,784 rows)", timed(5, lambda i: replace_day(con, 0, i * 366, days=366)))


def contended(settings: Settings, processes: int, each: int) -> None:
    """Everybody replaces the same days."""
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(processes + 1)
    with spawn.Pool(processes, initializer=_meet, initargs=(barrier,)) as pool:
        work = pool.starmap_async(_write, [(settings, number, each) for number in range(processes)], chunksize=1)
        with session(settings) as reader:
            barrier.wait()
            started, looks = time.perf_counter(), 0
            while not work.ready():
                mixed = reader.execute(MIXED_DAYS).fetchall()
                assert mixed == [(0,)], f"a look found {mixed[0][0]} mixed days"
                looks += 1
            seconds = time.perf_counter() - started
            commits = reader.execute(
                "select count(*) from lake.snapshots() where commit_extra_info->>'asset' = 'benchmark'"
            ).fetchall()[0][0]
    taken = [one for worker in work.get() for one in worker]
    assert commits == processes * each, f"{commits} commits of {processes * each}"
    print(
        f"{processes} processes x {each} replacements: {commits} commits in {seconds:.1f} s, "
        f"{seconds / commits * MS:.0f} ms a commit, no error; {looks} looks by a reader, no mixed day"
    )
    report("  one replacement, waiting for the lock included", taken)


def open_session(settings: Settings) -> None:
    """Open and close."""
    with session(settings, read_only=False):
        pass


def replace_day(con: duckdb.DuckDBPyConnection, writer: int, i: int, *, days: int = 1) -> None:
    """Replace ``days`` days by the price of this writer and try."""
    start = FIRST_DAY + timedelta(days=i % DAYS if days == 1 else 0)
    times = pd.date_range(start, periods=HOURS * days, freq="h", unit="us")
    frame = pd.DataFrame(
        {
            "coin": "bitcoin",
            "sampled_at": times,
            "price_usd": float(writer * 10_000 + i + 1),
            "market_cap_usd": 1.0,
            "volume_24h_usd": 1.0,
            "source_tier": "demo",
            "available_at": times,
        }
    )
    origin = Origin(asset="benchmark", run_id=str(writer), code_version="", partitions=f"{start:%Y-%m-%d}+{days}")
    replace_frame(con, TABLE, [Slice(start, start + timedelta(days=days), ("bitcoin",))], frame, origin)


def timed(count: int, work: Callable[[int], None]) -> list[Seconds]:
    """Wall and processor time of each call."""
    taken = []
    for i in range(count):
        wall, cpu = time.perf_counter(), time.process_time()
        work(i)
        taken.append((time.perf_counter() - wall, time.process_time() - cpu))
    return taken


def report(what: str, taken: Sequence[Seconds]) -> None:
    """Print median, the slow end, the processor's share and the number of measurements."""
    walls = [wall for wall, _ in taken]
    slow = statistics.quantiles(walls, n=20)[-1]
    print(
        f"{what}: median {statistics.median(walls) * MS:.0f} ms, 95 % below {slow * MS:.0f} ms, "
        f"processor {statistics.median(cpu for _, cpu in taken) * MS:.0f} ms ({len(taken)} x)"
    )


_barrier: list[Barrier] = []


def _meet(barrier: Barrier) -> None:
    """Give a worker the barrier; a pool hands such a thing over at its birth only."""
    _barrier.append(barrier)


def _write(settings: Settings, writer: int, count: int) -> list[Seconds]:
    with session(settings, read_only=False) as con:
        _barrier[0].wait()
        return timed(count, lambda i: replace_day(con, writer, i))


if __name__ == "__main__":
    main()
