"""Macro values as they were known at the end of each day: vintages, forward fill and its bound."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import pytest

Add = Callable[..., None]
Build = Callable[[str, str], None]
Select = Callable[[str], list[dict[str, Any]]]


def values(select: Select) -> list[tuple[int, float | None]]:
    return [
        (row["date"].day, row["value"])
        for row in select("select date, value from marts.macro_daily order by indicator, date")
    ]


def test_row_says_what_was_known(observe: Add, build: Build, select: Select) -> None:
    """Friday's value is published on Monday, so on Monday it is three days old and not filled."""
    observe("2024-01-05", 13.35, "2024-01-08")
    build("2024-01-08", "2024-01-09")
    assert select("select * from marts.macro_daily") == [
        {
            "indicator": "VIXCLS",
            "date": date(2024, 1, 8),
            "value": 13.35,
            "observation_date": date(2024, 1, 5),
            "days_since_observation": 3,
            "is_filled": False,
            "is_stale": False,
            "is_weekend": False,
            "vintage_date": date(2024, 1, 8),
            "pit_quality": "vintage",
            "available_at": datetime(2024, 1, 9, tzinfo=UTC),
        }
    ]


def test_every_day_has_a_row(observe: Add, build: Build, select: Select) -> None:
    """Weekend days carry on what was known before them, and say so."""
    observe("2024-01-04", 14.13, "2024-01-05")
    observe("2024-01-05", 13.35, "2024-01-08")
    build("2024-01-05", "2024-01-10")
    rows = select("select date, value, is_filled, is_weekend from marts.macro_daily order by date")
    assert [tuple(row.values())[1:] for row in rows] == [
        (14.13, False, False),
        (14.13, True, True),
        (14.13, True, True),
        (13.35, False, False),
        (13.35, True, False),
    ]


@pytest.mark.parametrize(("known", "value"), [("2024-01-06 00:00", 13.35), ("2024-01-06 00:01", 14.13)])
def test_availability_decides(observe: Add, build: Build, select: Select, known: str, value: float) -> None:
    """What becomes known at midnight still belongs to the day; a minute later it does not."""
    observe("2024-01-04", 14.13, "2024-01-05")
    observe("2024-01-05", 13.35, "2024-01-05", known=known)
    build("2024-01-05", "2024-01-06")
    assert values(select) == [(5, value)]


def test_revision_counts_from_its_own_day(observe: Add, build: Build, select: Select) -> None:
    """A revised value replaces the first one only from the day on which the revision was published."""
    observe("2024-01-04", 100.0, "2024-01-05")
    observe("2024-01-04", 101.0, "2024-01-07")
    build("2024-01-05", "2024-01-09")
    assert values(select) == [(5, 100.0), (6, 100.0), (7, 101.0), (8, 101.0)]
    filled = select("select is_filled from marts.macro_daily order by date")
    assert [row["is_filled"] for row in filled] == [False, True, False, True]


def test_missing_value_is_passed_over(observe: Add, build: Build, select: Select) -> None:
    """A holiday's empty observation leaves the last real one in place."""
    observe("2024-01-12", 12.7, "2024-01-13")
    observe("2024-01-15", None, "2024-01-16")
    build("2024-01-16", "2024-01-17")
    assert select("select value, observation_date, is_filled from marts.macro_daily") == [
        {"value": 12.7, "observation_date": date(2024, 1, 12), "is_filled": True}
    ]


def test_withdrawn_value_falls_back(observe: Add, build: Build, select: Select) -> None:
    """If a later vintage takes a value back, the observation before it stands again."""
    observe("2024-01-03", 1.0, "2024-01-04")
    observe("2024-01-04", 2.0, "2024-01-05")
    observe("2024-01-04", None, "2024-01-06")
    build("2024-01-05", "2024-01-07")
    assert values(select) == [(5, 2.0), (6, 1.0)]


def test_late_old_observation_does_not_displace_a_newer_one(observe: Add, build: Build, select: Select) -> None:
    """A gap filled in later is no newer observation, so the latest one still stands."""
    observe("2024-01-04", 2.0, "2024-01-05")
    observe("2024-01-03", 1.0, "2024-01-06")
    build("2024-01-06", "2024-01-07")
    assert values(select) == [(6, 2.0)]


def test_no_row_before_anything_is_known(observe: Add, build: Build, select: Select) -> None:
    """An indicator's rows begin on the day on which its first value is published."""
    observe("2024-01-02", 1.0, "2024-01-04")
    build("2024-01-01", "2024-01-06")
    assert values(select) == [(4, 1.0), (5, 1.0)]


@pytest.mark.parametrize(("indicator", "last_day"), [("VIXCLS", 12), ("DTWEXBGS", 23)])
def test_fill_has_a_bound(observe: Add, build: Build, select: Select, indicator: str, last_day: int) -> None:
    """An observation stands for 10 days, of the weekly published dollar index for 21; then the value is stale."""
    observe("2024-01-02", 1.0, "2024-01-03", indicator=indicator)
    build("2024-01-03", "2024-01-31")
    rows = select("select date, value, is_stale, observation_date from marts.macro_daily order by date")
    assert [row["date"].day for row in rows] == list(range(3, 31))
    assert [row["date"].day for row in rows if row["value"] is not None] == list(range(3, last_day + 1))
    assert all(row["is_stale"] == (row["value"] is None) for row in rows)
    assert {row["observation_date"] for row in rows} == {date(2024, 1, 2)}


@pytest.mark.parametrize("start", ["2024-01-03", "2024-06-01"])
def test_silent_series_keeps_its_rows(observe: Add, build: Build, select: Select, start: str) -> None:
    """After more silence than the model looks back, days still have rows, stale and empty, in any window."""
    observe("2024-01-02", 1.0, "2024-01-03")
    build(start, "2024-06-02")
    columns = "value, is_stale, is_filled, observation_date"
    (row,) = select(f"select {columns} from marts.macro_daily where date = '2024-06-01'")
    assert tuple(row.values()) == (None, True, False, None)


def test_value_of_a_day_to_come_does_not_count(observe: Add, build: Build, select: Select) -> None:
    """A value dated ahead of the day waits for its day, whenever it was published."""
    observe("2024-01-02", 1.0, "2024-01-03")
    observe("2024-01-05", 2.0, "2024-01-03")
    build("2024-01-03", "2024-01-06")
    assert values(select) == [(3, 1.0), (4, 1.0), (5, 2.0)]


def test_indicators_do_not_mix(observe: Add, build: Build, select: Select) -> None:
    """Each indicator is filled from its own values."""
    observe("2024-01-02", 1.0, "2024-01-03")
    observe("2024-01-02", 5.0, "2024-01-03", indicator="DFF")
    build("2024-01-04", "2024-01-05")
    rows = select("select indicator, value from marts.macro_daily order by indicator")
    assert [tuple(row.values()) for row in rows] == [("DFF", 5.0), ("VIXCLS", 1.0)]
