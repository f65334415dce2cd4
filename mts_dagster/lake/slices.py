"""What part of a table a write replaces: half-open days, and members of the second dimension.

Pure: turns partition keys into predicates with parameters, never into text with values inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from mts_dagster.schemas import Table

SHOWN_SLICES = 3


@dataclass(frozen=True)
class Slice:
    """Rows with ``start <= time_column < end`` and, if given, ``partition_column`` in ``members``.

    Attributes:
        start: inclusive, aware UTC.
        end: exclusive, aware UTC.
        members: values of the table's second dimension (coins, indicators), at least one, or None for all.
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
        # A plain list of values, which DuckDB turns into a choice of files; a list function would open them all.
        places = ", ".join("?" for _ in self.members)
        return f'{condition} and "{table.partition_column}" in ({places})', [*bounds, *self.members]

    def __str__(self) -> str:
        window = f"[{self.start:%Y-%m-%d %H:%M}, {self.end:%Y-%m-%d %H:%M}) UTC"
        return window if self.members is None else f"{', '.join(self.members)} {window}"


def any_of(table: Table, slices: Sequence[Slice] | None) -> tuple[str, list[object]]:
    """SQL condition for rows of ``table`` inside any of ``slices`` (all rows for None), and its parameters."""
    if slices is None:
        return "true", []
    conditions = [piece.predicate(table) for piece in slices]
    text = " or ".join(f"({condition})" for condition, _ in conditions) or "false"
    return f"({text})", [value for _, values in conditions for value in values]


def in_words(slices: Sequence[Slice]) -> str:
    """The slices for a message: the first few of them and how many more."""
    shown = "; ".join(str(piece) for piece in slices[:SHOWN_SLICES])
    more = len(slices) - SHOWN_SLICES
    return f"{shown}; and {more} more" if more > 0 else shown
