"""Property: whatever happens to the messages, a book ends LIVE and equal to the true one, or not LIVE."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from mts_realtime.book import BookState, DeltaBook, OrderBook
from mts_realtime.diff_book import DiffBook, SyncBuffers
from mts_realtime.errors import BookError
from mts_realtime.events import BookDelta, BookSnapshot, Levels
from mts_realtime.exchanges.sequence import BinanceDiffDepth, BybitOrderBook

Truth = dict[tuple[int, int], tuple[Levels, Levels]]

FAULTS = st.lists(
    st.tuples(st.sampled_from(["drop", "duplicate", "swap", "repeat_later"]), st.integers(0, 60), st.integers(1, 8)),
    max_size=5,
)


def random_walk(seed: int, steps: int) -> list[tuple[Levels, Levels, Levels, Levels]]:
    """A true book over time: after each step its changed bids and asks, and all of its bids and asks."""
    rng = random.Random(seed)  # noqa: S311 - a reproducible walk, no secret
    bids = {float(price): 1.0 for price in range(90, 100)}
    asks = {float(price): 1.0 for price in range(101, 111)}
    history = []
    for _ in range(steps):
        changes: list[dict[float, float]] = [{}, {}]
        for side, changed in ((bids, changes[0]), (asks, changes[1])):
            for _ in range(rng.randint(0, 3)):
                price = float(rng.randint(85, 99) if side is bids else rng.randint(101, 115))
                size = float(rng.choice([0, 1, 2, 3]))
                changed[price] = size
                if size:
                    side[price] = size
                else:
                    side.pop(price, None)
        history.append((list(changes[0].items()), list(changes[1].items()), sorted(bids.items()), sorted(asks.items())))
    return history


def damage(messages: list[object], faults: list[tuple[str, int, int]]) -> list[object]:
    """Drop, duplicate, swap with the next, or repeat some messages later."""
    messages = list(messages)
    for kind, position, distance in faults:
        if not messages:
            break
        at = position % len(messages)
        if kind == "drop":
            del messages[at]
        elif kind == "duplicate":
            messages.insert(at, messages[at])
        elif kind == "repeat_later":
            messages.insert(min(len(messages), at + distance), messages[at])
        elif at + 1 < len(messages):
            messages[at], messages[at + 1] = messages[at + 1], messages[at]
    return messages


def play(book: OrderBook, messages: list[object]) -> None:
    book.begin()
    for message in messages:
        try:
            if message == "refresh" and isinstance(book, DiffBook):
                book.begin_refresh()
            elif isinstance(message, BookSnapshot):
                book.on_snapshot(message)
            elif isinstance(message, BookDelta):
                book.on_delta(message)
        except BookError:
            assert book.state is not BookState.LIVE


def assert_true_or_not_live(book: OrderBook, truth: Truth) -> None:
    if book.state is not BookState.LIVE:
        return
    bids, asks = book.checked_top(1000)
    assert (sorted(bids), sorted(asks)) == truth[book.last_id, book.cross_id or 0]


@given(seed=st.integers(0, 10_000), steps=st.integers(5, 50), restart=st.integers(0, 60), faults=FAULTS)
def test_bybit_book_is_true_or_not_live(
    seed: int, steps: int, restart: int, faults: list[tuple[str, int, int]]
) -> None:
    """Snapshot, deltas, one restart of the service (``u`` 1), and any damage on the way."""
    messages: list[object] = []
    truth: Truth = {}
    update = 5000
    for number, (changed_bids, changed_asks, bids, asks) in enumerate(random_walk(seed, steps)):
        cross = 100 + 7 * number
        restarted = number == restart
        update = 1 if restarted else update + 1
        truth[update, cross] = (bids, asks)
        if number == 0 or restarted:
            messages.append(BookSnapshot("t", 0, number, update, None, cross, list(bids), list(asks)))
        else:
            messages.append(BookDelta("t", 0, number, update, update, update - 1, cross, changed_bids, changed_asks))
    book = DeltaBook("t", BybitOrderBook("t"))
    play(book, damage(messages, faults))
    assert_true_or_not_live(book, truth)


@given(
    seed=st.integers(0, 10_000),
    steps=st.integers(5, 50),
    snapshots=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=3),
    refreshes=st.lists(st.integers(0, 60), max_size=2),
    faults=FAULTS,
)
def test_binance_diff_book_is_true_or_not_live(
    seed: int,
    steps: int,
    snapshots: list[tuple[int, int]],
    refreshes: list[int],
    faults: list[tuple[str, int, int]],
) -> None:
    """Updates, REST snapshots taken and arriving at any time, refreshes begun at any time, and any damage."""
    messages: list[object] = []
    truth: Truth = {}
    states = []
    last = 1000
    rng = random.Random(seed)  # noqa: S311 - a reproducible walk, no secret
    for number, (changed_bids, changed_asks, bids, asks) in enumerate(random_walk(seed, steps)):
        first, previous = last + 1, last
        last += rng.randint(1, 5)
        truth[last, 0] = (bids, asks)
        states.append((last, bids, asks))
        messages.append(BookDelta("t", 0, number, first, last, previous, None, changed_bids, changed_asks))
    for taken, arrives in snapshots:
        last, bids, asks = states[taken % len(states)]
        snapshot = BookSnapshot("t", 0, 0, last, None, None, list(bids), list(asks))
        messages.insert(arrives % (len(messages) + 1), snapshot)
    for position in refreshes:
        messages.insert(position % (len(messages) + 1), "refresh")
    book = DiffBook("t", BinanceDiffDepth("t"), 1000, SyncBuffers())
    play(book, damage(messages, faults))
    assert_true_or_not_live(book, truth)


@given(seed=st.integers(0, 10_000), steps=st.integers(5, 50))
def test_undamaged_books_are_live_and_true(seed: int, steps: int) -> None:
    """Without damage a book never leaves LIVE."""
    book = DeltaBook("t", BybitOrderBook("t"))
    book.begin()
    for number, (changed_bids, changed_asks, bids, asks) in enumerate(random_walk(seed, steps)):
        cross = 7 * number
        if number == 0:
            book.on_snapshot(BookSnapshot("t", 0, 0, 10, None, cross, list(bids), list(asks)))
        else:
            book.on_delta(BookDelta("t", 0, 0, 10, 10 + number, 9, cross, changed_bids, changed_asks))
        assert book.state is BookState.LIVE
        top = book.checked_top(1000)
        assert (sorted(top[0]), sorted(top[1])) == (bids, asks)
        assert book.best_bid == max((price for price, _ in bids), default=0.0)
        assert book.best_ask == min((price for price, _ in asks), default=float("inf"))
