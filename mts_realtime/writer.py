"""Batches on their way to disk: written in order, kept while the disk refuses, shed when they must be.

What belongs here: the writer with its policy for a full disk, and the marker that lets the next start declare what
a kill has lost. It runs in a thread and knows no event loop.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from mts_realtime.errors import LandingError
from mts_realtime.gaps import Covered, Gap, GapReason, OpenGap
from mts_realtime.landing import write_durably, write_segments
from mts_realtime.recorder import Batch, gap_row, table_of

if TYPE_CHECKING:
    from pathlib import Path

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

MARKER_NAME = ".marker.json"

SHEDDING_ORDER = ("order_book", "tickers", "signals", "opportunities", "funding")
"""Which rows go first while the disk is full and memory is bounded. Funding goes last, gaps never."""


class Marker(Struct):
    """What the last writer had landed: the start of the next process's gaps.

    Attributes:
        until_ns: Everything received before this moment is in segments, or declared.
        clean: Whether the process ended in order.
        covered: Topics that were collected.
        open_gaps: Gaps that were open.
    """

    until_ns: int
    clean: bool
    covered: list[Covered]
    open_gaps: list[OpenGap]

    def gaps(self) -> list[OpenGap]:
        """Gaps with which the next process begins, one a topic."""
        reason = GapReason.PROCESS_STOPPED if self.clean else GapReason.PROCESS_KILLED
        known = {(gap.covered.exchange, gap.covered.topic) for gap in self.open_gaps}
        fresh = [
            OpenGap(covered, self.until_ns, reason)
            for covered in self.covered
            if (covered.exchange, covered.topic) not in known
        ]
        return [*self.open_gaps, *fresh]


def read_marker(landing: Path) -> Marker | None:
    """The marker of the process before, ``None`` at the very first start.

    Raises:
        LandingError: When the marker cannot be read.
    """
    path = landing / MARKER_NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=Marker)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise LandingError(f"{path} cannot be read ({error}); delete it to start without the last gap") from error


class _Waiting(Struct):
    """A table that waits for the disk."""

    dataset: str
    exchange: str
    table: pa.Table

    def spans(self, reason: GapReason) -> list[Gap]:
        """The time that its rows stand for, by symbol."""
        times = pc.cast(self.table["timestamp"], pa.int64())
        grouped = (
            pa.table({"symbol": self.table["symbol"], "us": times})
            .group_by("symbol")
            .aggregate([("us", "min"), ("us", "max")])
            .sort_by("symbol")
        )
        return [
            Gap(
                self.dataset,
                self.exchange,
                row["symbol"],
                row["symbol"],
                row["us_min"] * 1000,
                row["us_max"] * 1000 + 1000,
                reason,
            )
            for row in grouped.to_pylist()
        ]


class SegmentWriter:
    """Writes batches in order. What cannot be written waits in memory, bounded; what is shed is declared.

    Attributes:
        segments_written: Segments since the start.
        rows_shed: Rows given up because the disk refused them for too long, by dataset.
        problem: Why the disk refuses, empty while all is well.
    """

    def __init__(self, landing: Path, buffer_rows: int) -> None:
        self._landing = landing
        self._buffer_rows = buffer_rows
        self._waiting: list[_Waiting] = []
        self._shed_spans: dict[tuple[str, str, str], Gap] = {}
        self.segments_written = 0
        self.rows_shed: dict[str, int] = dict.fromkeys(SHEDDING_ORDER, 0)
        self.problem = ""

    @property
    def waiting_rows(self) -> int:
        """Rows that wait for the disk."""
        return sum(waiting.table.num_rows for waiting in self._waiting)

    def write(self, batch: Batch) -> bool:
        """Write everything that waits, then the marker; False when the disk refused some of it."""
        self._waiting += [_Waiting(*entry) for entry in batch.tables()]
        try:
            while self._waiting:
                self._write(self._waiting[0])
                del self._waiting[0]
            for exchange in sorted({exchange for _, exchange, _ in self._shed_spans}):
                gaps = [gap for gap in self._shed_spans.values() if gap.exchange == exchange]
                self._write(_Waiting("gaps", exchange, table_of("gaps", [gap_row(gap) for gap in gaps])))
                self._shed_spans = {k: gap for k, gap in self._shed_spans.items() if gap.exchange != exchange}
            marker = Marker(batch.until_ns, batch.clean, batch.covered, batch.open_gaps)
            write_durably(self._landing / MARKER_NAME, msgspec.json.encode(marker))
        except OSError as error:
            self.problem = f"cannot write to {self._landing}: {error.strerror or error}"
            self._shed(GapReason.DISK_FULL if error.errno in _DISK_FULL else GapReason.DISK_ERROR)
            return False
        self.problem = ""
        return True

    def _write(self, waiting: _Waiting) -> None:
        paths = write_segments(self._landing, waiting.dataset, waiting.exchange, waiting.table)
        self.segments_written += len(paths)

    def _shed(self, reason: GapReason) -> None:
        """Give up the oldest rows of the least precious datasets until the rest fits, and remember their span."""
        excess = self.waiting_rows - self._buffer_rows
        for dataset in SHEDDING_ORDER:
            kept = []
            for waiting in self._waiting:
                if excess > 0 and waiting.dataset == dataset:
                    excess -= waiting.table.num_rows
                    self.rows_shed[dataset] += waiting.table.num_rows
                    for gap in waiting.spans(reason):
                        self._remember(gap)
                else:
                    kept.append(waiting)
            self._waiting = kept

    def _remember(self, gap: Gap) -> None:
        """One growing gap per dataset and symbol: the declaration must not outgrow what was shed."""
        key = (gap.dataset, gap.exchange, gap.symbol)
        known = self._shed_spans.get(key)
        if known is not None:
            gap = msgspec.structs.replace(
                known, start_ns=min(known.start_ns, gap.start_ns), end_ns=max(known.end_ns, gap.end_ns)
            )
        self._shed_spans[key] = gap
