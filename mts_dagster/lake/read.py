"""Reading slices of a table into pandas frames.

What belongs here: plain reads with parameters. Anything that joins or computes belongs in a SQL model.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pandas as pd

from mts_dagster.lake.connection import connect
from mts_dagster.lake.slices import Slice
from mts_dagster.schemas import Table
from mts_dagster.settings import Settings


def read_slices(con: duckdb.DuckDBPyConnection, table: Table, slices: Sequence[Slice] | None = None) -> pd.DataFrame:
    """Rows of ``table`` inside ``slices`` (all rows for None), ordered by key, in the contract's columns."""
    columns = ", ".join(f'"{column.name}"' for column in table.columns)
    where, parameters = _where(table, slices)
    order = ", ".join(f'"{column}"' for column in table.key)
    return con.execute(f"select {columns} from {table.qualified} where {where} order by {order}", parameters).df()


def read_tables(
    settings: Settings, parts: Sequence[tuple[Table, Sequence[Slice] | None]]
) -> list[pd.DataFrame]:
    """Slices of several tables over one connection, in the order asked for."""
    con = connect(settings=settings)
    try:
        return [read_slices(con, table, slices) for table, slices in parts]
    finally:
        con.close()


def count_rows(con: duckdb.DuckDBPyConnection, table: Table, slices: Sequence[Slice] | None = None) -> int:
    """Number of rows of ``table`` inside ``slices``."""
    where, parameters = _where(table, slices)
    row = con.execute(f"select count(*) from {table.qualified} where {where}", parameters).fetchone()
    return int(row[0]) if row else 0


def _where(table: Table, slices: Sequence[Slice] | None) -> tuple[str, list[object]]:
    if slices is None:
        return "true", []
    conditions = [piece.predicate(table) for piece in slices]
    text = " or ".join(f"({condition})" for condition, _ in conditions) or "false"
    return text, [value for _, values in conditions for value in values]
