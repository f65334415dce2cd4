"""Replace a day like ``replace_days.py``, and be killed by the kernel on the way: ``die_between.py STATEMENTS``.

1: between the delete and the insert. 2: between the insert and the commit.
"""

from __future__ import annotations

import os
import signal
import sys

import duckdb
import replace_days  # type: ignore[import-not-found]  # the script beside this one

from mts_dagster.lake import replace

count = replace._count


def die_in_time(result: duckdb.DuckDBPyConnection) -> int:
    """A replacement counts first its deleted, then its inserted rows."""
    done = count(result)
    print(f"done {done}", flush=True)  # noqa: T201 - the test listens
    statements.append(done)
    if len(statements) == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return done


if __name__ == "__main__":
    statements: list[int] = []
    replace._count = die_in_time
    replace_days.main(writer=9, count=1, days=1)
