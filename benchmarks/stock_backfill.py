"""The same klines written with Dagster's stock DuckDB IO manager, one run a partition. Runs in the peers' environment.

Prints JSON: seconds a partition, once with all runs in one process (no start-up cost, the friendliest case) and once
with a process a run, as Dagster starts the runs of a backfill.

    .venv-peers/bin/python benchmarks/stock_backfill.py KLINES.parquet DATABASE.duckdb PARTITIONS
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import dagster as dg
import pandas as pd
from dagster_duckdb_pandas import DuckDBPandasIOManager

warnings.simplefilter("ignore")
# The command line for people; the environment for the processes below, whose command line is Dagster's.
ARGUMENTS = json.loads(os.environ.get("STOCK_ARGUMENTS") or json.dumps(sys.argv[1:]))
SOURCE, DATABASE, COUNT = Path(ARGUMENTS[0]), ARGUMENTS[1], int(ARGUMENTS[2])
FIRST_DAY = "2021-01-01"
PROCESSES = 5

daily = dg.DailyPartitionsDefinition(FIRST_DAY, timezone="UTC")


@dg.asset(partitions_def=daily, metadata={"partition_expr": "open_time"})
def klines(context: dg.AssetExecutionContext) -> pd.DataFrame:
    """One day of rows; reading them from a file stands in for the download."""
    start = context.partition_time_window.start.replace(tzinfo=None)
    frame = pd.read_parquet(SOURCE)
    return frame[(frame["open_time"] >= start) & (frame["open_time"] < start + pd.Timedelta(days=1))]


defs = dg.Definitions(
    assets=[klines],
    jobs=[dg.define_asset_job("stock", [klines])],
    resources={"io_manager": DuckDBPandasIOManager(database=DATABASE, schema="raw")},
)


def in_one_process(days: list[str]) -> float:
    """Seconds a partition."""
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with tempfile.TemporaryDirectory() as home:
        Path(home, "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        job = defs.resolve_job_def("stock")
        with dg.DagsterInstance.from_config(home) as instance:
            job.execute_in_process(instance=instance, partition_key=days[0], run_config=quiet)
            started = time.perf_counter()
            for day in days:
                job.execute_in_process(instance=instance, partition_key=day, run_config=quiet)
            return (time.perf_counter() - started) / len(days)


def a_process_each(days: list[str]) -> float:
    """Seconds a partition."""
    with tempfile.TemporaryDirectory() as home:
        Path(home, "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        started = time.perf_counter()
        for day in days:
            command = ["dagster", "asset", "materialize", "-f", __file__, "--select", "klines", "--partition", day]
            script = str(Path(sys.executable).parent / command[0])
            child = {**os.environ, "DAGSTER_HOME": home, "STOCK_ARGUMENTS": json.dumps(ARGUMENTS)}
            subprocess.run([script, *command[1:]], check=True, capture_output=True, env=child)
        return (time.perf_counter() - started) / len(days)


if __name__ == "__main__":
    keys = [f"{day:%Y-%m-%d}" for day in pd.date_range(FIRST_DAY, periods=COUNT + 1)]
    print(
        json.dumps({"in_one_process_s": in_one_process(keys[1:]), "a_process_each_s": a_process_each(keys[:PROCESSES])})
    )
