"""The calendar and the second dimensions (coin, indicator) of all partitioned assets, and keys turned into slices.

What belongs here: partition definitions, and the pure functions from partition keys to half-open windows. Days and
hours are UTC; ``end_offset=1`` lets the still-running one exist, so that today's bars have a partition. History is cut
by day, what the sidecar writes by hour.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import product
from typing import NamedTuple

import dagster as dg

from mts_dagster.errors import UsageError
from mts_dagster.lake.slices import Slice
from mts_dagster.settings import get_settings

DAY_FORMAT = "%Y-%m-%d"
YEAR_FORMAT = "%Y"
HOUR_FORMAT = "%Y-%m-%d-%H:%M"
ONE_DAY = timedelta(days=1)
ONE_HOUR = timedelta(hours=1)

# Read when the code location is loaded: partition definitions are static for Dagster.
_settings = get_settings()

daily = dg.DailyPartitionsDefinition(
    start_date=_settings.history_start.strftime(DAY_FORMAT), timezone="UTC", end_offset=1
)
hourly = dg.HourlyPartitionsDefinition(
    start_date=_settings.stream_start.strftime(HOUR_FORMAT), timezone="UTC", end_offset=1
)
coins = dg.DynamicPartitionsDefinition(name="coin")
indicators = dg.StaticPartitionsDefinition(list(_settings.macro_indicators))
coin_daily = dg.MultiPartitionsDefinition({"coin": coins, "date": daily})
# Folds of backtests; the running year exists, up to its last closed day.
years = dg.TimeWindowPartitionsDefinition(
    start=_settings.history_start.strftime(YEAR_FORMAT),
    fmt=YEAR_FORMAT,
    cron_schedule="0 0 1 1 *",
    timezone="UTC",
    end_offset=1,
)
indicator_daily = dg.MultiPartitionsDefinition({"indicator": indicators, "date": daily})


class Cell(NamedTuple):
    """What one partition key means.

    Attributes:
        member: coin or indicator, None without a second dimension.
        start: first moment, aware UTC.
        length: a day or an hour.
    """

    member: str | None
    start: datetime
    length: timedelta


def split_key(key: str) -> Cell:
    """Split ``2024-01-31``, ``bitcoin|2024-01-31`` or ``2026-01-31-23:00`` into member and window.

    Dagster orders dimensions by name; ``coin`` and ``indicator``: one sorts before ``date``, the other after it.
    """
    member = None
    if isinstance(key, dg.MultiPartitionKey):
        dimensions = dict(key.keys_by_dimension)
        key = dimensions.pop("date")
        member = next(iter(dimensions.values()))
    is_hour = ":" in key
    start = datetime.strptime(key, HOUR_FORMAT if is_hour else DAY_FORMAT).replace(tzinfo=UTC)
    return Cell(member, start, ONE_HOUR if is_hour else ONE_DAY)


def slices_of(keys: Sequence[str]) -> list[Slice]:
    """Turn the partition keys of a run into as few slices as possible: runs of neighbours, all members at once.

    Raises:
        UsageError: no keys at all (a reversed range yields none), or keys that are no full product of members and days.
    """
    if not keys:
        raise UsageError("the run has no partitions: is its range reversed, or before the first partition?")
    cells = [split_key(key) for key in keys]
    members = sorted({cell.member for cell in cells if cell.member is not None})
    starts = sorted({cell.start for cell in cells})
    if members and {(cell.member, cell.start) for cell in cells} != set(product(members, starts)):
        raise UsageError(f"the run's {len(keys)} partitions are no full grid of {len(members)} x {len(starts)} days")
    length = cells[0].length
    return [
        Slice(first, last + length, tuple(members) if members else None) for first, last in _neighbours(starts, length)
    ]


def midnight(day: date) -> datetime:
    """Start of a UTC day."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def hour_key(moment: datetime) -> str:
    """Partition key of the hour that a moment lies in."""
    return moment.astimezone(UTC).replace(minute=0).strftime(HOUR_FORMAT)


def _neighbours(starts: Iterable[datetime], length: timedelta) -> Iterable[tuple[datetime, datetime]]:
    """Group sorted starts into (first, last) of each unbroken run."""
    first = last = None
    for start in starts:
        if last is not None and start - last == length:
            last = start
            continue
        if first is not None and last is not None:
            yield first, last
        first = last = start
    if first is not None and last is not None:
        yield first, last
