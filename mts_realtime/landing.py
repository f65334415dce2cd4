"""The contract with Dagster: Parquet segments, their layout, schemas and names, and how to read them.

What belongs here: everything that both sides have to agree on. Collecting rows and deciding when to write is
``recorder``'s business.

Layout, below the landing folder::

    <dataset>/date=YYYY-MM-DD/hour=HH/<exchange>-<first ms>-<last ms>-<id>.parquet

A segment is written to a temporary name (a leading dot), fsynced and renamed, so a name that does not begin with a
dot is complete for ever. The id is a hash of the content: the same rows get the same name, and a segment that was
ingested once can be recognised. ``timestamp`` is the column that decides the hour; all times are UTC. Rows that
concern several exchanges carry the exchange name ``cross`` in the file name.

Every second of every topic since the start of the sidecar is either present or covered by a row of ``gaps``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from mts_realtime.errors import LandingError

if TYPE_CHECKING:
    from collections.abc import Iterable

CROSS_EXCHANGE = "cross"
"""Exchange part of a segment's name when its rows concern several exchanges."""

_MS_PER_HOUR = 3_600_000
_TIME = pa.timestamp("us", tz="UTC")
_LADDER = pa.list_(pa.field("element", pa.float64(), nullable=False))


def _field(name: str, kind: pa.DataType, meaning: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"description": meaning})


_EXCHANGE = _field("exchange", pa.string(), "Name of the exchange.")
_SYMBOL = _field("symbol", pa.string(), "Our name of the instrument, equal on all exchanges.")
_VENUE_SYMBOL = _field("venue_symbol", pa.string(), "The exchange's own name.")
_EXCHANGE_TIME = _field("exchange_time", _TIME, "Exchange time of the newest update in the row.")
_RECEIVED_AT = _field("received_at", _TIME, "When that update reached us.")

SCHEMAS: dict[str, pa.Schema] = {
    "order_book": pa.schema(
        [
            _field("timestamp", _TIME, "Grid time; the book as it was known just before."),
            _EXCHANGE,
            _SYMBOL,
            _VENUE_SYMBOL,
            _EXCHANGE_TIME,
            _RECEIVED_AT,
            _field("sequence_id", pa.int64(), "The exchange's number of that update."),
            _field("cross_sequence_id", pa.int64(), "Its number comparable between streams.", nullable=True),
            _field("update_count", pa.int32(), "Updates applied since the row before."),
            _field("bid_prices", _LADDER, "Best bids, falling, quote currency."),
            _field("bid_sizes", _LADDER, "Their sizes, base currency."),
            _field("ask_prices", _LADDER, "Best asks, rising, quote currency."),
            _field("ask_sizes", _LADDER, "Their sizes, base currency."),
        ]
    ),
    "funding": pa.schema(
        [
            _field("timestamp", _TIME, "When it reached us."),
            _EXCHANGE,
            _SYMBOL,
            _VENUE_SYMBOL,
            _EXCHANGE_TIME,
            _field("change", pa.string(), "Why the row exists: first, rate, settlement or sample."),
            _field("mark_price", pa.float64(), "Mark price, quote currency."),
            _field("index_price", pa.float64(), "Index price, quote currency.", nullable=True),
            _field("funding_rate", pa.float64(), "Estimate for the coming settlement, fraction.", nullable=True),
            _field("next_funding_time", _TIME, "The coming settlement.", nullable=True),
            _field(
                "funding_interval_hours",
                pa.float64(),
                "As the exchange states it, else as observed between settlements.",
                nullable=True,
            ),
        ]
    ),
    "tickers": pa.schema(
        [
            _field("timestamp", _TIME, "Grid time; the ticker as it was known just before."),
            _EXCHANGE,
            _SYMBOL,
            _VENUE_SYMBOL,
            _EXCHANGE_TIME,
            _RECEIVED_AT,
            _field("last_price", pa.float64(), "Price of the newest trade, quote currency."),
            _field("volume_24h_base", pa.float64(), "Volume of the trailing 24 hours, base currency."),
            _field("turnover_24h_quote", pa.float64(), "The same in quote currency."),
            _field("open_interest_base", pa.float64(), "Open contracts, base currency.", nullable=True),
        ]
    ),
    "gaps": pa.schema(
        [
            _field("timestamp", _TIME, "Last moment of the gap."),
            _field("dataset", pa.string(), "Dataset that misses rows."),
            _EXCHANGE,
            _SYMBOL,
            _field("topic", pa.string(), "The exchange's name of the stream."),
            _field("gap_start", _TIME, "From when on nothing is known."),
            _field("gap_end", _TIME, "From when on it is known again, or has a gap row of its own."),
            _field("reason", pa.string(), "Why, one word of a fixed list."),
        ]
    ),
    "opportunities": pa.schema(
        [
            _field("timestamp", _TIME, "When the opportunity ended."),
            _field("opportunity_id", pa.string(), "Unique name."),
            _SYMBOL,
            _field("buy_exchange", pa.string(), "Where the asks would be bought."),
            _field("sell_exchange", pa.string(), "Where the bids would be sold into."),
            _field("opened_at", _TIME, "First moment of the edge."),
            _field("lifetime_ms", pa.float64(), "How long it lasted."),
            _field("update_count", pa.int32(), "How often it was seen."),
            _field("expired_reason", pa.string(), "Why it ended."),
            _field("peak_net_bps", pa.float64(), "Best net edge, both taker fees paid."),
            _field("peak_gross_bps", pa.float64(), "Gross edge at that moment."),
            _field("peak_net_usd", pa.float64(), "Net profit at that moment."),
            _field("peak_size_base", pa.float64(), "Size at that moment."),
            _field("peak_buy_price", pa.float64(), "Average price paid at that moment."),
            _field("peak_sell_price", pa.float64(), "Average price received at that moment."),
            _field("confidence", pa.float64(), "Newest confidence, 0 to 1."),
            _field("net_bps_after_50ms", pa.float64(), "Net edge left 50 ms after opening.", nullable=True),
            _field("net_bps_after_250ms", pa.float64(), "Net edge left 250 ms after opening.", nullable=True),
            _field("net_bps_after_1000ms", pa.float64(), "Net edge left 1 s after opening.", nullable=True),
        ]
    ),
    "signals": pa.schema(
        [
            _field("timestamp", _TIME, "When the signal was raised."),
            _field("kind", pa.string(), "What happened."),
            _SYMBOL,
            _field("exchanges", pa.string(), "Where, joined by a slash."),
            _field("strength", pa.string(), "WEAK, MODERATE or STRONG."),
            _field("confidence", pa.float64(), "0 to 1."),
            _field("value", pa.float64(), "The measure that raised it."),
            _field("threshold", pa.float64(), "The measure from which on it is raised."),
            _field("unit", pa.string(), "Unit of both."),
            _field("expires_at", _TIME, "Until when it counts."),
            _field("detail", pa.string(), "Further facts, JSON."),
        ]
    ),
}
"""Columns of every dataset; the description of a column is in its metadata."""

