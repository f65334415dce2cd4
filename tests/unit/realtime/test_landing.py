"""The landing contract: layout, names, atomic files, determinism, reading, corrupt files."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mts_realtime.datasets import SCHEMAS, SORT_KEYS
from mts_realtime.errors import LandingError
from mts_realtime.landing import (
    expire_segments,
    list_segments,
    read_segment,
    read_segments,
    remove_temporaries,
    write_durably,
    write_segments,
)

TEN = datetime(2026, 11, 20, 10, tzinfo=UTC)
TEN_US = int(TEN.timestamp()) * 1_000_000


def gap_table(offsets_s: list[int], topic: str = "t") -> pa.Table:
    """Gap rows at seconds before and after 10:00."""
    rows = [
        {
            "timestamp": TEN_US + offset * 1_000_000,
            "dataset": "order_book",
            "exchange": "binance",
            "symbol": "BTCUSDT",
            "topic": topic,
            "gap_start": TEN_US,
            "gap_end": TEN_US + 1,
            "reason": "silence",
        }
        for offset in offsets_s
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMAS["gaps"])


def test_rows_go_into_the_folder_of_their_hour(tmp_path: Path) -> None:
    """One segment an hour, named by exchange, first and last millisecond, and a hash."""
    paths = write_segments(tmp_path, "gaps", "binance", gap_table([-2, -1, 0, 1]))
    first, second = (path.relative_to(tmp_path).as_posix() for path in paths)
    start_ms = TEN_US // 1000
    assert first.startswith(f"gaps/date=2026-11-20/hour=09/binance-{start_ms - 2000}-{start_ms - 1000}-")
    assert second.startswith(f"gaps/date=2026-11-20/hour=10/binance-{start_ms}-{start_ms + 1000}-")


def test_same_rows_give_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    """The name is the identity: writing again replaces the file by itself."""
    (first,) = write_segments(tmp_path / "a", "gaps", "binance", gap_table([1, 2, 3]))
    (second,) = write_segments(tmp_path / "b", "gaps", "binance", gap_table([3, 1, 2]))
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()


def test_other_rows_give_another_name(tmp_path: Path) -> None:
    """Equal times, unequal content."""
    (first,) = write_segments(tmp_path, "gaps", "binance", gap_table([1], "a"))
    (second,) = write_segments(tmp_path, "gaps", "binance", gap_table([1], "b"))
    assert first.name != second.name


def test_listing_and_reading_give_the_rows_back(tmp_path: Path) -> None:
    """What was written is read, with the schema's types, hour by hour."""
    write_segments(tmp_path, "gaps", "binance", gap_table([-1, 5]))
    segments = list_segments(tmp_path, "gaps")
    assert [(segment.hour, segment.exchange) for segment in segments] == [
        ("2026-11-20-09", "binance"),
        ("2026-11-20-10", "binance"),
    ]
    table = read_segments(segments, "gaps")
    assert table.schema.equals(SCHEMAS["gaps"])
    assert table["timestamp"].cast(pa.int64()).to_pylist() == [TEN_US - 1_000_000, TEN_US + 5_000_000]


def test_listing_since_an_hour(tmp_path: Path) -> None:
    """Earlier hours are not looked into; the hour of ``since`` itself is."""
    write_segments(tmp_path, "gaps", "binance", gap_table([-1, 5]))
    assert [segment.hour for segment in list_segments(tmp_path, "gaps", TEN.replace(minute=59))] == ["2026-11-20-10"]
    assert list_segments(tmp_path, "gaps", TEN.replace(day=21)) == []


def test_nothing_there_is_an_empty_list(tmp_path: Path) -> None:
    """A sidecar that never ran is no error."""
    assert list_segments(tmp_path / "nowhere", "gaps") == []
    assert read_segments([], "gaps").num_rows == 0


def test_only_complete_segments_are_listed(tmp_path: Path) -> None:
    """Temporary files and strangers are invisible."""
    (path,) = write_segments(tmp_path, "gaps", "binance", gap_table([1]))
    (path.parent / f".{path.name}.tmp").write_bytes(b"half")
    (path.parent / "notes.txt").write_text("x")
    (path.parent / "strange.parquet").write_bytes(b"x")
    assert [segment.path for segment in list_segments(tmp_path, "gaps")] == [str(path)]


