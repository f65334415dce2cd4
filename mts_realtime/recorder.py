"""Rows on their way to the landing folder: collected in memory and cut into batches.

What belongs here: column buffers and the shape of each dataset's rows. Collecting runs on the event loop and is
cheap; turning rows into tables runs in the writer's thread. Schemas are ``datasets``', files the ``writer``'s.
"""

from __future__ import annotations

import json
from array import array
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from msgspec import Struct

from mts_realtime.analytics.opportunities import HORIZONS_MS
from mts_realtime.datasets import CROSS_EXCHANGE, SCHEMAS
from mts_realtime.gaps import Covered, Gap, OpenGap

if TYPE_CHECKING:
    from mts_realtime.analytics.opportunities import Opportunity
    from mts_realtime.analytics.signals import Signal
    from mts_realtime.events import FundingUpdate, Instrument, Levels, TickerUpdate


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


def table_of(dataset: str, rows: list[tuple[Any, ...]]) -> pa.Table:
    """Rows of a dataset without ladders as a table."""
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
            found.append((dataset, exchange, table_of(dataset, rows)))
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
        self._add("gaps", gap.exchange, gap_row(gap))

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


def gap_row(gap: Gap) -> tuple[Any, ...]:
    """A gap as a row of its dataset; it lies in the hour of its last moment."""
    start_us, end_us = _us(gap.start_ns), max(_us(gap.end_ns), _us(gap.start_ns) + 1)
    return (end_us - 1, gap.dataset, gap.exchange, gap.symbol, gap.topic, start_us, end_us, gap.reason)
