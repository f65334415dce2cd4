"""What part of a table a write replaces: half-open days, and members of the second dimension.

Pure: turns partition keys into predicates with parameters, never into text with values inside.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from mts_dagster.schemas import Table


@dataclass(frozen=True)
class Slice:
    """Rows with ``start <= time_column < end`` and, if given, ``partition_column`` in ``members``.

    Attributes:
        start: inclusive, aware UTC.
        end: exclusive, aware UTC.
        members: values of the table's second dimension (coins, indicators), or None for all.
    """

    start: datetime
    end: datetime
    members: tuple[str, ...] | None = None

    def predicate(self, table: Table) -> tuple[str, list[object]]:
        """SQL condition on ``table`` and its parameters."""
        if table.time_column is None:
            return "true", []
        is_day = table.column(table.time_column).sql_type == "DATE"
        bounds: list[object] = (
            [self.start.date(), self.end.date()] if is_day else [self.start.astimezone(UTC), self.end.astimezone(UTC)]
        )
        condition = f'"{table.time_column}" >= ? and "{table.time_column}" < ?'
        if self.members is None:
            return condition, bounds
        return f'{condition} and list_contains(?, "{table.partition_column}")', [*bounds, list(self.members)]

    def __str__(self) -> str:
        window = f"[{self.start:%Y-%m-%d %H:%M}, {self.end:%Y-%m-%d %H:%M}) UTC"
        return window if self.members is None else f"{', '.join(self.members)} {window}"
