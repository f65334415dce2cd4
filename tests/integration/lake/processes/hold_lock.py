"""Hold the writer lock in an open transaction: ``hold_lock.py [SECONDS]``, else until a line comes in.

Prints ``held``, and ``released`` when it is over.
"""

from __future__ import annotations

import sys
import threading

from mts_dagster.lake import connect, write


def main(seconds: float | None) -> None:
    con = connect(read_only=False)
    with write(con):
        print("held", flush=True)  # noqa: T201 - the test listens
        if seconds is None:
            sys.stdin.readline()
        else:
            threading.Event().wait(seconds)
    con.close()
    print("released", flush=True)  # noqa: T201 - the test listens


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else None)
