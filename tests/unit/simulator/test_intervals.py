"""The candle calendar."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mts_simulator.clock import from_ms, to_ms
from mts_simulator.intervals import INTERVALS


@pytest.mark.parametrize(
    ("interval", "opened", "following"),
    [
        ("1m", datetime(2026, 2, 18, 13, 37, tzinfo=UTC), datetime(2026, 2, 18, 13, 38, tzinfo=UTC)),
        ("4h", datetime(2026, 2, 18, 12, tzinfo=UTC), datetime(2026, 2, 18, 16, tzinfo=UTC)),
        ("1d", datetime(2026, 2, 18, tzinfo=UTC), datetime(2026, 2, 19, tzinfo=UTC)),
        ("1w", datetime(2026, 2, 16, tzinfo=UTC), datetime(2026, 2, 23, tzinfo=UTC)),
        ("1M", datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)),
    ],
)
def test_the_candle_that_contains_a_moment(interval: str, opened: datetime, following: datetime) -> None:
    """Weeks open on Monday, months on the first, the rest on multiples of their length."""
    kind = INTERVALS[interval]
    found = kind.floor(to_ms(datetime(2026, 2, 18, 13, 37, 12, tzinfo=UTC)))
    assert from_ms(found) == opened
    assert from_ms(kind.shift(found, 1)) == following
    assert kind.ceil(found) == found
    assert kind.ceil(found + 1) == kind.shift(found, 1)


def test_months_are_as_long_as_they_are() -> None:
    """Open times of months follow the calendar."""
    opens = INTERVALS["1M"].opens(to_ms(datetime(2025, 12, 1, tzinfo=UTC)), to_ms(datetime(2026, 3, 1, tzinfo=UTC)))
    assert [from_ms(ms).strftime("%Y-%m-%d") for ms in opens.tolist()] == [
        "2025-12-01",
        "2026-01-01",
        "2026-02-01",
        "2026-03-01",
    ]