SORT_KEYS: dict[str, tuple[str, ...]] = {
    "order_book": ("symbol", "timestamp"),
    "funding": ("symbol", "timestamp", "exchange_time"),
    "tickers": ("symbol", "timestamp"),
    "gaps": ("dataset", "topic", "timestamp", "gap_start"),
    "opportunities": ("opportunity_id",),
    "signals": ("timestamp", "kind", "symbol", "exchanges"),
}
"""Order of the rows in a segment, so that equal rows give equal files."""


class Segment(Struct, frozen=True, order=True):
    """A complete segment in the landing folder.

    Attributes:
        hour: Its hour as ``YYYY-MM-DD-HH`` (UTC).
        name: File name.
        dataset: Name of the dataset.
        exchange: Name of the exchange, or ``cross``.
        first_ms: ``timestamp`` of its first row in time, milliseconds since 1970.
        last_ms: The same of its last row.
        id: Hash of its content.
        path: Where it is.
    """

    hour: str
    name: str
    dataset: str
    exchange: str
    first_ms: int
    last_ms: int
    id: str
    path: str


def list_segments(root: Path, dataset: str, since: datetime | None = None) -> list[Segment]:
    """Complete segments of a dataset, by hour and name.

    Only folders of hours at or after ``since`` are looked into, so a tick that knows its position stays fast with
    hundreds of thousands of files. A segment can appear up to the flush interval after its hour has ended, and later
    than that after a full disk: pass a ``since`` a little before the position.

    Args:
        root: The landing folder.
        dataset: Name of the dataset.
        since: Aware time; earlier hours are skipped. ``None`` lists everything.
    """
    first_hour = "" if since is None else since.astimezone(UTC).strftime("%Y-%m-%d-%H")
    found: list[Segment] = []
    base = os.path.join(root, dataset)  # noqa: PTH118 - text paths: 100,000 Path objects cost half a second
    for date_name in _folders(base, "date="):
        date = date_name[5:]
        if date < first_hour[:10]:
            continue
        date_folder = f"{base}/{date_name}"
        for hour_name in _folders(date_folder, "hour="):
            hour = f"{date}-{hour_name[5:]}"
            if hour >= first_hour:
                found += _segments_in(f"{date_folder}/{hour_name}", hour, dataset)
    return found


def _folders(path: str, prefix: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.name.startswith(prefix))
    except FileNotFoundError:
        return []


