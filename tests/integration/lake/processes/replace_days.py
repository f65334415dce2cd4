"""Replace whole days of one coin, one transaction each: ``replace_days.py WRITER COUNT DAYS``.

Prints ``ready``, waits for a line, then prints one line after each commit. Replacement ``i`` is of day ``i % DAYS`` and
writes 24 rows with the price ``WRITER * 1000 + i``, so that a row tells who wrote it.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

import pandas as pd

from mts_dagster.lake import connect
from mts_dagster.lake.replace import replace_frame
from mts_dagster.lake.slices import Slice
from mts_dagster.lake.tables import bootstrap
from mts_dagster.lake.transaction import Origin
from mts_dagster.schemas import TABLES

TABLE = TABLES["price_points"]


def main(writer: int, count: int, days: int) -> None:
    print("ready", flush=True)  # noqa: T201 - the test listens
    sys.stdin.readline()
    con = connect(read_only=False)
    bootstrap(con, [TABLE])
    for i in range(count):
        start = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=i % days)
        times = pd.date_range(start, periods=24, freq="h", unit="us")
        frame = pd.DataFrame(
            {
                "coin": "bitcoin",
                "sampled_at": times,
                "price_usd": float(writer * 1000 + i),
                "market_cap_usd": 1.0,
                "volume_24h_usd": 1.0,
                "source_tier": "demo",
                "available_at": times,
            }
        )
        origin = Origin("raw/price_points", f"writer-{writer}", "v1", str(start.date()))
        replace_frame(con, TABLE, [Slice(start, start + timedelta(days=1), ("bitcoin",))], frame, origin)
        print(f"committed {i}", flush=True)  # noqa: T201 - the test listens
    con.close()


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
