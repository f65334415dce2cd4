"""Reading slices of a table into pandas frames.

What belongs here: plain reads with parameters, in the contract's types. Anything that joins or computes belongs in a
SQL model.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pandas as pd

from mts_dagster.lake.shared import session
from mts_dagster.lake.slices import Slice, any_of
from mts_dagster.lake.text import listed
from mts_dagster.schemas import Column, Table
from mts_dagster.settings import Settings

# What validation makes of a column before it is stored, and so what reading gives back, with or without nulls.
DTYPES = {
    "TIMESTAMPTZ": "datetime64[us, UTC]",
    "DATE": "datetime64[ns]",
    "DOUBLE": "float64",
    "BIGINT": "int64",
    "BOOLEAN": "bool",
    "VARCHAR": "str",
}
NULLABLE_DTYPES = {"BIGINT": "Int64", "BOOLEAN": "boolean"}


def read_slices(
    con: duckdb.DuckDBPyConnection, table: Table, slices: Sequence[Slice] | None = None, *, snapshot: int | None = None
) -> pd.DataFrame:
    """Rows of ``table`` inside ``slices`` (all rows for None), ordered by key, in the contract's columns and types.

    Of the lake as ``snapshot`` left it, if given.
    """
    where, parameters = any_of(table, slices)
    moment = "" if snapshot is None else f" at (version => {snapshot:d})"
    select = f"select {listed(column.name for column in table.columns)} from {table.qualified}{moment} where {where}"
    frame = con.execute(f"{select} order by {listed(table.key)}", parameters).df()
    return frame.astype({column.name: dtype for column in table.columns if (dtype := _dtype(column))})


def read_tables(settings: Settings, parts: Sequence[tuple[Table, Sequence[Slice] | None]]) -> list[pd.DataFrame]:
    """Slices of several tables over one connection, in the order asked for."""
    with session(settings) as con:
        return [read_slices(con, table, slices) for table, slices in parts]


def count_rows(con: duckdb.DuckDBPyConnection, table: Table, slices: Sequence[Slice] | None = None) -> int:
    """Number of rows of ``table`` inside ``slices``."""
    where, parameters = any_of(table, slices)
    row = con.execute(f"select count(*) from {table.qualified} where {where}", parameters).fetchone()
    return int(row[0]) if row else 0


def _dtype(column: Column) -> str | None:
    """None for types that no frame contract has (SQL models may): those stay as DuckDB gives them."""
    plain = DTYPES.get(column.sql_type)
    return NULLABLE_DTYPES.get(column.sql_type, plain) if column.nullable else plain
