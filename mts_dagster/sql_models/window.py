"""The days that a model is rendered for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time

from mts_dagster.errors import UsageError


@dataclass(frozen=True)
class Window:
    """Whole UTC days, half-open: ``start <= event_time < end``.

    Attributes:
        start: midnight of the first day, aware.
        end: midnight after the last day, aware.
    """

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        for moment in (self.start, self.end):
            if moment.tzinfo is None or moment.astimezone(UTC).time() != time():
                raise UsageError(f"a window of SQL models is made of whole UTC days, not {moment.isoformat()}")
        if self.start >= self.end:
            raise UsageError(f"the window {self.start.isoformat()} to {self.end.isoformat()} holds no day")
        object.__setattr__(self, "start", self.start.astimezone(UTC))
        object.__setattr__(self, "end", self.end.astimezone(UTC))

    def condition(self, column: str, sql_type: str) -> str:
        """SQL condition that ``column``, a DATE or TIMESTAMPTZ, lies in the window."""
        if sql_type == "DATE":
            return f"{column} >= date '{self.start:%Y-%m-%d}' and {column} < date '{self.end:%Y-%m-%d}'"
        return f"{column} >= timestamptz '{self.start}' and {column} < timestamptz '{self.end}'"
