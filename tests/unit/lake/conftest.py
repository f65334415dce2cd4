"""A contract with one column of every kind that a frame can have."""

from __future__ import annotations

import pandas as pd
import pandera.pandas as pa
import pytest
from pandera.typing.pandas import Series

from mts_dagster.schemas import (
    Day,
    Table,
    TableSchema,
    Utc,
    _columns,
    day_column,
    number_column,
    text_column,
    utc_column,
)


class EveryKind(TableSchema):
    """One column of every kind."""

    day: Series[Day] = day_column("A day.")
    time: Series[Utc] = utc_column("A time.")
    text: Series[str] = text_column("Text.", nullable=True)
    share: Series[float] = number_column("A number.", unit="1", nullable=True, le=10)
    whole: Series[int] = number_column("A whole number.", unit="1")
    maybe: Series[pd.Int64Dtype] = number_column("A whole number or nothing.", unit="1", nullable=True)
    flag: Series[bool] = pa.Field(description="True or false.")


@pytest.fixture(scope="session")
def every_kind() -> Table:
    return Table(
        schema="raw",
        name="every_kind",
        columns=_columns(EveryKind),
        key=("day", "text"),
        time_column="day",
        description="One column of every kind.",
        model=EveryKind,
    )


@pytest.fixture
def good_frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "day": pd.to_datetime(["2024-01-01", "2024-01-02"]),
            "time": pd.to_datetime(["2024-01-01T01:02:03.123456Z", "2024-01-02T00:00:00.000001Z"], format="ISO8601"),
            "text": ["Zürich 😀", None],
            "share": [1.5, None],
            "whole": [2**53 + 1, -1],
            "maybe": pd.array([2**53 + 1, None], dtype="Int64"),
            "flag": [True, False],
        }
    )
