"""The simulator's own time: real UTC unless it was told to pretend.

What belongs here: the clock and the lengths of time in milliseconds. All times in the simulator are Unix
milliseconds in UTC (as the exchanges write them); only the edge turns them into dates.
"""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

_EPOCH = date(1970, 1, 1)
_CENTRAL = ZoneInfo("America/Chicago")


class Clock:
    """A clock that runs at the speed of real time from any moment.

    Args:
        start: The moment the clock shows now; real UTC when absent.

    Attributes:
        moves: How often the clock was set.
    """

    def __init__(self, start: datetime | None = None) -> None:
        self._offset_s = 0.0
        self.moves = 0
        if start is not None:
            self.set(start)

    def set(self, moment: datetime) -> None:
        """Move the clock to ``moment`` (aware); it runs on from there."""
        self._offset_s = moment.timestamp() - time.time()
        self.moves += 1

    def now_ms(self) -> int:
        """The simulated time in Unix milliseconds."""
        return int((time.time() + self._offset_s) * SECOND_MS)

    def now(self) -> datetime:
        """The simulated time as an aware UTC datetime."""
        return from_ms(self.now_ms())


def from_ms(ms: int) -> datetime:
    """Unix milliseconds as an aware UTC datetime."""
    return datetime.fromtimestamp(ms / SECOND_MS, tz=UTC)


def to_ms(moment: datetime) -> int:
    """An aware datetime as Unix milliseconds."""
    return round(moment.timestamp() * SECOND_MS)


def day_number(day: date) -> int:
    """Days since 1970-01-01."""
    return (day - _EPOCH).days


def date_of(number: int) -> date:
    """The date that is ``number`` days after 1970-01-01."""
    return _EPOCH + timedelta(days=number)


def central_date(ms: int) -> date:
    """The day that it is in St. Louis: FRED's real-time dates are US Central days."""
    return from_ms(ms).astimezone(_CENTRAL).date()


def central_ms(day: date, hour: int) -> int:
    """Unix milliseconds of ``hour`` o'clock US Central on ``day``."""
    return to_ms(datetime(day.year, day.month, day.day, hour, tzinfo=_CENTRAL))
