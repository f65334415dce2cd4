"""An hour is cut where its rows say, on whole seconds, and nothing of it is lost between the pieces."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from mts_dagster.lake.slices import Slice
from mts_dagster.live.pieces import SECONDS, cut, second_of_hour

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = Slice(NOON, NOON + timedelta(hours=1))


def pieces_of(rows: dict[int, int], most: int) -> list[tuple[int, int]]:
    """First second and end of each piece of an hour with so many rows at these seconds."""
    rows_a_second = np.zeros(SECONDS, np.int64)
    for second, count in rows.items():
        rows_a_second[second] = count
    return [
        (int((piece.start - NOON).total_seconds()), int((piece.end - NOON).total_seconds()))
        for piece in cut(HOUR, rows_a_second, most)
    ]


def test_an_hour_that_fits_is_one_piece() -> None:
    """Exactly as many rows as are allowed, or none at all."""
    assert pieces_of({0: 3, 3599: 3}, 6) == [(0, 3600)]
    assert pieces_of({}, 6) == [(0, 3600)]


def test_a_piece_ends_before_the_second_that_would_be_too_much() -> None:
    """Three rows at 0, 10 and 20 s: two of them make six, the third begins the next piece."""
    assert pieces_of({0: 3, 10: 3, 20: 3}, 6) == [(0, 20), (20, 3600)]


def test_a_second_is_never_cut() -> None:
    """Nine rows at once stay together, apart from what is before and after."""
    assert pieces_of({5: 1, 6: 9, 7: 1}, 6) == [(0, 6), (6, 7), (7, 3600)]


@given(st.dictionaries(st.integers(0, SECONDS - 1), st.integers(1, 9), max_size=40), st.integers(1, 20))
def test_pieces_are_the_hour_and_none_is_too_large(rows: dict[int, int], most: int) -> None:
    """Each begins where the one before it ends; more rows than allowed only where one second has them."""
    pieces = pieces_of(rows, most)
    assert [pieces[0][0], *(end for _, end in pieces)] == [*(start for start, _ in pieces), SECONDS]
    for start, end in pieces:
        inside = [count for second, count in rows.items() if start <= second < end]
        assert sum(inside) <= most or len(inside) == 1


def test_the_second_of_a_timestamp_is_that_of_its_hour() -> None:
    """12:00:59.999999 is second 59; 13:00:00 is second 0 again."""
    moments = [NOON, NOON + timedelta(seconds=60, microseconds=-1), NOON + timedelta(hours=1)]
    times = pa.chunked_array([pa.array(moments, pa.timestamp("us", tz="UTC"))])
    assert second_of_hour(times).tolist() == [0, 59, 0]
