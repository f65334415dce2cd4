"""Partition keys of a run become slices: as few as possible, and exactly what was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mts_dagster.errors import UsageError
from mts_dagster.lake.slices import Slice
from mts_dagster.partitions import DAY_FORMAT, hour_key, hourly, midnight, slices_of, split_key

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def coin_key(coin: str, day: str) -> dg.MultiPartitionKey:
    return dg.MultiPartitionKey({"coin": coin, "date": day})


def test_one_day_is_one_slice() -> None:
    """Half-open: the next midnight does not belong to it."""
    assert slices_of(["2024-02-29"]) == [Slice(utc("2024-02-29"), utc("2024-03-01"))]


def test_a_range_is_one_slice() -> None:
    """Neighbouring days over the turn of a year, in any order."""
    keys = ["2024-01-01", "2023-12-30", "2023-12-31"]
    assert slices_of(keys) == [Slice(utc("2023-12-30"), utc("2024-01-02"))]


def test_a_gap_begins_a_new_slice() -> None:
    """What lies between must not be touched."""
    assert slices_of(["2024-01-01", "2024-01-02", "2024-01-04"]) == [
        Slice(utc("2024-01-01"), utc("2024-01-03")),
        Slice(utc("2024-01-04"), utc("2024-01-05")),
    ]


def test_hours_are_slices_of_an_hour() -> None:
    """Neighbours over midnight are one slice, a missing hour begins a new one."""
    assert slices_of(["2026-01-31-23:00", "2026-02-01-00:00", "2026-02-01-02:00"]) == [
        Slice(utc("2026-01-31T23:00"), utc("2026-02-01T01:00")),
        Slice(utc("2026-02-01T02:00"), utc("2026-02-01T03:00")),
    ]


def test_the_running_hour_has_a_partition() -> None:
    """The sidecar's newest rows belong to it; the key is the one that Dagster gives."""
    assert hour_key(utc("2026-11-20T13:59:59")) == "2026-11-20-13:00"
    before, newest, after = hour_key(datetime.now(UTC)), hourly.get_last_partition_key(), hour_key(datetime.now(UTC))
    assert newest in (before, after)


def test_coins_and_days_are_one_slice_of_all_coins() -> None:
    """A full grid of coins and neighbouring days is one statement."""
    keys = [coin_key(coin, day) for coin in ("ethereum", "bitcoin") for day in ("2024-01-01", "2024-01-02")]
    assert slices_of(keys) == [Slice(utc("2024-01-01"), utc("2024-01-03"), ("bitcoin", "ethereum"))]


def test_keys_that_are_no_grid_are_refused() -> None:
    """A slice would replace ethereum's second day too, which nobody asked for."""
    keys = [coin_key("bitcoin", "2024-01-01"), coin_key("bitcoin", "2024-01-02"), coin_key("ethereum", "2024-01-01")]
    with pytest.raises(UsageError, match="3 partitions are no full grid of 2 x 2 days"):
        slices_of(keys)


def test_no_keys_are_refused() -> None:
    """Dagster makes a reversed range of dynamic keys an empty, green run."""
    with pytest.raises(UsageError, match="no partitions"):
        slices_of([])


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("2024-01-31", (None, utc("2024-01-31"), DAY)),
        ("2026-01-31-23:00", (None, utc("2026-01-31T23:00"), HOUR)),
        (coin_key("bitcoin", "2024-01-31"), ("bitcoin", utc("2024-01-31"), DAY)),
        (dg.MultiPartitionKey({"indicator": "VIXCLS", "date": "2024-01-31"}), ("VIXCLS", utc("2024-01-31"), DAY)),
    ],
)
def test_a_key_splits_into_member_and_window(key: str, expected: tuple[str | None, datetime, timedelta]) -> None:
    """Whichever side of ``date`` Dagster sorts the other dimension to."""
    assert split_key(key) == expected


days = st.sets(st.integers(0, 60), min_size=1).map(
    lambda offsets: [date(2024, 2, 1) + timedelta(days=offset) for offset in offsets]
)


def days_of(slices: Sequence[Slice]) -> list[date]:
    return [
        (piece.start + offset * DAY).date() for piece in slices for offset in range((piece.end - piece.start) // DAY)
    ]


@given(days=days)
def test_slices_cover_the_days_and_nothing_else(days: list[date]) -> None:
    """Every day exactly once, in order, and no two slices touch."""
    slices = slices_of([day.strftime(DAY_FORMAT) for day in days])
    assert days_of(slices) == sorted(days)
    assert all(left.end < right.start for left, right in pairwise(slices))


@given(days=days, coins=st.sets(st.sampled_from(["bitcoin", "ethereum", "tether", "solana"]), min_size=1))
def test_a_grid_gives_the_same_days_for_all_members(days: list[date], coins: set[str]) -> None:
    """A grid of coins and days has the slices of the days, each with all coins."""
    slices = slices_of([coin_key(coin, day.strftime(DAY_FORMAT)) for day in days for coin in coins])
    assert days_of(slices) == sorted(days)
    assert {piece.members for piece in slices} == {tuple(sorted(coins))}


@given(day=st.dates(date(2000, 1, 1), date(2100, 1, 1)))
def test_midnight_is_the_start_of_the_utc_day(day: date) -> None:
    """Aware, and of that day."""
    moment = midnight(day)
    assert (moment.date(), moment.utcoffset(), moment.time().isoformat()) == (day, timedelta(0), "00:00:00")
