"""Frames are held against their contract before anything is stored, and no value changes its meaning on the way."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pandas as pd
import pytest

from mts_dagster.errors import BadDataError
from mts_dagster.lake.validate import validate_frame
from mts_dagster.schemas import TABLES, Table


def with_column(frame: pd.DataFrame, column: str, values: Sequence[object] | pd.Index | pd.Categorical) -> pd.DataFrame:
    """The frame with other values in one column, in whatever type pandas gives them."""
    changed = frame.copy()
    changed[column] = pd.Series(values)
    return changed


def test_a_good_frame_gets_the_contract_types(every_kind: Table, good_frame: pd.DataFrame) -> None:
    """Types and column order are the contract's, whatever order the frame came in."""
    valid = validate_frame(every_kind, good_frame[good_frame.columns[::-1]])
    assert {name: str(dtype) for name, dtype in valid.dtypes.items()} == {
        "day": "datetime64[ns]",
        "time": "datetime64[us, UTC]",
        "text": "str",
        "share": "float64",
        "whole": "int64",
        "maybe": "Int64",
        "flag": "bool",
    }
    assert valid["whole"].tolist() == [9007199254740993, -1]


MISFITS = [
    ("share", ["1.5", "2"], "numbers expected, found str"),
    ("share", [True, False], "numbers expected, found bool"),
    ("share", [Decimal("1.1"), None], "numbers expected, found object"),
    ("whole", [1.5, 2.0], "whole numbers expected, found float64"),
    ("whole", [float("inf"), 2.0], "whole numbers expected, found float64"),
    ("whole", ["1", "2"], "whole numbers expected, found str"),
    ("whole", [True, False], "whole numbers expected, found bool"),
    ("maybe", [1.5, None], "whole numbers expected, found float64"),
    ("flag", ["no", "yes"], "true or false expected, found str"),
    ("flag", [0, 1], "true or false expected, found int64"),
    ("text", [1, 2], "text expected, found int64"),
    ("day", ["2024-01-01", "2024-01-02"], "days without a time of day expected, found str"),
    ("day", pd.to_datetime(["2024-01-01T13:00", "2024-01-02T00:00"]), "days without a time of day expected"),
    ("time", pd.to_datetime(["2024-01-01", "2024-01-02"]), "times with time zone expected"),
    ("time", ["2024-01-01T00:00Z", "2024-01-02T00:00Z"], "times with time zone expected, found str"),
    ("time", [1704067200000, 1704153600000], "times with time zone expected, found int64"),
]


@pytest.mark.parametrize(("column", "values", "complaint"), MISFITS)
def test_values_of_another_kind_are_refused(
    every_kind: Table,
    good_frame: pd.DataFrame,
    column: str,
    values: Sequence[object] | pd.Index | pd.Categorical,
    complaint: str,
) -> None:
    """Pandas would turn each of these into the column's type by changing what it means."""
    with pytest.raises(BadDataError) as caught:
        validate_frame(every_kind, with_column(good_frame, column, values))
    message = str(caught.value)
    assert message.startswith(f"table raw.every_kind, column {column}: {complaint}")
    assert message.endswith("; nothing stored")
    assert "\n" not in message


SAME_MEANING = [
    ("share", [1, 2], [1.0, 2.0]),
    ("whole", [1.0, 2.0], [1, 2]),
    ("maybe", [1.0, None], [1, pd.NA]),
    ("text", pd.Categorical(["a", "b"]), ["a", "b"]),
    ("day", [date(2024, 1, 1), date(2024, 1, 2)], [pd.Timestamp("2024-01-01"), pd.Timestamp("2024-01-02")]),
    (
        "time",
        pd.to_datetime(["2024-07-01", "2024-01-01"]).tz_localize("Europe/Berlin"),
        [pd.Timestamp("2024-06-30T22:00Z"), pd.Timestamp("2023-12-31T23:00Z")],
    ),
]


