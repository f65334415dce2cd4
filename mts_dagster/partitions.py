"""The calendar and the second dimensions (coin, indicator) of all partitioned assets, and keys turned into slices.

What belongs here: partition definitions, and the pure functions from partition keys to half-open windows. Days are UTC;
``end_offset=1`` lets the still-running day exist, so that today's bars have a partition.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import product

import dagster as dg

from mts_dagster.errors import UsageError
from mts_dagster.lake.slices import Slice
from mts_dagster.settings import get_settings

DAY_FORMAT = "%Y-%m-%d"
ONE_DAY = timedelta(days=1)

# Read when the code location is loaded: partition definitions are static for Dagster.
_settings = get_settings()

daily = dg.DailyPartitionsDefinition(
    start_date=_settings.history_start.strftime(DAY_FORMAT), timezone="UTC", end_offset=1
)
coins = dg.DynamicPartitionsDefinition(name="coin")
indicators = dg.StaticPartitionsDefinition(list(_settings.macro_indicators))
coin_daily = dg.MultiPartitionsDefinition({"coin": coins, "date": daily})
indicator_daily = dg.MultiPartitionsDefinition({"indicator": indicators, "date": daily})


def split_key(key: str) -> tuple[str | None, date]:
    """Split ``2024-01-31`` or ``bitcoin|2024-01-31`` into member and day.

    Dagster orders dimensions by name; ``coin`` and ``indicator``: one sorts before ``date``, the other after it.
    """
    if isinstance(key, dg.MultiPartitionKey):
        dimensions = dict(key.keys_by_dimension)
        day = dimensions.pop("date")
        return next(iter(dimensions.values())), datetime.strptime(day, DAY_FORMAT).replace(tzinfo=UTC).date()
    return None, datetime.strptime(key, DAY_FORMAT).replace(tzinfo=UTC).date()


def slices_of(keys: Sequence[str]) -> list[Slice]:
    """Turn the partition keys of a run into as few slices as possible: runs of neighbouring days, all members at once.

    Raises:
        UsageError: no keys at all (a reversed range yields none), or keys that are no full product of members and days.
    """
    if not keys:
        raise UsageError("the run has no partitions: is its range reversed, or before the first partition?")
    split = [split_key(key) for key in keys]
    members = sorted({member for member, _ in split if member is not None})
    days = sorted({day for _, day in split})
    if members and set(split) != set(product(members, days)):
        raise UsageError(f"the run's {len(keys)} partitions are no full grid of {len(members)} x {len(days)} days")
    return [
        Slice(midnight(first), midnight(last) + ONE_DAY, tuple(members) if members else None)
        for first, last in _neighbours(days)
    ]


def midnight(day: date) -> datetime:
    """Start of a UTC day."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _neighbours(days: Iterable[date]) -> Iterable[tuple[date, date]]:
    """Group sorted days into (first, last) of each unbroken run."""
    first = last = None
    for day in days:
        if last is not None and day - last == ONE_DAY:
            last = day
            continue
        if first is not None and last is not None:
            yield first, last
        first = last = day
    if first is not None and last is not None:
        yield first, last
