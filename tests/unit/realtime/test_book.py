"""The books' state machine: when a book is LIVE, and what it holds then."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from mts_realtime.book import BookState, DeltaBook, OrderBook, PictureBook
from mts_realtime.diff_book import DiffBook, SyncBuffers
from mts_realtime.errors import CrossedBookError, SequenceGapError, SnapshotStaleError
from mts_realtime.events import BookDelta, BookSnapshot
from mts_realtime.exchanges.sequence import BinanceDiffDepth, BinancePartialDepth, BybitOrderBook

Ladder = Sequence[tuple[float, float]]


def snapshot(last: int, bids: Ladder = ((100.0, 1.0),), asks: Ladder = ((101.0, 2.0),)) -> BookSnapshot:
    return BookSnapshot("t", 50, 60, last, last - 1, 10 * last, list(bids), list(asks))


def delta(last: int, bids: Ladder = (), asks: Ladder = (), *, previous: int | None = None) -> BookDelta:
    before = last - 1 if previous is None else previous
    return BookDelta("t", 51, 61, before + 1, last, before, 10 * last, list(bids), list(asks))


def state(book: OrderBook) -> BookState:
    return book.state


def pictures() -> PictureBook:
    return PictureBook("t", BinancePartialDepth("t"))


def deltas() -> DeltaBook:
    return DeltaBook("t", BybitOrderBook("t"))


def diffs(levels: int = 1000) -> DiffBook:
    return DiffBook("t", BinanceDiffDepth("t"), levels, SyncBuffers())


@pytest.mark.parametrize("make", [pictures, deltas, diffs], ids=["pictures", "deltas", "diffs"])
def test_nothing_counts_before_the_subscription(make: Callable[[], OrderBook]) -> None:
    """An EMPTY book ignores whatever still arrives from before."""
    book = make()
    assert state(book) is BookState.EMPTY
    assert not book.on_snapshot(snapshot(5))
    assert state(book) is BookState.EMPTY


@pytest.mark.parametrize("make", [pictures, deltas], ids=["pictures", "deltas"])
def test_snapshot_makes_live(make: Callable[[], OrderBook]) -> None:
    """One full picture is enough where the stream brings it."""
    book = make()
    book.begin()
    assert book.on_snapshot(snapshot(5))
    assert state(book) is BookState.LIVE
    assert (book.best_bid, book.best_ask, book.last_id) == (100.0, 101.0, 5)
    assert (book.exchange_time_ms, book.received_ns) == (50, 60)


def test_delta_before_the_snapshot_changes_nothing() -> None:
    """There is nothing to apply it to."""
    book = deltas()
    book.begin()
    assert not book.on_delta(delta(6, [(100.0, 1.0)]))
    assert state(book) is BookState.SYNCING


def test_delta_inserts_overwrites_and_removes() -> None:
    """Size 0 removes, a new price inserts, a known price overwrites; the best price follows."""
    book = deltas()
    book.begin()
    book.on_snapshot(snapshot(5, [(100.0, 1.0), (99.0, 4.0)], [(101.0, 2.0), (102.0, 3.0)]))
    assert book.on_delta(delta(6, [(100.0, 0.0), (99.0, 5.0), (98.0, 6.0)], [(100.5, 7.0), (102.0, 0.0)]))
    assert book.top(9) == ([(99.0, 5.0), (98.0, 6.0)], [(100.5, 7.0), (101.0, 2.0)])
    assert (book.best_bid, book.best_ask) == (99.0, 100.5)


def test_removing_an_unknown_level_is_normal() -> None:
    """Exchanges send removals of levels that were never shown."""
    book = deltas()
    book.begin()
    book.on_snapshot(snapshot(5))
    assert book.on_delta(delta(6, [(50.0, 0.0)]))
    assert book.top(9) == ([(100.0, 1.0)], [(101.0, 2.0)])


def test_a_side_may_become_empty() -> None:
    """Then there is no best price on it, and the other side goes on."""
    book = deltas()
    book.begin()
    book.on_snapshot(snapshot(5))
    book.on_delta(delta(6, [(100.0, 0.0)]))
    assert (book.best_bid, book.best_ask) == (0.0, 101.0)
    assert book.checked_top(5) == ([], [(101.0, 2.0)])


def test_gap_makes_stale_and_a_new_snapshot_heals() -> None:
    """A gap is terminal for the book's state; nothing is applied until a snapshot comes."""
    book = deltas()
    book.begin()
    book.on_snapshot(snapshot(5))
    with pytest.raises(SequenceGapError):
        book.on_delta(delta(8))
    assert state(book) is BookState.STALE
    assert not book.on_delta(delta(9))
    assert book.on_snapshot(snapshot(10))
    assert state(book) is BookState.LIVE