@pytest.mark.parametrize(("column", "values", "stored"), SAME_MEANING)
def test_values_of_the_same_meaning_are_taken(
    every_kind: Table,
    good_frame: pd.DataFrame,
    column: str,
    values: Sequence[object] | pd.Index | pd.Categorical,
    stored: list[Any],
) -> None:
    """Whole floats, categories, dates and other zones say the same thing in another type."""
    valid = validate_frame(every_kind, with_column(good_frame, column, values))[column]
    assert [str(value) for value in valid] == [str(value) for value in stored]


@pytest.mark.parametrize(("column", "values"), [("flag", [None, True]), ("whole", [None, 1]), ("day", [None, None])])
def test_nulls_are_found_before_they_become_values(
    every_kind: Table, good_frame: pd.DataFrame, column: str, values: list[Any]
) -> None:
    """``None`` would become ``False``; the message counts the rows."""
    with pytest.raises(BadDataError, match=rf"column {column}: null where it must not be in \d of 2 rows"):
        validate_frame(every_kind, good_frame.assign(**{column: pd.Series(values, dtype=object)}))


def test_a_missing_column_is_named(every_kind: Table, good_frame: pd.DataFrame) -> None:
    """The column that the frame lacks stands in the message."""
    with pytest.raises(BadDataError, match=r"table raw\.every_kind, column flag: missing; nothing stored"):
        validate_frame(every_kind, good_frame.drop(columns="flag"))


def test_an_unknown_column_is_named(every_kind: Table, good_frame: pd.DataFrame) -> None:
    """A column that no contract knows would be lost silently."""
    with pytest.raises(BadDataError, match=r"column rumour: not in the contract; nothing stored"):
        validate_frame(every_kind, good_frame.assign(rumour=1))


def test_a_broken_check_names_count_and_first_rows(every_kind: Table, good_frame: pd.DataFrame) -> None:
    """The reader of the message can find the row: its key and the value."""
    with pytest.raises(BadDataError) as caught:
        validate_frame(every_kind, good_frame.assign(share=[11.5, 2.0]))
    assert str(caught.value) == (
        "table raw.every_kind, column share: 11.5 breaks less_than_or_equal_to(10) in 1 of 2 rows, first: "
        "(day=2024-01-01 00:00:00, text=Zürich 😀); nothing stored"
    )


def test_rows_are_found_by_place_not_by_index(every_kind: Table, good_frame: pd.DataFrame) -> None:
    """A frame that was concatenated has the same index twice; the message still names the right row."""
    frame = good_frame.assign(share=[2.0, 11.5])
    frame.index = pd.Index([7, 7])
    with pytest.raises(BadDataError, match=r"in 1 of 2 rows, first: \(day=2024-01-02"):
        validate_frame(every_kind, frame)


def test_a_check_over_whole_rows_is_told(good_frame: pd.DataFrame) -> None:
    """A candle whose high is below its close is named with its key."""
    time = datetime(2024, 1, 1, tzinfo=UTC)
    candle = {
        "coin": "bitcoin", "venue": "binance", "symbol": "BTCUSDT", "interval": "1h", "open_time": time,
        "close_time": time, "open": 10.0, "high": 11.0, "low": 9.0, "close": 12.0, "volume_base": 1.0,
        "volume_quote_usd": 10.0, "trades": 5, "available_at": time,
    }  # fmt: skip
    with pytest.raises(BadDataError, match=r"whole rows: .*high must be the greatest.*coin=bitcoin"):
        validate_frame(TABLES["klines"], pd.DataFrame([candle]))


def test_an_empty_frame_keeps_its_columns(every_kind: Table, good_frame: pd.DataFrame) -> None:
    """Nothing to say is no error here, and has the contract's types."""
    valid = validate_frame(every_kind, good_frame.iloc[:0].astype(object))
    assert len(valid) == 0
    assert str(valid["time"].dtype) == "datetime64[us, UTC]"


def test_a_table_of_a_sql_model_takes_no_frames(good_frame: pd.DataFrame) -> None:
    """Only SQL writes there."""
    table = Table(schema="marts", name="features", columns=(), key=(), time_column=None)
    with pytest.raises(BadDataError, match=r"marts\.features is written by a SQL model"):
        validate_frame(table, good_frame)
