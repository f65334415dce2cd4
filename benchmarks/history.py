"""Five years of history from the simulator to signals, one day's refresh, and the stock IO manager for comparison.

    python -m benchmarks.history [--years 5] [--stock-partitions 40]

Runs the commands' own code in this process, so that peak memory is the pipeline's; the simulator has a process of
its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
from rich.console import Console

from benchmarks.machine import describe
from benchmarks.peers import STOCK_IO_MANAGER, python_with
from mts_dagster.lake.shared import session
from mts_dagster.processes import simulator
from mts_dagster.reports import print_rows
from mts_dagster.runs import Days
from mts_dagster.settings import Settings, load_settings
from mts_dagster.workbench import Workbench, collect_macro, collect_market, compute_signals

LAST_DAY = date(2025, 12, 31)
KLINES = "select * exclude (available_at) replace (timezone('UTC', open_time) as open_time, "
KLINES += "timezone('UTC', close_time) as close_time) from raw.klines where coin = 'bitcoin' and interval = '1h'"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--years", type=int, default=5)
    parser.add_argument("--stock-partitions", type=int, default=40)
    options = parser.parse_args()
    console = Console()
    console.print(describe(), soft_wrap=True)
    with simulator(["--seed", "7"]) as addresses, tempfile.TemporaryDirectory() as folder:
        os.environ.update(addresses)
        settings = load_settings(home=Path(folder) / "home", coins="bitcoin,ethereum,binancecoin", universe_size=1)
        per_partition_s = measure_backfill(settings, options.years)
        measure_refresh(settings)
        compare_with_stock(settings, Path(folder), options.stock_partitions, per_partition_s)


def measure_backfill(settings: Settings, years: int) -> float:
    """Time the phases of a backfill; returns seconds a partition."""
    days = Days(LAST_DAY.replace(year=LAST_DAY.year - years) + timedelta(days=1), LAST_DAY)
    with quiet_bench(settings) as bench:
        phases = {
            "macro series, 4 indicators": timed(lambda: collect_macro(bench, days)),
            "rankings, price points, klines, bars": timed(lambda: collect_market(bench, days)),
            "features and signals": timed(lambda: compute_signals(bench, days)),
        }
        partitions = materialized_partitions(bench)
    rows, total_s = stored_rows(settings), sum(phases.values())
    print_rows(["phase", "seconds"], [*phases.items(), ("total", total_s)], title=f"backfill of {len(days)} days")
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print_rows(
        ["rows stored", "rows/s", "partitions", "ms a partition", "peak memory MiB"],
        [(rows, rows / total_s, partitions, total_s / partitions * 1000, peak_mib)],
    )
    return total_s / partitions


def measure_refresh(settings: Settings) -> None:
    """Time one day's refresh of everything, in a process that has already loaded."""
    days = Days(LAST_DAY, LAST_DAY)
    with quiet_bench(settings) as bench:
        phases = {
            "macro series": timed(lambda: collect_macro(bench, days)),
            "rankings, price points, klines, bars": timed(lambda: collect_market(bench, days)),
            "features and signals": timed(lambda: compute_signals(bench, days)),
        }
    print_rows(["phase", "seconds"], [*phases.items(), ("total", sum(phases.values()))], title="refresh of one day")


def compare_with_stock(settings: Settings, folder: Path, partitions: int, ours_s: float) -> None:
    """The same klines through the stock IO manager, one run a partition, in the peers' environment."""
    source = folder / "klines.parquet"
    with session(settings) as con:
        con.execute(f"copy ({KLINES}) to '{source}'")
    command = [python_with(*STOCK_IO_MANAGER), "benchmarks/stock_backfill.py", source, folder / "stock.duckdb"]
    output = subprocess.run([*map(str, command), str(partitions)], check=True, capture_output=True, text=True).stdout
    stock = json.loads(output.splitlines()[-1])
    print_rows(
        ["stock IO manager, one run a partition", "ms a partition", "times ours"],
        [
            (
                "a process a run, as a backfill starts them",
                stock["a_process_each_s"] * 1e3,
                stock["a_process_each_s"] / ours_s,
            ),
            ("all runs in one process", stock["in_one_process_s"] * 1e3, stock["in_one_process_s"] / ours_s),
        ],
        title="comparison (the stock side only writes, ours downloads, writes and computes)",
    )


def timed(work: Callable[[], object]) -> float:
    """Seconds that ``work`` took."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@contextmanager
def quiet_bench(settings: Settings) -> Iterator[Workbench]:
    """A workbench that shows no progress."""
    with Workbench.open(settings) as bench:
        bench.console.quiet = True
        yield bench


def materialized_partitions(bench: Workbench) -> int:
    """How many partitions of all assets have been materialised."""
    keys = [spec.key for spec in bench.definitions.resolve_all_asset_specs() if isinstance(spec, dg.AssetSpec)]
    return sum(len(bench.instance.get_materialized_partitions(key)) for key in keys)


def stored_rows(settings: Settings) -> int:
    """Rows of all tables of the lake."""
    with session(settings) as con:
        names = con.execute(
            "select schema_name || '.' || table_name from duckdb_tables() where database_name = 'lake'"
        ).fetchall()
        return sum(con.execute(f"select count(*) from {name}").fetchall()[0][0] for (name,) in names)


if __name__ == "__main__":
    main()
