"""Replace a day like ``replace_days.py``, and be killed by the kernel between its delete and its insert."""

from __future__ import annotations

import os
import signal

import duckdb
import replace_days  # type: ignore[import-not-found]  # the script beside this one

from mts_dagster.lake import replace

count = replace._count


def die_after_the_delete(result: duckdb.DuckDBPyConnection) -> int:
    """The first count of a replacement is that of its deleted rows."""
    print(f"deleted {count(result)}", flush=True)  # noqa: T201 - the test listens
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL does not return")


if __name__ == "__main__":
    replace._count = die_after_the_delete
    replace_days.main(writer=9, count=1, days=1)
