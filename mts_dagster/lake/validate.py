"""Holding a frame against its contract, with an answer that a person can act on.

What belongs here: turning pandera's findings into one line that names table, column, count and first rows.
"""

from __future__ import annotations

import pandas as pd
from pandera.errors import SchemaErrors

from mts_dagster.errors import BadDataError
from mts_dagster.schemas import Table

SHOWN_ROWS = 3


def validate_frame(table: Table, frame: pd.DataFrame) -> pd.DataFrame:
    """Return ``frame`` in the contract's types and column order.

    Raises:
        BadDataError: a column is missing, unknown, of another type or without time zone, or a value breaks a check.
    """
    if table.model is None:
        raise BadDataError(f"table {table.qualified} is written by a SQL model, not from frames")
    _check_zones(table, frame)
    try:
        valid = table.model.validate(frame, lazy=True)
    except SchemaErrors as error:
        raise BadDataError(_describe(table, frame, error)) from None
    return valid[[column.name for column in table.columns]]


def _check_zones(table: Table, frame: pd.DataFrame) -> None:
    """A time without zone would be taken for UTC; refuse it, it usually is a local time."""
    for column in table.columns:
        if column.sql_type != "TIMESTAMPTZ" or column.name not in frame:
            continue
        dtype = frame[column.name].dtype
        if isinstance(dtype, pd.DatetimeTZDtype) or not len(frame):
            continue
        raise BadDataError(
            f"table {table.qualified}, column {column.name}: times without time zone ({dtype}), first: "
            f"{frame[column.name].iloc[0]}; give aware UTC times; nothing stored"
        )


def _describe(table: Table, frame: pd.DataFrame, error: SchemaErrors) -> str:
    """One line for the first broken check, with a count of the others."""
    cases = error.failure_cases
    first = cases.iloc[0]
    same = cases[(cases["check"] == first["check"]) & (cases["column"].astype(str) == str(first["column"]))]
    problem = f"table {table.qualified}, {_subject(first)}: {_complaint(first)}"
    rows = [index for index in same["index"].drop_duplicates().tolist() if not pd.isna(index)]
    if rows:
        shown = [_row(table, frame, index) for index in rows[:SHOWN_ROWS]]
        problem += f" in {len(rows)} of {len(frame)} rows, first: {'; '.join(shown)}"
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
    return known.get(str(case["check"]), f"{case['failure_case']!r} breaks {case['check']}")


def _row(table: Table, frame: pd.DataFrame, index: object) -> str:
    if index not in frame.index:
        return str(index)
    row = frame.loc[[index]].iloc[0]
    named = [f"{name}={row[name]}" for name in frame.columns if name in table.key]
    return "(" + ", ".join(named or [f"row {index}"]) + ")"
