"""The Dagster side of the sidecar: what a sensor tick costs beside 100,000 segments, and what an hour of books costs.

A tick is the sensor's own decision (``live.watch.look``): over a backlog of 24 hours, over a folder where nothing is
new, and over one where every hour has changed. The hour is invented books of ``--symbols`` instruments on two
exchanges, one a second, 20 levels a side, in segments of five seconds: ingest, ingest again, and what is derived, each
step in a process of its own, with the most memory that it had.

    python -m benchmarks.live_hours [--files 100000] [--symbols 50]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from benchmarks.machine import describe
from mts_dagster.lake.shared import session
from mts_dagster.lake.slices import Slice
from mts_dagster.lake.tables import bootstrap
from mts_dagster.lake.transaction import Origin
from mts_dagster.live.derive import derive_arbitrage, derive_spreads, derive_structure
from mts_dagster.live.ingest import ingest
from mts_dagster.live.tables import LIVE_TABLES, ORDER_BOOK
from mts_dagster.live.watch import Look, Memory, Rules, look
from mts_dagster.schemas import TABLES
from mts_dagster.settings import Settings, load_settings
from mts_realtime.datasets import SCHEMAS
from mts_realtime.landing import write_segments

DAY = datetime(2026, 11, 19, tzinfo=UTC)
NOW = DAY + timedelta(hours=36)
SEGMENTS_AN_HOUR = {"order_book": 1440, "tickers": 1440, "funding": 1440, "gaps": 4, "opportunities": 80, "signals": 60}
RULES = Rules(4, timedelta(minutes=10), timedelta(seconds=20), DAY)
HOUR = Slice(DAY, DAY + timedelta(hours=1))
ORIGIN = Origin("benchmark", "", "", "")
SECONDS, FLUSH_S, LEVELS = 3600, 5, 20
STEPS: dict[str, tuple[str, Callable[[Settings], object]]] = {
    "ingest": ("order_book", lambda settings: ingest(settings, ORDER_BOOK, [HOUR], ORIGIN)),
    "ingest again": ("order_book", lambda settings: ingest(settings, ORDER_BOOK, [HOUR], ORIGIN)),
    "spreads": ("bid_ask_spreads", lambda settings: derive_spreads(settings, [HOUR], NOW, ORIGIN)),
    "structure": ("market_structure", lambda settings: derive_structure(settings, [HOUR], NOW, ORIGIN)),
    "arbitrage": ("arbitrage_opportunities", lambda settings: derive_arbitrage(settings, [HOUR], NOW, ORIGIN)),
}
FILES = "select file_count from ducklake_table_info('lake') where table_name = ?"
Result = TypeVar("Result")


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--files", type=int, default=100_000)
    arguments.add_argument("--symbols", type=int, default=50)
    chosen = arguments.parse_args()
    print(describe())
    with tempfile.TemporaryDirectory() as folder:
        ticks(Path(folder) / "landing", chosen.files)
    with tempfile.TemporaryDirectory() as folder:
        hour(load_settings(home=Path(folder) / "home"), chosen.symbols)


def ticks(landing: Path, files: int) -> None:
    """The sensor's decision over a backlog, then with nothing new, then with every hour changed."""
    print(f"\n{_touch_segments(landing, files):,} segment files of 24 hours")
    memory, slowest = Memory(), 0.0
    for _ in range(24 // RULES.most + 1):
        started = time.perf_counter()
        found = look(landing, memory, NOW, RULES)
        slowest = max(slowest, time.perf_counter() - started)
        memory = Memory.parse(found.memory.text())
    print(f"slowest tick of the backlog, {RULES.most} hours each: {slowest * 1000:.0f} ms")
    _timed("tick with nothing new", lambda: look(landing, memory, NOW, RULES))
    for changed in landing.glob("*/date=*/hour=*"):
        os.utime(changed, (NOW.timestamp() - 3600,) * 2)
    found = _timed("tick after a change of every hour", lambda: look(landing, memory, NOW, RULES))
    assert isinstance(found, Look)


def hour(settings: Settings, symbols: int) -> None:
    """Land an hour of books, then bring it into the lake twice and compute what rests on it."""
    names = [f"C{number}USDT" for number in range(symbols)]
    for exchange in ("binance", "bybit"):
        for second in range(0, SECONDS, FLUSH_S):
            write_segments(settings.landing_dir, "order_book", exchange, _books(exchange, names, second))
    with session(settings, read_only=False) as con:
        bootstrap(con, [*TABLES.values(), *LIVE_TABLES.values()])
    print(f"\none hour, {symbols} instruments x 2 exchanges, {2 * symbols * SECONDS:,} books")
    for step in STEPS:
        process = get_context("spawn").Process(target=_measure, args=(settings.home, step))
        process.start()
        process.join()
        assert process.exitcode == 0, f"{step} failed"


def _measure(home: Path, step: str) -> None:
    """One step of the hour, in the process that this is the whole work of."""
    settings = load_settings(home=home)
    table, work = STEPS[step]
    _timed(step, lambda: work(settings))
    with session(settings) as con:
        ((files,),) = con.execute(FILES, [table]).fetchall()
    print(f"  peak memory {_peak_gib():.2f} GiB; {files} data files of {table}", flush=True)


def _peak_gib() -> float:
    """Most memory that this process had; what `getrusage` tells may be that of the process it was forked from."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20


def _timed(title: str, work: Callable[[], Result]) -> Result:
    wall, processor = time.perf_counter(), time.process_time()
    result = work()
    print(f"{title}: {time.perf_counter() - wall:.3f} s wall, {time.process_time() - processor:.3f} s processor")
    return result


def _touch_segments(landing: Path, files: int) -> int:
    """Empty files under the names of segments: a tick looks at names and times alone."""
    made = 0
    for number in range(24):
        start = DAY + timedelta(hours=number)
        start_ms = int(start.timestamp()) * 1000
        for dataset, count in SEGMENTS_AN_HOUR.items():
            folder = landing / dataset / f"date={start:%Y-%m-%d}" / f"hour={start:%H}"
            folder.mkdir(parents=True)
            for segment in range(min(count, files - made)):
                first_ms = start_ms + segment * 1000
                (folder / f"binance-{first_ms}-{first_ms + 900}-{segment:012x}.parquet").touch()
                made += 1
            os.utime(folder, (NOW.timestamp() - 2 * 3600,) * 2)
    return made


def _books(exchange: str, names: list[str], second: int) -> pa.Table:
    """Random walks, the spread one cent, levels a cent apart."""
    rng = np.random.default_rng(second)
    rows = len(names) * FLUSH_S
    times_us = np.repeat(int(DAY.timestamp()) + second + np.arange(FLUSH_S), len(names)) * 1_000_000
    symbols = pa.array(names * FLUSH_S, pa.string())
    mids = 100.0 + rng.normal(0.0, 0.05, rows)
    steps = 0.005 + 0.01 * np.arange(LEVELS)
    ladder = SCHEMAS["order_book"].field("bid_prices").type
    starts = pa.array(np.arange(0, rows * LEVELS + 1, LEVELS), pa.int32())

    def ladders(values: object) -> pa.Array:
        return pa.ListArray.from_arrays(starts, pa.array(np.asarray(values).reshape(-1)), type=ladder)

    def times(shift_us: int) -> pa.Array:
        return pa.array(times_us - shift_us, pa.timestamp("us", tz="UTC"))

    columns = [
        times(0),
        pa.array([exchange] * rows),
        symbols,
        symbols,
        times(50_000),
        times(20_000),
        pa.array(np.arange(rows)),
        pa.nulls(rows, pa.int64()),
        pa.array(np.full(rows, 10, np.int32)),
        ladders(mids[:, None] - steps),
        ladders(rng.uniform(1.0, 50.0, (rows, LEVELS))),
        ladders(mids[:, None] + steps),
        ladders(rng.uniform(1.0, 50.0, (rows, LEVELS))),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMAS["order_book"])


if __name__ == "__main__":
    main()
