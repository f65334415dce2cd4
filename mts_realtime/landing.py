"""The contract with Dagster: Parquet segments, their layout and names, and how to read them.

What belongs here: everything that both sides have to agree on, besides the columns (``datasets``). Collecting rows and
deciding when to write is ``recorder``'s business.

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

from mts_realtime.datasets import SCHEMAS, SORT_KEYS
from mts_realtime.errors import LandingError

if TYPE_CHECKING:
    from collections.abc import Iterable

HOUR = "%Y-%m-%d-%H"
"""How hours are named."""

_MS_PER_HOUR = 3_600_000


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


def list_segments(
    root: Path, dataset: str, since: datetime | None = None, until: datetime | None = None
) -> list[Segment]:
    """Complete segments of a dataset, by hour and name.

    Only folders of hours at or after ``since`` are looked into, so a tick that knows its position stays fast with
    hundreds of thousands of files. A segment can appear up to the flush interval after its hour has ended, and later
    than that after a full disk: pass a ``since`` a little before the position.

    Args:
        root: The landing folder.
        dataset: Name of the dataset.
        since: Aware time; earlier hours are skipped. ``None`` lists from the first.
        until: Aware time; its hour and later ones are skipped. ``None`` lists to the last.
    """
    first = "" if since is None else hour_of(since)
    end = "9999" if until is None else hour_of(until)
    found: list[Segment] = []
    for folder in hour_folders(root, dataset):
        if first <= folder.hour < end:
            found += segments_in(folder)
    return found


def hour_of(moment: datetime) -> str:
    """The hour of a moment as segments name it, ``YYYY-MM-DD-HH`` (UTC); hours sort like text."""
    return moment.astimezone(UTC).strftime(HOUR)


class HourFolder(Struct, frozen=True):
    """The folder of one hour of one dataset.

    Attributes:
        dataset: Name of the dataset.
        hour: ``YYYY-MM-DD-HH`` (UTC).
        path: Where it is.
        changed_ns: When a file was last added to it or removed from it, by the file system's clock.
    """

    dataset: str
    hour: str
    path: str
    changed_ns: int


def hour_folders(root: Path, dataset: str) -> list[HourFolder]:
    """The hours of a dataset, in order, without looking at the segments: cheap however many there are."""
    found = []
    base = os.path.join(root, dataset)  # noqa: PTH118 - text paths: 100,000 Path objects cost half a second
    for date_name in _folders(base, "date="):
        for hour_name in _folders(f"{base}/{date_name}", "hour="):
            path = f"{base}/{date_name}/{hour_name}"
            with contextlib.suppress(FileNotFoundError):
                changed_ns = os.stat(path).st_mtime_ns  # noqa: PTH116 - as above
                found.append(HourFolder(dataset, f"{date_name[5:]}-{hour_name[5:]}", path, changed_ns))
    return found


def _folders(path: str, prefix: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.name.startswith(prefix))
    except FileNotFoundError:
        return []


def segments_in(folder: HourFolder) -> list[Segment]:
    """Complete segments of one hour of one dataset, by name."""
    try:
        names = os.listdir(folder.path)  # noqa: PTH208 - names are all that is needed, and they are many
    except FileNotFoundError:
        return []
    found = []
    for name in sorted(names):
        if name.startswith(".") or not name.endswith(".parquet"):
            continue
        parts = name[:-8].split("-")
        if len(parts) == 4 and parts[1].isdigit() and parts[2].isdigit():  # noqa: PLR2004 - the name's four parts
            first_ms, last_ms = int(parts[1]), int(parts[2])
            path = f"{folder.path}/{name}"
            found.append(Segment(folder.hour, name, folder.dataset, parts[0], first_ms, last_ms, parts[3], path))
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
        table = table.cast(schema)
    except (pa.ArrowException, ValueError) as error:
        raise LandingError(f"segment {segment.path} has other types than {segment.dataset}: {error}") from error
    _check_rows(segment, table)
    return table


def _check_rows(segment: Segment, table: pa.Table) -> None:
    """Refuse rows that no writer of ours makes: outside of the times in the name, or null where nothing may be."""
    for field, column in zip(table.schema, table.columns, strict=True):
        if column.null_count and not field.nullable:
            raise LandingError(f"segment {segment.path} has {column.null_count} nulls in {field.name}")
    if not table.num_rows:
        return
    bounds = pc.min_max(table["timestamp"]).as_py()
    named = pc.min_max(pc.divide(pc.cast(table["timestamp"], pa.int64()), 1000)).as_py()
    is_as_named = segment.first_ms <= named["min"] and named["max"] <= segment.last_ms
    if not (is_as_named and hour_of(bounds["min"]) == segment.hour == hour_of(bounds["max"])):
        raise LandingError(f"segment {segment.path} has rows of {bounds['min']} to {bounds['max']}")


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


def expire_segments(root: Path, segments: Iterable[Segment]) -> int:
    """Delete segments, and folders that are empty then; for whoever has ingested them. Returns how many.

    The sidecar never deletes by itself: only the reader knows what has been stored.
    """
    deleted = 0
    folders = set()
    for segment in segments:
        path = Path(segment.path)
        path.unlink(missing_ok=True)
        folders.add(path.parent)
        deleted += 1
    for folder in sorted(folders):
        for empty in (folder, folder.parent):
            if empty != root:
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
