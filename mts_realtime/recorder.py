"""Rows on their way to the landing folder: collected in memory, cut into batches, written, shed when they must be.

What belongs here: column buffers, the writer with its policy for a full disk, and the marker that lets the next
start declare what a kill has lost. Schemas and files are ``landing``'s. Collecting runs on the event loop and is
cheap; writing runs in a thread.
"""

from __future__ import annotations

import errno
import json
from array import array
from itertools import chain
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from mts_realtime.analytics.opportunities import HORIZONS_MS
from mts_realtime.errors import LandingError
from mts_realtime.gaps import Covered, Gap, GapReason, OpenGap
from mts_realtime.landing import CROSS_EXCHANGE, SCHEMAS, write_durably, write_segments

if TYPE_CHECKING:
    from pathlib import Path

    from mts_realtime.analytics.opportunities import Opportunity
    from mts_realtime.analytics.signals import Signal
    from mts_realtime.events import FundingUpdate, Instrument, Levels, TickerUpdate

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

MARKER_NAME = ".marker.json"

SHEDDING_ORDER = ("order_book", "tickers", "signals", "opportunities", "funding")
"""Which rows go first while the disk is full and memory is bounded. Funding goes last, gaps never."""


def _us(ns: int) -> int:
    return ns // 1000


class _BookBuffer:
    """Sampled books of one exchange: one tuple a row, levels in flat arrays (80 floats a row, no objects)."""

    __slots__ = ("asks", "asks_per_row", "bids", "bids_per_row", "rows")

    def __init__(self) -> None:
        self.rows: list[tuple[Any, ...]] = []
        self.bids = array("d")
        self.asks = array("d")
        self.bids_per_row: list[int] = []
        self.asks_per_row: list[int] = []

    def table(self) -> pa.Table:
        schema = SCHEMAS["order_book"]
        plain = _columns(self.rows, schema, stop=9)
        ladders = [*_ladders(self.bids, self.bids_per_row), *_ladders(self.asks, self.asks_per_row)]
        return pa.Table.from_arrays([*plain, *ladders], schema=schema)


def _ladders(flat: array[float], per_row: list[int]) -> list[pa.Array]:
    """Prices and sizes as list columns from alternating values."""
    pairs = np.frombuffer(flat, dtype=np.float64).reshape(-1, 2) if len(flat) else np.empty((0, 2))
    offsets = pa.array(np.concatenate(([0], np.cumsum(per_row))), pa.int32())
    kind = SCHEMAS["order_book"].field("bid_prices").type
    return [
        pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(pairs[:, column])), type=kind)
        for column in (0, 1)
    ]


def _columns(rows: list[tuple[Any, ...]], schema: pa.Schema, stop: int | None = None) -> list[pa.Array]:
    fields = list(schema)[:stop]
    columns = zip(*rows, strict=True) if rows else ([] for _ in fields)
    return [pa.array(column, field.type) for column, field in zip(columns, fields, strict=True)]


def _table(dataset: str, rows: list[tuple[Any, ...]]) -> pa.Table:
    schema = SCHEMAS[dataset]
    return pa.Table.from_arrays(_columns(rows, schema), schema=schema)


class Batch(Struct):
    """Rows that become segments together.

    Attributes:
        until_ns: Everything received before this moment is in this batch or an earlier one.
        books: Sampled books by exchange.
        rows: Rows of the other datasets by dataset and exchange.
        open_gaps: Gaps open at that moment.
        covered: All topics collected at that moment.
        clean: Whether this is the last batch of an orderly end.
    """

    until_ns: int
    books: dict[str, Any]
    rows: dict[tuple[str, str], list[tuple[Any, ...]]]
    open_gaps: list[OpenGap]
    covered: list[Covered]
    clean: bool

    def tables(self) -> list[tuple[str, str, pa.Table]]:
        """The rows as tables, by dataset and exchange."""
        found = [("order_book", exchange, buffer.table()) for exchange, buffer in sorted(self.books.items())]
        for (dataset, exchange), rows in sorted(self.rows.items()):
            found.append((dataset, exchange, _table(dataset, rows)))
        return found


