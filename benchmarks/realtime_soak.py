"""The soak: the sidecar under a random fault every few seconds, and what must hold all the same.

What belongs here: the simulator and the sidecar as processes, faults thrown at them, and the verdict from the landed
data and the process's own numbers. ``python benchmarks/realtime_soak.py --minutes 10`` ends with 0 when everything
held: books sorted and uncrossed, no row twice, every second a row or a declared gap, memory and files flat.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import requests

from mts_realtime.landing import list_segments, read_segments

FAULTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("reset", {}),
    ("close", {}),
    ("slow_close", {"hold_s": 5.0}),
    ("half_open", {"hold_s": 20.0}),
    ("silence", {}),
    ("refuse", {"status": 429, "retry_after": "2", "topic": "*"}),
    ("refuse", {"status": 503, "topic": "*"}),
    ("drop", {}),
    ("duplicate", {}),
    ("swap", {}),
    ("restart", {"venue": "bybit"}),
    ("burst", {"hold_s": 1.0}),
    ("crossed", {}),
    ("malformed", {}),
    ("extra_field", {}),
    ("missing_field", {}),
    ("wrong_type", {}),
)
_GRID_US = 1_000_000


@contextlib.contextmanager
def _process(command: list[str], **options: object) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, text=True, **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
        process.kill()
        process.wait()


def _addresses(simulator: subprocess.Popen[str]) -> dict[str, str]:
    """The environment variables that the simulator prints."""
    found: dict[str, str] = {}
    assert simulator.stdout is not None
    for line in simulator.stdout:
        match = re.search(r"(MTS_\w+)=(\S+)", line)
        if match:
            found[match[1]] = match[2].strip("\"'")
        if "MTS_BYBIT_REQUESTS_PER_5S" in found:
            return found
    raise SystemExit("the simulator ended before it printed its addresses")


def _throw(root: str, rng: random.Random) -> str:
    """One random fault; returns its name."""
    kind, members = rng.choice(FAULTS)
    fault = {"kind": kind, "venue": rng.choice(["binance", "bybit", "*"]), "times": rng.randint(1, 3), **members}
    requests.post(f"{root}/control/stream-faults", json=fault, timeout=5).raise_for_status()
    return kind


def _memory_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - only their number


def broken_books(rows: pa.Table) -> int:
    """Sampled books that are not strictly sorted, positive and uncrossed."""
    broken = 0
    for row in rows.select(["bid_prices", "bid_sizes", "ask_prices", "ask_sizes"]).to_pylist():
        bids, asks = np.array(row["bid_prices"]), np.array(row["ask_prices"])
        sizes = np.array(row["bid_sizes"] + row["ask_sizes"])
        sorted_well = (np.diff(bids) < 0).all() and (np.diff(asks) > 0).all()
        crossed = len(bids) and len(asks) and bids[0] >= asks[0]
        broken += not sorted_well or bool(crossed) or bool((sizes <= 0).any())
    return broken


def repeated_rows(rows: pa.Table) -> int:
    """Rows whose exchange, symbol and time exist twice."""
    keys = rows.select(["exchange", "symbol", "timestamp"])
    return int(rows.num_rows - keys.group_by(["exchange", "symbol", "timestamp"]).aggregate([]).num_rows)


def undeclared_seconds(rows: pa.Table, gaps: pa.Table) -> list[str]:
    """Grid times between the first and the last that are neither a row nor inside a gap of the same book."""
    missing = []
    for exchange, symbol in sorted({(row["exchange"], row["symbol"]) for row in gaps.to_pylist()}):
        mine = pc.and_(pc.equal(rows["exchange"], exchange), pc.equal(rows["symbol"], symbol))
        grid = set(pc.cast(rows.filter(mine)["timestamp"], pa.int64()).to_pylist())
        theirs = pc.and_(pc.equal(gaps["exchange"], exchange), pc.equal(gaps["symbol"], symbol))
        own = gaps.filter(pc.and_(theirs, pc.equal(gaps["dataset"], "order_book")))
        spans = [
            (start, end)
            for start, end in zip(
                pc.cast(own["gap_start"], pa.int64()).to_pylist(),
                pc.cast(own["gap_end"], pa.int64()).to_pylist(),
                strict=True,
            )
        ]
        if not grid:
            continue
        missing += [
            f"{exchange} {symbol} {moment}"
            for moment in range(min(grid), max(grid), _GRID_US)
            if moment not in grid and not any(start <= moment <= end for start, end in spans)
        ]
    return missing


def _verdict(landing: Path, memory: list[float], files: list[int], exit_code: int) -> list[str]:
    """What did not hold, empty when all did."""
    rows = read_segments(list_segments(landing, "order_book"), "order_book")
    gaps = read_segments(list_segments(landing, "gaps"), "gaps")
    quarter = len(memory) // 4
    early, late = statistics.median(memory[quarter : 2 * quarter]), statistics.median(memory[-quarter:])
    early_files, late_files = statistics.median(files[quarter : 2 * quarter]), statistics.median(files[-quarter:])
    undeclared = undeclared_seconds(rows, gaps)
    print(f"{rows.num_rows:,} sampled books, {gaps.num_rows:,} gap rows; memory {early:.0f} -> {late:.0f} MiB, "
          f"files {early_files:.0f} -> {late_files:.0f}")  # fmt: skip
    findings = {
        f"exit code {exit_code}": exit_code != 0,
        "no book landed": not rows.num_rows,
        f"{broken_books(rows)} broken books": broken_books(rows) > 0,
        f"{repeated_rows(rows)} repeated rows": repeated_rows(rows) > 0,
        f"{len(undeclared)} undeclared seconds, first {undeclared[:3]}": bool(undeclared),
        f"memory grew from {early:.0f} to {late:.0f} MiB": late > 1.15 * early + 5,
        f"open files grew from {early_files:.0f} to {late_files:.0f}": late_files > early_files + 3,
    }
    return [finding for finding, holds in findings.items() if holds]


def main() -> int:
    """Run the soak; returns 0 when everything held."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--every", type=float, default=4.0, help="seconds between faults, on average")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10_000)
    options = parser.parse_args()
    rng = random.Random(options.seed)  # noqa: S311 - a soak that can be repeated
    print(f"soak of {options.minutes:g} minutes, seed {options.seed}", flush=True)
    memory: list[float] = []
    files: list[int] = []
    thrown: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as home:
        simulate = [sys.executable, "-m", "mts_simulator"]
        with _process(simulate, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as simulator:
            addresses = _addresses(simulator)
            root = addresses["MTS_BINANCE_URL"].rsplit("/", 1)[0]
            environment = {
                **{name: value for name, value in os.environ.items() if not name.startswith("MTS_")},
                **addresses,
                "MTS_HOME": home,
                "MTS_FEED_PORT": "0",
                "MTS_SILENCE_S": "8",
                "MTS_CONNECTION_SILENCE_S": "6",
                "MTS_SUBSCRIBE_TIMEOUT_S": "5",
                "MTS_BACKOFF_CAP_S": "5",
                "MTS_BINANCE_ROTATE_S": "45",
                "MTS_BYBIT_ROTATE_S": "60",
            }
            with _process([sys.executable, "-m", "mts_realtime"], env=environment, stderr=subprocess.DEVNULL) as side:
                end = time.monotonic() + options.minutes * 60
                due = time.monotonic() + 10
                while time.monotonic() < end and side.poll() is None:
                    time.sleep(0.5)
                    memory.append(_memory_mib(side.pid))
                    files.append(_files(side.pid))
                    if time.monotonic() >= due:
                        kind = _throw(root, rng)
                        thrown[kind] = thrown.get(kind, 0) + 1
                        due = time.monotonic() + rng.uniform(0.5, 2.0 * options.every)
                side.send_signal(signal.SIGTERM)
                exit_code = side.wait(15)
        print(f"faults: {dict(sorted(thrown.items()))}")
        findings = _verdict(Path(home) / "landing", memory, files, exit_code)
    for finding in findings:
        print(f"FAILED: {finding}")
    print("the soak failed" if findings else "everything held")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
