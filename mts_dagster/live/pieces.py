"""Cutting an hour into pieces that fit into memory, however many rows it has.

What belongs here: where to cut. Borders lie on whole seconds, so that rows of one key, which holds its timestamp, are
always in one piece.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mts_dagster.lake.slices import Slice
from mts_dagster.schemas import Table

SECONDS = 3600
US_PER_S = 1_000_000


def cut(hour: Slice, rows_a_second: NDArray[np.int64], most: int) -> list[Slice]:
    """Consecutive pieces of an hour with at most so many rows each, a single second aside.

    Args:
        hour: start and end are those of an hour.
        rows_a_second: rows of each second of it.
        most: rows of a piece.

    Returns:
        At least one piece; together they are the hour.
    """
    borders = [0]
    rows = 0
    for second, count in enumerate(rows_a_second.tolist()):
        if rows and rows + count > most:
            borders.append(second)
            rows = 0
        rows += count
    moments = [hour.start + timedelta(seconds=second) for second in borders]
    return [replace(hour, start=start, end=end) for start, end in zip(moments, [*moments[1:], hour.end], strict=True)]


def stored_rows_a_second(
    con: duckdb.DuckDBPyConnection, table: Table, hour: Slice, condition: str = "true"
) -> NDArray[np.int64]:
    """How many stored rows of an hour there are for each second of it.

    Args:
        con: connection to the lake.
        table: a live table.
        hour: start and end are those of an hour.
        condition: which of its rows are counted, in SQL.
    """
    inside, bounds = hour.predicate(table)
    counted = con.execute(
        f"select epoch_us({table.time_column}) // {US_PER_S} % {SECONDS}, count(*) from {table.qualified} "  # noqa: S608 - a contract
        f"where {inside} and {condition} group by 1",
        bounds,
    ).fetchnumpy()
    seconds, counts = counted.values()
    return np.bincount(np.asarray(seconds, np.int64), np.asarray(counts), minlength=SECONDS).astype(np.int64)


def second_of_hour(times: pa.ChunkedArray) -> NDArray[Any]:
    """Seconds since the start of the hour, of timestamps in microseconds."""
    return np.asarray(times.cast(pa.int64())) // US_PER_S % SECONDS