class Recorder:
    """Collects rows. Every ``add`` is a few list appends; nothing is converted here."""

    def __init__(self) -> None:
        self._books: dict[str, _BookBuffer] = {}
        self._rows: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
        self.rows_added: dict[str, int] = dict.fromkeys(SCHEMAS, 0)

    def add_book(
        self,
        instrument: Instrument,
        grid_ns: int,
        position: tuple[int, int, int, int | None],
        updates: int,
        levels: tuple[Levels, Levels],
    ) -> None:
        """A sampled book.

        Args:
            instrument: Whose book.
            grid_ns: Grid time.
            position: Exchange time (ms), receipt time (ns), sequence id and cross sequence id of its newest update.
            updates: Updates since the row before.
            levels: Checked bids and asks.
        """
        buffer = self._books.get(instrument.exchange)
        if buffer is None:
            buffer = self._books[instrument.exchange] = _BookBuffer()
        exchange_time_ms, received_ns, sequence_id, cross_id = position
        bids, asks = levels
        buffer.rows.append(
            (
                _us(grid_ns),
                instrument.exchange,
                instrument.symbol,
                instrument.venue_symbol,
                exchange_time_ms * 1000,
                _us(received_ns),
                sequence_id,
                cross_id,
                updates,
            )
        )
        buffer.bids.extend(chain.from_iterable(bids))
        buffer.asks.extend(chain.from_iterable(asks))
        buffer.bids_per_row.append(len(bids))
        buffer.asks_per_row.append(len(asks))
        self.rows_added["order_book"] += 1

    def add_funding(self, instrument: Instrument, event: FundingUpdate, change: str, hours: float | None) -> None:
        """A funding estimate that is new, or the sample of an unchanged one."""
        settles = event.next_funding_ms
        self._add(
            "funding",
            instrument.exchange,
            (
                _us(event.received_ns),
                instrument.exchange,
                instrument.symbol,
                instrument.venue_symbol,
                event.exchange_time_ms * 1000,
                change,
                event.mark_price,
                event.index_price,
                event.funding_rate,
                None if settles is None else settles * 1000,
                hours,
            ),
        )

    def add_ticker(self, instrument: Instrument, grid_ns: int, event: TickerUpdate) -> None:
        """A sampled ticker."""
        self._add(
            "tickers",
            instrument.exchange,
            (
                _us(grid_ns),
                instrument.exchange,
                instrument.symbol,
                instrument.venue_symbol,
                event.exchange_time_ms * 1000,
                _us(event.received_ns),
                event.last_price,
                event.volume_24h_base,
                event.turnover_24h_quote,
                event.open_interest_base,
            ),
        )

    def add_gap(self, gap: Gap) -> None:
        """A declared gap."""
        self._add("gaps", gap.exchange, _gap_row(gap))

    def add_opportunity(self, ended: Opportunity) -> None:
        """An opportunity that has ended."""
        peak = ended.peak
        self._add(
            "opportunities",
            CROSS_EXCHANGE,
            (
                _us(ended.updated_ns if ended.expired_ns is None else ended.expired_ns),
                ended.id,
                ended.symbol,
                ended.buy_exchange,
                ended.sell_exchange,
                _us(ended.opened_ns),
                ended.lifetime_ms,
                ended.updates,
                ended.expired_reason,
                peak.net_bps,
                peak.gross_bps,
                peak.net_usd,
                peak.size_base,
                peak.buy_price,
                peak.sell_price,
                ended.assessment.confidence,
                *(ended.net_bps_after.get(horizon_ms) for horizon_ms in HORIZONS_MS),
            ),
        )

    def add_signal(self, signal: Signal) -> None:
        """A signal that was raised."""
        self._add(
            "signals",
            CROSS_EXCHANGE,
            (
                _us(signal.at_ns),
                signal.kind.value,
                signal.symbol,
                "/".join(signal.exchanges),
                signal.strength.value,
                signal.confidence,
                signal.value,
                signal.threshold,
                signal.unit,
                _us(signal.expires_ns),
                json.dumps(signal.detail, sort_keys=True),
            ),
        )

    def _add(self, dataset: str, exchange: str, row: tuple[Any, ...]) -> None:
        self._rows.setdefault((dataset, exchange), []).append(row)
        self.rows_added[dataset] += 1

    def take(self, until_ns: int, open_gaps: list[OpenGap], covered: list[Covered], *, clean: bool = False) -> Batch:
        """Cut off what was collected so far as one batch."""
        batch = Batch(until_ns, dict(self._books), self._rows, open_gaps, covered, clean)
        self._books = {}
        self._rows = {}
        return batch


def _gap_row(gap: Gap) -> tuple[Any, ...]:
    start_us, end_us = _us(gap.start_ns), max(_us(gap.end_ns), _us(gap.start_ns) + 1)
    return (end_us - 1, gap.dataset, gap.exchange, gap.symbol, gap.topic, start_us, end_us, gap.reason)


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
                self._write(_Waiting("gaps", exchange, _table("gaps", [_gap_row(gap) for gap in gaps])))
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