def _segments_in(folder: str, hour: str, dataset: str) -> list[Segment]:
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names are all that is needed, and they are many
    except FileNotFoundError:
        return []
    found = []
    for name in sorted(names):
        if name.startswith(".") or not name.endswith(".parquet"):
            continue
        parts = name[:-8].split("-")
        if len(parts) == 4 and parts[1].isdigit() and parts[2].isdigit():  # noqa: PLR2004 - the name's four parts
            found.append(
                Segment(hour, name, dataset, parts[0], int(parts[1]), int(parts[2]), parts[3], f"{folder}/{name}")
            )
    return found


def read_segment(segment: Segment) -> pa.Table:
    """The rows of one segment, checked against the dataset's schema.

    Raises:
        LandingError: When the file cannot be read or has other columns; the message names it and the reason.
    """
    import pyarrow.parquet as pq  # noqa: PLC0415 - whoever only lists segments needs no reader

    try:
        table = pq.ParquetFile(segment.path).read()
    except (OSError, pa.ArrowException) as error:
        raise LandingError(f"segment {segment.path} cannot be read: {error}") from error
    schema = SCHEMAS[segment.dataset]
    if table.schema.names != schema.names:
        raise LandingError(f"segment {segment.path} has columns {table.schema.names}, expected {schema.names}")
    try:
        return table.cast(schema)
    except (pa.ArrowException, ValueError) as error:
        raise LandingError(f"segment {segment.path} has other types than {segment.dataset}: {error}") from error


def read_segments(segments: Iterable[Segment], dataset: str) -> pa.Table:
    """The rows of several segments of one dataset, in the order given; no segments give an empty table.

    Raises:
        LandingError: For the first segment that cannot be read.
    """
    return pa.concat_tables([SCHEMAS[dataset].empty_table(), *(read_segment(segment) for segment in segments)])


def write_segments(root: Path, dataset: str, exchange: str, table: pa.Table) -> list[Path]:
    """Write rows as complete segments, one an hour.

    The same rows always give the same names and bytes.

    Args:
        root: The landing folder.
        dataset: Name of the dataset.
        exchange: Name of the exchange, or ``cross``.
        table: Rows with exactly the dataset's schema, in any order.

    Raises:
        OSError: When a file cannot be written; nothing of it stays visible.
    """
    table = table.sort_by([(key, "ascending") for key in SORT_KEYS[dataset]])
    milliseconds = pc.divide(pc.cast(table["timestamp"], pa.int64()), 1000)
    hours = pc.divide(milliseconds, _MS_PER_HOUR)
    return [
        _write_segment(root, dataset, exchange, hour, table.filter(pc.equal(hours, hour)))
        for hour in sorted(pc.unique(hours).to_pylist())
    ]


def _write_segment(root: Path, dataset: str, exchange: str, hour: int, table: pa.Table) -> Path:
    table = table.combine_chunks()
    milliseconds = pc.divide(pc.cast(table["timestamp"], pa.int64()), 1000)
    bounds = pc.min_max(milliseconds).as_py()
    import pyarrow.parquet as pq  # noqa: PLC0415 - as above

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", compression_level=1, version="2.6")
    content = sink.getvalue()
    identity = hashlib.blake2b(content, digest_size=6).hexdigest()
    start = datetime.fromtimestamp(hour * 3600, UTC)
    folder = root / dataset / f"date={start:%Y-%m-%d}" / f"hour={start:%H}"
    name = f"{exchange}-{bounds['min']}-{bounds['max']}-{identity}.parquet"
    write_durably(folder / name, content)
    return folder / name


def write_durably(path: Path, content: bytes | pa.Buffer) -> None:
    """Write a file so that its name is either absent or complete, even across a power cut.

    Raises:
        OSError: When it cannot be written; the temporary file is removed.
    """
    _make_folder(path.parent)
    temporary = path.parent / f".{path.name}.tmp"
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def remove_temporaries(root: Path) -> int:
    """Delete temporary files that a killed writer left; only the one writer of the folder may call this."""
    removed = 0
    for temporary in root.glob("*/date=*/hour=*/.*.tmp"):
        temporary.unlink(missing_ok=True)
        removed += 1
    return removed


def expire_segments(root: Path, before: datetime) -> int:
    """Delete all segments of hours before ``before``; for whoever has ingested them. Returns how many.

    The sidecar never deletes by itself: only the reader knows what has been stored.
    """
    last_hour = before.astimezone(UTC).strftime("%Y-%m-%d-%H")
    deleted = 0
    for dataset in SCHEMAS:
        for segment in list_segments(root, dataset):
            if segment.hour < last_hour:
                Path(segment.path).unlink(missing_ok=True)
                deleted += 1
        for folder in sorted(root.glob(f"{dataset}/date=*/hour=*")):
            if f"{folder.parent.name[5:]}-{folder.name[5:]}" < last_hour:
                for empty in (folder, folder.parent):
                    with contextlib.suppress(OSError):
                        empty.rmdir()
    return deleted


def _make_folder(folder: Path) -> None:
    """Create a folder and its parents durably."""
    missing: list[Path] = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        _sync_folder(new.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