@pytest.mark.parametrize("make", [pictures, deltas], ids=["pictures", "deltas"])
@pytest.mark.parametrize("ask", [100.0, 99.0])
def test_crossed_snapshot_is_not_published(make: Callable[[], OrderBook], ask: float) -> None:
    """Bid at or above ask: the book is STALE at once."""
    book = make()
    book.begin()
    with pytest.raises(CrossedBookError, match=r"bid 100\.0 at or above ask"):
        book.on_snapshot(snapshot(5, asks=[(ask, 1.0)]))
    assert state(book) is BookState.STALE


def test_delta_that_crosses_makes_stale() -> None:
    """The same for a crossing that an update brings."""
    book = deltas()
    book.begin()
    book.on_snapshot(snapshot(5))
    with pytest.raises(CrossedBookError):
        book.on_delta(delta(6, [(101.0, 1.0)]))
    assert state(book) is BookState.STALE


@pytest.mark.parametrize(
    ("bids", "asks"),
    [
        ([(99.0, 1.0), (100.0, 1.0)], [(101.0, 1.0)]),
        ([(100.0, 1.0)], [(101.0, 1.0), (101.0, 2.0)]),
        ([(100.0, 0.0)], [(101.0, 1.0)]),
    ],
)
def test_picture_out_of_order_is_not_published(bids: Ladder, asks: Ladder) -> None:
    """What the exchange sorts is checked before it is published: sorted, positive, uncrossed."""
    book = pictures()
    book.begin()
    book.on_snapshot(snapshot(5, bids, asks))
    with pytest.raises(CrossedBookError, match="out of order"):
        book.checked_top(20)
    assert state(book) is BookState.STALE


def test_stale_picture_book_heals_with_the_next_picture() -> None:
    """Each picture is complete, so one bad one costs one picture."""
    book = pictures()
    book.begin()
    with pytest.raises(CrossedBookError):
        book.on_snapshot(snapshot(5, asks=[(99.0, 1.0)]))
    assert book.on_snapshot(snapshot(6))
    assert state(book) is BookState.LIVE


def test_repetition_is_dropped_and_counted() -> None:
    """The same update twice, as overlapping connections bring it."""
    book = deltas()
    book.begin()
    book.on_snapshot(snapshot(5))
    book.on_delta(delta(6, [(100.0, 3.0)]))
    assert not book.on_delta(delta(6, [(100.0, 3.0)]))
    assert (book.dropped, book.state) == (1, BookState.LIVE)


def test_disconnect_drops_everything() -> None:
    """Nothing of a book outlives its connection."""
    book = deltas()
    book.begin()
    book.on_snapshot(snapshot(5))
    book.drop()
    assert (book.state, book.last_id, book.best_bid, book.top(5)) == (BookState.EMPTY, -1, 0.0, ([], []))


def test_diff_book_splices_snapshot_into_buffered_updates() -> None:
    """Updates 3..5 and 6..8 are buffered, snapshot 4 arrives: the first bridges, the second continues."""
    book = diffs()
    book.begin()
    assert not book.on_delta(delta(2, [(90.0, 9.0)], previous=0))
    assert not book.on_delta(delta(5, [(99.0, 2.0)], previous=2))
    assert not book.on_delta(delta(8, [(99.5, 3.0)], previous=5))
    assert book.on_snapshot(snapshot(4))
    assert state(book) is BookState.LIVE
    assert book.top(9)[0] == [(100.0, 1.0), (99.5, 3.0), (99.0, 2.0)]
    assert book.last_id == 8


def test_diff_book_waits_for_the_update_that_bridges() -> None:
    """A snapshot newer than every buffered update makes LIVE only with the update that contains it."""
    book = diffs()
    book.begin()
    book.on_delta(delta(5, previous=2))
    assert not book.on_snapshot(snapshot(10))
    assert state(book) is BookState.SYNCING
    assert not book.on_delta(delta(9, previous=5))
    assert book.on_delta(delta(12, [(100.5, 1.0)], previous=9))
    assert state(book) is BookState.LIVE


def test_diff_book_refuses_a_snapshot_older_than_its_updates() -> None:
    """The snapshot does not reach the buffer: it stays SYNCING, keeps the updates, and takes the next snapshot."""
    book = diffs()
    book.begin()
    book.on_delta(delta(20, [(99.0, 2.0)], previous=15))
    with pytest.raises(SnapshotStaleError):
        book.on_snapshot(snapshot(10))
    assert state(book) is BookState.SYNCING
    assert book.on_snapshot(snapshot(18))
    assert state(book) is BookState.LIVE


def test_diff_book_refuses_a_gap_inside_its_buffer() -> None:
    """Updates before the gap are of no use: what comes after it waits for a newer snapshot."""
    book = diffs()
    book.begin()
    book.on_delta(delta(5, previous=2))
    book.on_delta(delta(12, [(99.0, 2.0)], previous=9))
    with pytest.raises(SnapshotStaleError):
        book.on_snapshot(snapshot(4))
    assert state(book) is BookState.SYNCING
    assert book.on_snapshot(snapshot(11))
    assert book.top(9)[0] == [(100.0, 1.0), (99.0, 2.0)]


