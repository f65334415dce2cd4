"""Holding a frame against its contract, with an answer that a person can act on.

What belongs here: turning pandera's findings into one line that names table, column, count and first rows.
"""

from __future__ import annotations

import pandas as pd
from pandas.api.types import infer_dtype, is_datetime64_any_dtype
from pandera.errors import SchemaErrors

from mts_dagster.errors import BadDataError
from mts_dagster.schemas import Column, Table

SHOWN_ROWS = 3
FLOATING = {"floating", "mixed-integer-float"}
# Kinds of values, in the words of pandas, that a column takes; "empty" is a column of nulls.
KINDS = {
    "DOUBLE": {"integer", "integer-na", "empty", *FLOATING},
    "BIGINT": {"integer", "integer-na", "empty", *FLOATING},
    "BOOLEAN": {"boolean", "empty"},
    "DATE": {"date", "empty"},
    "VARCHAR": {"string", "empty", "categorical"},
}
WANTED = {
    "TIMESTAMPTZ": "times with time zone",
    "DATE": "days without a time of day",
    "DOUBLE": "numbers",
    "BIGINT": "whole numbers",
    "BOOLEAN": "true or false",
    "VARCHAR": "text",
}


def validate_frame(table: Table, frame: pd.DataFrame) -> pd.DataFrame:
    """Return ``frame`` in the contract's types and column order, with a plain index.

    Integers may become floats and whole floats integers; text never becomes a number, a number never a time.

    Raises:
        BadDataError: a column is missing, unknown, of another kind or without time zone, or a value breaks a check.
    """
    if table.model is None:
        raise BadDataError(f"table {table.qualified} is written by a SQL model, not from frames")
    frame = frame.reset_index(drop=True)
    for column in table.columns:
        if column.name in frame and len(frame):
            _check_kind(table, frame, column)
            _check_nulls(table, frame, column)
    try:
        valid = table.model.validate(frame, lazy=True)
    except SchemaErrors as error:
        raise BadDataError(_describe(table, frame, error)) from None
    return valid[[column.name for column in table.columns]]


def _check_kind(table: Table, frame: pd.DataFrame, column: Column) -> None:
    """Refuse values that pandas would turn into the column's type by changing what they mean."""
    values = frame[column.name]
    wrong = _misfits(values, column.sql_type)
    if wrong.any():
        dtype = values.dtype
        raise BadDataError(
            f"table {table.qualified}, column {column.name}: {WANTED[column.sql_type]} expected, found {dtype} in "
            f"{_place(table, frame, wrong)}, first value: {values[wrong].iloc[0]}; nothing stored"
        )


def _misfits(values: pd.Series, sql_type: str) -> pd.Series:
    """True for each value that is not of the kind that ``sql_type`` stores."""
    present = values.notna()
    kind = infer_dtype(values, skipna=True)
    if sql_type == "TIMESTAMPTZ":
        # A time without zone would be taken for UTC; it usually is a local time.
        fits = isinstance(values.dtype, pd.DatetimeTZDtype)
    elif sql_type == "DATE" and is_datetime64_any_dtype(values.dtype):
        has_time_of_day: pd.Series = values != values.dt.normalize()
        return present & has_time_of_day
    else:
        fits = kind in KINDS.get(sql_type, {kind})
    if fits and sql_type == "BIGINT" and kind in FLOATING:
        return present & (values.astype("float64") % 1 != 0)
    return present & (not fits)


def _check_nulls(table: Table, frame: pd.DataFrame, column: Column) -> None:
    """Find nulls before pandas makes ``False`` out of ``None``."""
    null = frame[column.name].isna()
    if not column.nullable and null.any():
        raise BadDataError(
            f"table {table.qualified}, column {column.name}: null where it must not be in "
            f"{_place(table, frame, null)}; nothing stored"
        )


def _place(table: Table, frame: pd.DataFrame, wrong: pd.Series) -> str:
    """How many rows are wrong, and the keys of the first of them."""
    shown = [_row(table, frame, index) for index in frame.index[wrong][:SHOWN_ROWS]]
    return f"{int(wrong.sum())} of {len(frame)} rows, first: {'; '.join(shown)}"


def _describe(table: Table, frame: pd.DataFrame, error: SchemaErrors) -> str:
    """One line for the first broken check, with a count of the others."""
    cases = error.failure_cases
    first = cases.iloc[0]
    same = cases[(cases["check"] == first["check"]) & (cases["column"].astype(str) == str(first["column"]))]
    problem = f"table {table.qualified}, {_subject(first)}: {_complaint(first)}"
    rows = [index for index in same["index"].drop_duplicates().tolist() if not pd.isna(index)]
    if rows:
        problem += f" in {_place(table, frame, pd.Series(frame.index.isin(rows), index=frame.index))}"
    others = cases[["column", "check"]].astype(str).drop_duplicates().shape[0] - 1
    more = f"; {others} more checks failed" if others else ""
    return f"{problem}{more}; nothing stored"


def _subject(case: pd.Series) -> str:
    if case["schema_context"] == "Column":
        return f"column {case['column']}"
    if case["check"] in {"column_in_dataframe", "column_in_schema"}:
        return f"column {case['failure_case']}"
    return "whole rows"


def _complaint(case: pd.Series) -> str:
    known = {
        "column_in_dataframe": "missing",
        "column_in_schema": "not in the contract",
        "not_nullable": "null where it must not be",
    }
    return known.get(str(case["check"]), f"{case['failure_case']} breaks {case['check']}")


def _row(table: Table, frame: pd.DataFrame, index: int) -> str:
    row = frame.iloc[index]
    named = [f"{name}={row[name]}" for name in frame.columns if name in table.key]
    return "(" + ", ".join(named or [f"row {index}"]) + ")"
