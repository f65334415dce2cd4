"""Missing settlements, told from the settlements themselves."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from datetime import datetime
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mts_realtime.analytics.funding import SettlementGap, settlement_gaps

HOUR_MS = 3_600_000
START_MS = 1_700_006_400_000  # 2023-11-15 00:00 UTC


def at(*hours: float) -> list[int]:
    """These hours after the start."""
    return [START_MS + round(hour * HOUR_MS) for hour in hours]


def gap(after: float, before: float | None, missing: int) -> SettlementGap:
    return SettlementGap(after_ms=at(after)[0], before_ms=None if before is None else at(before)[0], missing=missing)


WHOLE = {
    "every 8 hours": (0, 8, 16, 24, 32),
    "8 to 4": (0, 8, 16, 20, 24),
    "8 to 4, newest": (0, 8, 16, 20),
    "4 to 8": (0, 4, 8, 16, 24),
    "4 to 8, newest, which the next one decides": (0, 4, 8, 16),
    "8 to 1 between two settlements": (0, 8, 16, 19, 20, 21),
    "1 to 8 between two settlements": (0, 1, 2, 3, 8, 16, 24),
    "a change right after listing": (0, 8, 12, 16),
    "a single one": (0,),
    "none": (),
}


@pytest.mark.parametrize("hours", WHOLE.values(), ids=WHOLE)
def test_regular_settlements_and_changes_of_the_interval_are_no_gap(hours: Sequence[float]) -> None:
    """A distance that agrees with the one before or after it is an interval, whole or new."""
    assert settlement_gaps(at(*hours), at(*hours[-1:] or [0])[0]) == []


BROKEN = {
    "one of 8 hours": ((0, 8, 24, 32), [gap(8, 24, 1)]),
    "two in a row": ((0, 8, 32, 40), [gap(8, 32, 2)]),
    "one of 4 hours, which looks like 8": ((0, 4, 8, 16, 20), [gap(8, 16, 1)]),
    "one of 1 hour": ((0, 1, 2, 4, 5), [gap(2, 4, 1)]),
    "every other one: 16 hours are no interval": ((0, 8, 24, 40, 48), [gap(8, 24, 1), gap(24, 40, 1)]),
    "at the change of 4 to 8": ((0, 4, 8, 24, 32), [gap(8, 24, 1)]),
    "before the newest": ((0, 8, 16, 32), [gap(16, 32, 1)]),
    "the second of all": ((0, 16, 24, 32), [gap(0, 16, 1)]),
    "three days": ((0, 8, 80, 88), [gap(8, 80, 8)]),
}


@pytest.mark.parametrize(("hours", "found"), BROKEN.values(), ids=BROKEN)
def test_what_is_missing_is_named_and_counted(hours: Sequence[float], found: list[SettlementGap]) -> None:
    """Counted with the longer of the two intervals beside the gap: at least that many."""
    assert settlement_gaps(at(*hours), at(hours[-1])[0]) == found


def test_a_late_stamp_is_no_gap() -> None:
    """Settlements are stamped some milliseconds late, and one by three minutes."""
    late_ms = (0, 7, 14, 180_000, 2)
    times = [time_ms + late for time_ms, late in zip(at(0, 8, 16, 24, 32), late_ms, strict=True)]
    assert settlement_gaps(times, times[-1]) == []


@pytest.mark.parametrize(
    ("known_until", "found"),
    [(31, []), (32, []), (33, [gap(24, None, 1)]), (41, [gap(24, None, 2)])],
)
def test_the_newest_may_be_late_but_not_overdue(known_until: float, found: list[SettlementGap]) -> None:
    """That of 32 h is missed once later ones are known elsewhere."""
    assert settlement_gaps(at(0, 8, 16, 24), at(known_until)[0]) == found


def test_an_hourly_symbol_that_stops_may_have_changed_its_interval() -> None:
    """Up to 8 hours of silence can be a new interval; after 9, eight settlements are missing."""
    assert settlement_gaps(at(0, 1, 2), at(10)[0]) == []
    assert settlement_gaps(at(0, 1, 2), at(11)[0]) == [gap(2, None, 8)]


@given(st.lists(st.sampled_from([1, 2, 4, 8]), min_size=1, max_size=5), st.integers(4, 7), st.data())
def test_one_settlement_taken_out_of_a_stretch_is_found(intervals: list[int], length: int, data: st.DataObject) -> None:
    """Whatever intervals follow each other: whole there is no gap; without one from inside a stretch there is one."""
    hours = [0, *accumulate(interval for interval in intervals for _ in range(length))]
    assert settlement_gaps(at(*hours), at(hours[-1])[0]) == []
    stretch = data.draw(st.integers(0, len(intervals) - 1))
    lost = stretch * length + data.draw(st.integers(2, length - 2))
    kept = [*hours[:lost], *hours[lost + 1 :]]
    assert settlement_gaps(at(*kept), at(hours[-1])[0]) == [gap(hours[lost - 1], hours[lost + 1], 1)]


def test_recorded_settlements_have_no_gap(shared_data: Path) -> None:
    """Over a year of three symbols, and two as the venue stamped them, up to 14 ms late; without one it is missed."""
    for symbol in ("BTC", "ETH", "BNB"):
        path = shared_data / "funding" / f"binance_usdm_{symbol}USDT_funding_2025-2026.csv"
        times = [round(datetime.fromisoformat(row["funding_time"]).timestamp() * 1000) for row in _rows(path)]
        assert len(times) == 1247
        assert settlement_gaps(times, times[-1]) == []
    for symbol in ("BTC", "ETH"):
        path = shared_data / "funding" / f"binance_usdm_{symbol}USDT_fundingRate_raw_2026Q1.csv"
        times = [int(row["timestamp"]) for row in _rows(path)]
        assert len(times) == 200
        assert settlement_gaps(times, times[-1]) == []
        lost = SettlementGap(after_ms=times[99], before_ms=times[101], missing=1)
        assert settlement_gaps([*times[:100], *times[101:]], times[-1]) == [lost]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines))
