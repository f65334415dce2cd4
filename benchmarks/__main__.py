"""``python -m benchmarks``: all measurements, one after the other."""

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
SUITES = (
    "history",
    "lake_writes",
    "dagster_events",
    "live_hours",
    "realtime_bench",
    "parameter_search",
    "backtest_speed",
)

for name in SUITES:
    sys.stdout.write(f"\n== {name}\n")
    sys.stdout.flush()
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True, cwd=FOLDER.parent)
