"""Partition keys become half-open slices, and slices become conditions with parameters."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mts_dagster.errors import UsageError
from mts_dagster.lake.slices import Slice, any_of, in_words
from mts_dagster.partitions import slices_of
from mts_dagster.schemas import TABLES

JAN_1 = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def key(coin: str, day: date) -> dg.MultiPartitionKey:
    return dg.MultiPartitionKey({"coin": coin, "date": day.isoformat()})


def test_neighbouring_days_become_one_slice() -> None:
    """Three days in a row are one half-open window."""
    assert slices_of(["2024-01-03", "2024-01-01", "2024-01-02"]) == [Slice(JAN_1, JAN_1 + 3 * DAY)]


def test_a_gap_between_days_parts_the_slices() -> None:
    """Days that were not asked for lie in no slice."""
    assert slices_of(["2024-01-01", "2024-01-03"]) == [
        Slice(JAN_1, JAN_1 + DAY),
        Slice(JAN_1 + 2 * DAY, JAN_1 + 3 * DAY),
    ]


def test_all_members_share_the_days() -> None:
    """Two coins on two days are one slice with both coins."""
    keys = [key(coin, day) for coin in ("ethereum", "bitcoin") for day in (date(2024, 1, 1), date(2024, 1, 2))]
    assert slices_of(keys) == [Slice(JAN_1, JAN_1 + 2 * DAY, ("bitcoin", "ethereum"))]


def test_no_keys_are_an_error() -> None:
    """A reversed range yields no keys; replacing nothing and turning green would hide it."""
    with pytest.raises(UsageError, match="no partitions"):
        slices_of([])


def test_a_broken_grid_is_an_error() -> None:
    """Two coins with different days cannot be replaced as a product of both."""
    with pytest.raises(UsageError, match="no full grid"):
        slices_of([key("bitcoin", date(2024, 1, 1)), key("ethereum", date(2024, 1, 2))])


@given(st.sets(st.integers(0, 60), min_size=1))
def test_slices_hold_exactly_the_days_asked_for(offsets: set[int]) -> None:
    """Whatever days are asked for: each lies in one slice, no other day lies in any, no two slices touch."""
    days = [(JAN_1 + offset * DAY).date() for offset in offsets]
    slices = slices_of([day.isoformat() for day in days])
    held = [(piece.start + i * DAY).date() for piece in slices for i in range((piece.end - piece.start).days)]
    assert sorted(held) == sorted(days)
    assert all(earlier.end < later.start for earlier, later in pairwise(slices))


def test_values_never_enter_the_text() -> None:
    """A coin with a quote in its name stays a parameter."""
    condition, parameters = Slice(JAN_1, JAN_1 + DAY, ("o'coin", "b")).predicate(TABLES["price_points"])
    assert condition == '"sampled_at" >= ? and "sampled_at" < ? and "coin" in (?, ?)'
    assert parameters == [JAN_1, JAN_1 + DAY, "o'coin", "b"]


def test_day_columns_are_compared_with_days() -> None:
    """A DATE column gets dates, not midnights."""
    condition, parameters = Slice(JAN_1, JAN_1 + DAY).predicate(TABLES["coin_universe"])
    assert condition == '"date" >= ? and "date" < ?'
    assert parameters == [date(2024, 1, 1), date(2024, 1, 2)]


def test_no_slices_mean_no_rows_and_none_means_all() -> None:
    """An empty list selects nothing; only the absence of slices selects everything."""
    table = TABLES["price_points"]
    assert any_of(table, []) == ("(false)", [])
    assert any_of(table, None) == ("true", [])


def test_messages_name_the_first_slices_only() -> None:
    """A message about hundreds of windows stays one readable line."""
    slices = [Slice(JAN_1 + i * DAY, JAN_1 + (i + 1) * DAY, ("bitcoin",)) for i in range(5)]
    assert in_words(slices[:1]) == "bitcoin [2024-01-01 00:00, 2024-01-02 00:00) UTC"
    assert in_words(slices).endswith("; and 2 more")
