"""What a run should have seen and did not: missing bars, late bars, missing funding settlements.

What belongs here: the record of gaps and the functions that find them. A backtest over gaps is still a
backtest, but it says so; in a strict run the gaps are an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import numpy as np

from mts_dagster.backtest.errors import UncoveredDataError

if TYPE_CHECKING:
    from mts_dagster.backtest.layout import IntArray

LONGEST_FUNDING_INTERVAL_NS: Final = 8 * 3_600_000_000_000
SHOWN: Final = 3


@dataclass(frozen=True)
class Gap:
    """A stretch of missing input of one asset, half-open."""

    asset: str
    kind: str  # "bars", "late bars" or "funding settlements"
    start: datetime
    end: datetime
    count: int

    def __str__(self) -> str:
        when = f"between {self.start:%Y-%m-%d %H:%M} and {self.end:%Y-%m-%d %H:%M}"
        return f"{self.count} {self.kind} of {self.asset} {when}"


@dataclass(frozen=True)
class Coverage:
    """What a run should have seen and what it missed."""

    expected_bars: int = 0
    missing_bars: int = 0
    late_bars: int = 0
    expected_settlements: int = 0
    missing_settlements: int = 0
    gaps: tuple[Gap, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether nothing was missing or late."""
        return not (self.missing_bars or self.late_bars or self.missing_settlements)

    def summary(self) -> str:
        """Return one line for people."""
        if self.complete:
            return f"complete: {self.expected_bars} bars, {self.expected_settlements} funding settlements"
        return (
            f"{self.missing_bars} of {self.expected_bars} bars missing, {self.late_bars} late, "
            f"{self.missing_settlements} of {self.expected_settlements} funding settlements missing"
        )

    def require_complete(self) -> None:
        """Refuse to go on over gaps.

        Raises:
            UncoveredDataError: something is missing; the message names the first gaps.
        """
        if not self.complete:
            shown = "; ".join(str(gap) for gap in self.gaps[:SHOWN])
            more = len(self.gaps) - SHOWN
            rest = f"; and {more} more" if more > 0 else ""
            raise UncoveredDataError(
                f"strict run refused, {self.summary()}: {shown}{rest}. Collect them or set strict=false"
            )


def instant(ns: int) -> datetime:
    """Return nanoseconds since 1970 as an aware datetime."""
    return datetime.fromtimestamp(ns // 1_000_000_000, UTC)


def runs_of(mask: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> list[tuple[int, int]]:
    """Return the half-open index ranges in which ``mask`` is true."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], mask.view(np.int8), [0]))))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def missing_bars(asset: str, open_ns: IntArray, start_ns: int, end_ns: int, interval_ns: int) -> tuple[int, list[Gap]]:
    """Return how many bars [start, end) should hold and the stretches that are not among ``open_ns``."""
    slots = np.arange(start_ns, end_ns, interval_ns)
    absent = ~np.isin(slots, open_ns)
    gaps = [
        Gap(asset, "bars", instant(int(slots[a])), instant(int(slots[b - 1]) + interval_ns), b - a)
        for a, b in runs_of(absent)
    ]
    return len(slots), gaps


def late_bars(asset: str, open_ns: IntArray, available_ns: IntArray, interval_ns: int) -> list[Gap]:
    """Return the stretches of bars that became known only after the whole next bar had passed.

    A decision on the close of such a bar could not have been filled where the engine fills it.
    """
    late = available_ns > open_ns + 2 * interval_ns
    return [
        Gap(asset, "late bars", instant(int(open_ns[a])), instant(int(open_ns[b - 1]) + interval_ns), b - a)
        for a, b in runs_of(late)
    ]


def missing_settlements(asset: str, settled_ns: IntArray, start_ns: int, end_ns: int) -> tuple[int, list[Gap]]:
    """Return how many funding settlements [start, end) should hold and where some are missing.

    The interval of an asset is taken from its neighbouring settlements, since venues change it (8, 4 or 1
    hours).
    """

    def gap(after: int, before: int, count: int) -> Gap:
        return Gap(asset, "funding settlements", instant(after), instant(before), count)

    inside = settled_ns[(settled_ns >= start_ns) & (settled_ns < end_ns)]
    if len(inside) < 2:  # noqa: PLR2004 - an interval needs two points; without one the longest usual is expected
        count = -(-(end_ns - start_ns) // LONGEST_FUNDING_INTERVAL_NS)
        absent = max(0, count - len(inside))
        return count, [gap(start_ns, end_ns, absent)] if absent else []
    steps = np.diff(inside)
    before = np.concatenate((steps[:1], steps[:-1]))
    after = np.concatenate((steps[1:], steps[-1:]))
    usual = np.minimum(np.maximum(before, after), LONGEST_FUNDING_INTERVAL_NS)
    lost = np.rint(steps / usual).astype(np.int64) - 1
    gaps = [gap(int(inside[i]), int(inside[i + 1]), int(lost[i])) for i in np.flatnonzero(lost > 0)]
    at_start = int((inside[0] - start_ns) // usual[0])
    at_end = int(-(-(end_ns - inside[-1]) // usual[-1])) - 1
    if at_start > 0:
        gaps.insert(0, gap(start_ns, int(inside[0]), at_start))
    if at_end > 0:
        gaps.append(gap(int(inside[-1]), end_ns, at_end))
    return len(inside) + sum(item.count for item in gaps), gaps
