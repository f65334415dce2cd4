"""The writer: order, markers, a disk that refuses, what is shed and how it is declared."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import mts_realtime.writer as writer_module
from mts_realtime.errors import LandingError
from mts_realtime.events import FundingUpdate, Instrument, Levels
from mts_realtime.gaps import Covered, Gap, OpenGap
from mts_realtime.landing import list_segments, read_segments, write_durably, write_segments
from mts_realtime.recorder import Batch, Recorder
from mts_realtime.writer import SegmentWriter, read_marker

S = 1_000_000_000
NOON = 1_795_176_000 * S
BOOK = Covered("binance", "BTCUSDT", "btcusdt@depth20", ("order_book",))


class Disk:
    """Makes writing fail on command, as a full disk does."""

    def __init__(self) -> None:
        self.refuses: int | None = None

    def check(self) -> None:
        if self.refuses is not None:
            raise OSError(self.refuses, "refused")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()

    def segments(*arguments: object) -> list[Path]:
        disk.check()
        return write_segments(*arguments)  # type: ignore[arg-type]

    def durably(*arguments: object) -> None:
        disk.check()
        write_durably(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(writer_module, "write_segments", segments)
    monkeypatch.setattr(writer_module, "write_durably", durably)
    return disk


@pytest.fixture
def make_batch(make_instrument: Callable[..., Instrument]) -> Callable[..., Batch]:
    """A batch of sampled books and funding rows at given seconds after noon."""

    def make(
        books: list[int],
        funding: Sequence[int] = (),
        open_gaps: Sequence[OpenGap] = (),
        *,
        clean: bool = False,
    ) -> Batch:
        recorder = Recorder()
        instrument = make_instrument()
        for second in books:
            at = NOON + second * S
            recorder.add_book(
                instrument, at, (at // 10**6 - 5, at - 3000, second, None), 4, ([(1.0, 2.0)], [(3.0, 4.0)])
            )
        for second in funding:
            at = NOON + second * S
            event = FundingUpdate("t", at // 10**6, at, 10.0, None, 0.0001, NOON // 10**6, None)
            recorder.add_funding(instrument, event, "sample", 8.0)
        until = NOON + max([*books, *funding], default=0) * S + 1
        return recorder.take(until, list(open_gaps), [BOOK], clean=clean)

    return make


def rows(landing: Path, dataset: str) -> list[dict[str, object]]:
    return read_segments(list_segments(landing, dataset), dataset).to_pylist()  # type: ignore[no-any-return]


def test_book_row_keeps_levels_and_position(tmp_path: Path, make_batch: Callable[..., Batch]) -> None:
    """Prices and sizes come back in order with times, sequence and update count."""
    assert SegmentWriter(tmp_path, 1000).write(make_batch([1]))
    (row,) = rows(tmp_path, "order_book")
    assert (row["bid_prices"], row["bid_sizes"], row["ask_prices"], row["ask_sizes"]) == ([1.0], [2.0], [3.0], [4.0])
    assert (row["sequence_id"], row["cross_sequence_id"], row["update_count"]) == (1, None, 4)
    assert row["timestamp"].timestamp() == NOON / S + 1  # type: ignore[attr-defined]


def test_books_of_unequal_depth(tmp_path: Path, make_instrument: Callable[..., Instrument]) -> None:
    """Each row has its own number of levels, none at all included."""
    recorder = Recorder()
    books: list[tuple[Levels, Levels]] = [([(1.0, 2.0), (0.5, 1.0)], []), ([], [(3.0, 4.0)])]
    for second, levels in enumerate(books, 1):
        recorder.add_book(make_instrument(), NOON + second * S, (0, 0, second, 7), 1, levels)
    SegmentWriter(tmp_path, 1000).write(recorder.take(NOON + 3 * S, [], []))
    first, second_row = rows(tmp_path, "order_book")
    assert (first["bid_prices"], first["ask_prices"]) == ([1.0, 0.5], [])
    assert (second_row["bid_sizes"], second_row["ask_sizes"]) == ([], [4.0])


def test_marker_tells_the_next_process_what_was_killed(tmp_path: Path, make_batch: Callable[..., Batch]) -> None:
    """Without an orderly end everything after the last batch is a gap of each topic."""
    SegmentWriter(tmp_path, 1000).write(make_batch([1, 2]))
    marker = read_marker(tmp_path)
    assert marker is not None
    assert marker.gaps() == [OpenGap(BOOK, NOON + 2 * S + 1, "process_killed")]


def test_marker_of_an_orderly_end(tmp_path: Path, make_batch: Callable[..., Batch]) -> None:
    """Then the gap is one of standing still, and gaps that were open stay what they were."""
    silent = OpenGap(BOOK, NOON, "silence")
    SegmentWriter(tmp_path, 1000).write(make_batch([1], clean=True))
    assert [gap.reason for gap in read_marker(tmp_path).gaps()] == ["process_stopped"]  # type: ignore[union-attr]
    SegmentWriter(tmp_path, 1000).write(make_batch([1], open_gaps=[silent], clean=True))
    assert read_marker(tmp_path).gaps() == [silent]  # type: ignore[union-attr]


def test_no_marker_at_the_first_start(tmp_path: Path) -> None:
    """Nothing was promised before."""
    assert read_marker(tmp_path) is None


def test_damaged_marker_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    """It must not be ignored: it would hide a gap."""
    (tmp_path / ".marker.json").write_text("{")
    with pytest.raises(LandingError, match="delete it to start without the last gap"):
        read_marker(tmp_path)


def test_full_disk_keeps_rows_and_writes_them_later(
    tmp_path: Path, disk: Disk, make_batch: Callable[..., Batch]
) -> None:
    """Nothing is lost while memory holds it; the marker waits with the rows."""
    writer = SegmentWriter(tmp_path, 1000)
    disk.refuses = errno.ENOSPC
    assert not writer.write(make_batch([1, 2], [1]))
    assert "refused" in writer.problem
    assert (writer.waiting_rows, read_marker(tmp_path)) == (3, None)
    disk.refuses = None
    assert writer.write(make_batch([3]))
    assert len(rows(tmp_path, "order_book")) == 3
    assert len(rows(tmp_path, "funding")) == 1
    assert (writer.problem, writer.waiting_rows) == ("", 0)
    assert read_marker(tmp_path).until_ns == NOON + 3 * S + 1  # type: ignore[union-attr]


def test_full_disk_sheds_books_before_funding_and_declares_them(
    tmp_path: Path, disk: Disk, make_batch: Callable[..., Batch]
) -> None:
    """Room for 4 rows: of 2 + 2 + 2 books the oldest go, the 2 funding rows stay, the hole becomes one gap row."""
    writer = SegmentWriter(tmp_path, 4)
    disk.refuses = errno.ENOSPC
    for second in (1, 3, 5):
        writer.write(make_batch([second, second + 1], [1, 2] if second == 1 else []))
    assert writer.rows_shed["order_book"] == 4
    assert writer.rows_shed["funding"] == 0
    disk.refuses = None
    assert writer.write(make_batch([7]))
    assert [row["timestamp"].timestamp() - NOON / S for row in rows(tmp_path, "order_book")] == [5.0, 6.0, 7.0]  # type: ignore[attr-defined]
    assert len(rows(tmp_path, "funding")) == 2
    (gap,) = rows(tmp_path, "gaps")
    assert (gap["dataset"], gap["symbol"], gap["reason"]) == ("order_book", "BTCUSDT", "disk_full")
    assert gap["gap_start"].timestamp() == NOON / S + 1  # type: ignore[attr-defined]
    assert gap["gap_end"].timestamp() == pytest.approx(NOON / S + 4, abs=1e-5)  # type: ignore[attr-defined]


def test_other_disk_errors_are_survived_and_named(tmp_path: Path, disk: Disk, make_batch: Callable[..., Batch]) -> None:
    """A disk that fails in another way is declared in another word."""
    writer = SegmentWriter(tmp_path, 1)
    disk.refuses = errno.EIO
    writer.write(make_batch([1, 2]))
    disk.refuses = None
    writer.write(make_batch([]))
    assert [row["reason"] for row in rows(tmp_path, "gaps")] == ["disk_error"]


def test_gap_row_lies_in_the_hour_in_which_it_ends(tmp_path: Path) -> None:
    """A gap until exactly 12:00 belongs to the hour before."""
    recorder = Recorder()
    recorder.add_gap(Gap("order_book", "binance", "BTCUSDT", "t", NOON - 90 * S, NOON, "silence"))
    SegmentWriter(tmp_path, 1000).write(recorder.take(NOON, [], []))
    (segment,) = list_segments(tmp_path, "gaps")
    assert segment.hour.endswith("-11")