def test_books_that_wait_share_one_bound() -> None:
    """Room for 10 updates: one waiting book keeps 10, two keep 5 each; a book that is LIVE needs none."""
    buffers = SyncBuffers(limit=10)
    first, second = (DiffBook("t", BinanceDiffDepth("t"), 1000, buffers) for _ in range(2))
    first.begin()
    for number in range(20):
        first.on_delta(delta(number + 2, previous=number + 1))
    second.begin()
    second.on_delta(delta(5, previous=4))
    first.on_delta(delta(22, previous=21))
    with pytest.raises(SnapshotStaleError):
        first.on_snapshot(snapshot(16))
    assert first.on_snapshot(snapshot(17))
    assert buffers.share == 10


def wide_diff_book() -> DiffBook:
    """A LIVE book at update 5 whose snapshot was full with three levels a side, 98 to 103."""
    book = diffs(levels=3)
    book.begin()
    book.on_delta(delta(5, previous=2))
    bids, asks = [(100.0, 1.0), (99.0, 1.0), (98.0, 1.0)], [(101.0, 1.0), (102.0, 1.0), (103.0, 1.0)]
    book.on_snapshot(snapshot(4, bids, asks))
    return book


def test_diff_book_asks_for_a_refresh_before_the_price_leaves_its_snapshot() -> None:
    """Levels beyond a full snapshot are unknown, so a new one is due while there is still room."""
    book = wide_diff_book()
    book.checked_top(1)
    before = book.refresh_due
    book.on_delta(delta(6, [(100.0, 0.0), (99.0, 0.0)], [(99.0, 1.0)], previous=5))
    assert book.checked_top(1) == ([(98.0, 1.0)], [(99.0, 1.0)])
    assert (before, book.refresh_due) == (False, True)
    assert state(book) is BookState.LIVE


def test_refresh_fills_in_unknown_levels_without_leaving_live() -> None:
    """The snapshot at 6 knows a level at 97 that no update ever mentioned; updates 7 and 8 stay applied."""
    book = wide_diff_book()
    book.begin_refresh()
    assert book.on_delta(delta(7, [(100.0, 0.0)], previous=5))
    assert state(book) is BookState.LIVE
    fresh = snapshot(6, [(100.0, 1.0), (98.0, 1.0), (97.0, 8.0)], [(101.0, 1.0), (102.0, 1.0), (103.0, 1.0)])
    assert not book.on_snapshot(fresh)
    assert state(book) is BookState.LIVE
    assert book.top(9)[0] == [(98.0, 1.0), (97.0, 8.0)]
    assert book.on_delta(delta(8, [(97.0, 9.0)], previous=7))
    assert book.top(9)[0] == [(98.0, 1.0), (97.0, 9.0)]


def test_refresh_newer_than_the_book_waits_for_its_update() -> None:
    """A snapshot from the future is taken over only when the book has come as far."""
    book = wide_diff_book()
    book.begin_refresh()
    book.on_snapshot(snapshot(9, [(100.0, 7.0)], [(101.0, 7.0)]))
    assert book.top(1)[0] == [(100.0, 1.0)]
    book.on_delta(delta(7, [(99.5, 1.0)], previous=5))
    assert book.top(1)[0] == [(100.0, 1.0)]
    book.on_delta(delta(10, [(99.0, 2.0)], previous=7))
    assert book.top(9)[0] == [(100.0, 7.0), (99.0, 2.0)]


def test_refresh_that_cannot_be_spliced_is_forgotten() -> None:
    """An old snapshot changes nothing, and the book may ask again."""
    book = wide_diff_book()
    book.begin_refresh()
    book.on_delta(delta(7, previous=5))
    book.on_snapshot(snapshot(3))
    assert state(book) is BookState.LIVE
    assert book.top(1)[0] == [(100.0, 1.0)]
    book.checked_top(3)
    assert book.refresh_due


def test_diff_book_with_a_short_snapshot_never_needs_a_refresh() -> None:
    """A snapshot that is not full shows the whole book, so new levels anywhere are complete."""
    book = diffs(levels=1000)
    book.begin()
    book.on_delta(delta(5, previous=2))
    book.on_snapshot(snapshot(4))
    book.on_delta(delta(6, [(90.0, 1.0)], previous=5))
    assert book.checked_top(5)[0] == [(100.0, 1.0), (90.0, 1.0)]
    assert not book.refresh_due


def test_diff_book_forgets_levels_far_from_the_price() -> None:
    """Weeks of updates far from the price must not pile up."""
    book = wide_diff_book()
    for number in range(1200):
        book.on_delta(delta(6 + number, [(10.0 + number / 100.0, 1.0)], previous=5 + number))
    assert len(book.bids) + len(book.asks) <= 24
    assert book.top(3)[0] == [(100.0, 1.0), (99.0, 1.0), (98.0, 1.0)]