def test_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error between write and rename leaves neither the name nor a temporary file."""

    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space left"):
        write_durably(tmp_path / "segment", b"content")
    assert list(tmp_path.iterdir()) == []


def test_temporaries_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    """They can never become complete any more."""
    (path,) = write_segments(tmp_path, "gaps", "binance", gap_table([1]))
    (path.parent / ".half.parquet.tmp").write_bytes(b"half")
    assert remove_temporaries(tmp_path) == 1
    assert os.listdir(path.parent) == [path.name]  # noqa: PTH208 - hidden files count


@pytest.mark.parametrize("damage", [b"", b"PAR1 nonsense PAR1"])
def test_corrupt_segment_is_named(tmp_path: Path, damage: bytes) -> None:
    """The error says which file, so that it can be put aside."""
    (path,) = write_segments(tmp_path, "gaps", "binance", gap_table([1]))
    path.write_bytes(damage)
    (segment,) = list_segments(tmp_path, "gaps")
    with pytest.raises(LandingError, match=path.name):
        read_segment(segment)


def test_segment_of_another_schema_is_named(tmp_path: Path) -> None:
    """Columns are checked, not only the file's form."""
    (path,) = write_segments(tmp_path, "gaps", "binance", gap_table([1]))
    pq.write_table(pa.table({"a": [1]}), path)
    (segment,) = list_segments(tmp_path, "gaps")
    with pytest.raises(LandingError, match="has columns"):
        read_segment(segment)


def test_a_part_of_the_hours_can_be_listed(tmp_path: Path) -> None:
    """From an hour on, and up to an hour, that one excluded."""
    write_segments(tmp_path, "gaps", "binance", gap_table([-1, 5]))
    assert [segment.hour for segment in list_segments(tmp_path, "gaps", since=TEN)] == ["2026-11-20-10"]
    assert [segment.hour for segment in list_segments(tmp_path, "gaps", until=TEN)] == ["2026-11-20-09"]


def test_a_row_outside_of_the_times_in_its_name_damages_a_segment(tmp_path: Path) -> None:
    """Whoever looks for some minutes of an hour opens the segments whose names have them."""
    (path,) = write_segments(tmp_path, "gaps", "binance", gap_table([5, 7]))
    name, first, last, identity = path.name.split("-")
    path.rename(path.with_name("-".join((name, first, str(int(last) - 1), identity))))
    (segment,) = list_segments(tmp_path, "gaps")
    with pytest.raises(LandingError, match="has rows of 2026-11-20 10:00:05"):
        read_segment(segment)


def test_a_row_of_another_hour_damages_a_segment(tmp_path: Path) -> None:
    """A file that was moved, or that another program wrote, would land in the wrong hour."""
    (path,) = write_segments(tmp_path, "gaps", "binance", gap_table([5]))
    target = tmp_path / "gaps/date=2026-11-20/hour=11" / path.name
    target.parent.mkdir()
    path.rename(target)
    (segment,) = list_segments(tmp_path, "gaps")
    with pytest.raises(LandingError, match="has rows of 2026-11-20 10:00:05"):
        read_segment(segment)


def test_a_null_where_none_may_be_damages_a_segment(tmp_path: Path) -> None:
    """A Parquet file does not say by itself which columns are required."""
    (path,) = write_segments(tmp_path, "gaps", "binance", gap_table([5]))
    table = pq.ParquetFile(path).read()
    place = table.schema.get_field_index("reason")
    empty = pa.array([None], pa.string())
    pq.write_table(table.set_column(place, pa.field("reason", pa.string()), empty), path)
    (segment,) = list_segments(tmp_path, "gaps")
    with pytest.raises(LandingError, match=path.name):
        read_segment(segment)


def test_expiry_deletes_what_it_is_given(tmp_path: Path) -> None:
    """Folders that became empty go too; what was not given stays, and so does its folder."""
    write_segments(tmp_path, "gaps", "binance", gap_table([-1, 5]))
    assert expire_segments(tmp_path, list_segments(tmp_path, "gaps", until=TEN)) == 1
    assert [segment.hour for segment in list_segments(tmp_path, "gaps")] == ["2026-11-20-10"]
    assert not (tmp_path / "gaps/date=2026-11-20/hour=09").exists()


@pytest.mark.parametrize("dataset", sorted(SCHEMAS))
def test_every_dataset_has_a_time_an_order_and_descriptions(dataset: str) -> None:
    """The contract: a timestamp decides the hour, sort keys exist, each column says what it means."""
    schema = SCHEMAS[dataset]
    assert schema.field("timestamp").type == pa.timestamp("us", tz="UTC")
    assert set(SORT_KEYS[dataset]) <= set(schema.names)
    assert all(field.metadata[b"description"] for field in schema)
