"""Books whose snapshot comes over REST and is spliced into the stream of updates.

What belongs here: buffering, splicing, and the refresh of a book whose price leaves what its snapshot showed. The
states and the levels are ``book``'s, the sequence rules those of ``exchanges.sequence``.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from mts_realtime.book import NO_ASK, NO_BID, BookState, DeltaBook
from mts_realtime.errors import BookError, SequenceGapError, SnapshotStaleError
from mts_realtime.events import BookDelta, BookSnapshot
from mts_realtime.exchanges.sequence import Verdict

if TYPE_CHECKING:
    from mts_realtime.events import Levels
    from mts_realtime.exchanges.sequence import Sequencer


class SyncBuffers:
    """Bounds the updates that books keep while they wait for their snapshots, all of them together.

    Few waiting books may keep many updates (a recording played at full speed passes thousands before a REST answer
    arrives), and a thousand of them still fit into memory.
    """

    def __init__(self, limit: int = 50_000) -> None:
        self._limit = limit
        self._waiting: set[DiffBook] = set()

    def join(self, book: DiffBook) -> None:
        """The book begins to wait."""
        self._waiting.add(book)

    def leave(self, book: DiffBook) -> None:
        """The book waits no longer."""
        self._waiting.discard(book)

    @property
    def share(self) -> int:
        """Updates that each waiting book may keep."""
        return self._limit // max(1, len(self._waiting))


class DiffBook(DeltaBook):
    """A book whose snapshot comes over REST (Binance diff depth).

    While SYNCING it keeps its newest updates, bounded by ``SyncBuffers``. A snapshot newer than all of them waits
    for the update that bridges it.

    A snapshot shows at most ``snapshot_levels`` a side; a level beyond them stays unknown until it changes, so the
    book thins out where the price moves away from the snapshot (BTC leaves 1000 levels within minutes). Before the
    wanted levels reach the end of what the snapshot showed, ``refresh_due`` asks for another one; it is spliced into
    a successor beside the LIVE book, which takes its levels over without a gap.

    Attributes:
        floor: Lowest bid that the snapshot showed, 0 when it showed all of them.
        ceiling: Highest ask that the snapshot showed, infinite when it showed all of them.
        refresh_due: Whether the wanted levels come near either.
    """

    __slots__ = (
        "_buffer",
        "_buffers",
        "_snapshot_levels",
        "_successor",
        "_waiting",
        "ceiling",
        "floor",
        "refresh_due",
    )

    needs_snapshot = True

    def __init__(self, topic: str, sequencer: Sequencer, snapshot_levels: int, buffers: SyncBuffers) -> None:
        self._snapshot_levels = snapshot_levels
        self._buffers = buffers
        self._buffer: deque[BookDelta] = deque()
        self._successor: DiffBook | None = None
        super().__init__(topic, sequencer)

    def begin(self) -> None:
        """The topic is (again) subscribed to: drop everything, and keep updates until a snapshot comes."""
        super().begin()
        self._buffers.join(self)

    def clear(self) -> None:
        """Forget levels, position, buffered updates, and what the snapshot showed."""
        super().clear()
        self._buffers.leave(self)
        self._buffer.clear()
        self._waiting = False
        self.floor = NO_BID
        self.ceiling = NO_ASK
        self._drop_successor()
        self.refresh_due = False

    def begin_refresh(self) -> None:
        """A further snapshot was asked for: collect updates for it while this book goes on."""
        self.refresh_due = False
        self._drop_successor()
        self._successor = DiffBook(self.topic, type(self.sequencer)(self.topic), self._snapshot_levels, self._buffers)
        self._successor.begin()

    def on_snapshot(self, event: BookSnapshot) -> bool:
        """Splice the snapshot into the buffered updates; for a LIVE book it goes to the successor.

        Raises:
            SnapshotStaleError: When it is older than the first buffered update; the book stays SYNCING.
        """
        if self.state is BookState.LIVE:
            self._feed_successor(event)
            return False
        if self.state is not BookState.SYNCING:
            return False
        self._judge_snapshot(event)
        self._replace(event)
        full = self._snapshot_levels
        self.floor = min(self.bids) if len(self.bids) >= full else NO_BID
        self.ceiling = max(self.asks) if len(self.asks) >= full else NO_ASK
        self._waiting = True
        buffered, last = list(self._buffer), event.last_id
        self._buffer.clear()
        changed = False
        for position, update in enumerate(buffered):
            try:
                changed = self._continue(update) or changed
            except SequenceGapError as gap:
                self.state = BookState.SYNCING
                self._waiting = False
                self._buffers.join(self)
                self._buffer.extend(buffered[position:])
                raise SnapshotStaleError(self.topic, f"snapshot {last}: {gap.detail}") from None
        return changed

    def on_delta(self, event: BookDelta) -> bool:
        """Apply to a LIVE book, bridge a waiting snapshot, or buffer."""
        if self.state is BookState.LIVE:
            changed = super().on_delta(event)
            if self._successor is not None:
                self._feed_successor(event)
            elif len(self.bids) + len(self.asks) > 8 * self._snapshot_levels:
                self._prune()
            return changed
        if self.state is not BookState.SYNCING:
            return False
        if not self._waiting:
            self._buffer.append(event)
            while len(self._buffer) > self._buffers.share:
                self._buffer.popleft()
            return False
        try:
            return self._continue(event)
        except SequenceGapError as gap:
            self._waiting = False
            self._buffer.append(event)
            raise SnapshotStaleError(self.topic, gap.detail) from None

    def checked_top(self, levels: int) -> tuple[Levels, Levels]:
        """Best levels, proven as always; notes when they come near the end of what the snapshot showed."""
        bids, asks = super().checked_top(levels)
        if bids and asks and self._successor is None:
            reach = (asks[-1][0] - bids[-1][0]) / 2.0
            self.refresh_due = bids[-1][0] - reach < self.floor or asks[-1][0] + reach > self.ceiling
        return bids, asks

    def _feed_successor(self, event: BookSnapshot | BookDelta) -> None:
        """Let the successor catch up; take its levels once it stands where this book stands."""
        successor = self._successor
        if successor is None:
            return
        try:
            if isinstance(event, BookDelta):
                successor.on_delta(event)
            else:
                successor.on_snapshot(event)
        except BookError:
            self._drop_successor()  # a further sample asks again
            return
        if successor.state is BookState.LIVE and successor.last_id == self.last_id:
            self.bids, self.asks = successor.bids, successor.asks
            self.best_bid, self.best_ask = successor.best_bid, successor.best_ask
            self.floor, self.ceiling = successor.floor, successor.ceiling
            self._successor = None

    def _drop_successor(self) -> None:
        if self._successor is not None:
            self._successor.drop()
            self._successor = None

    def _continue(self, event: BookDelta) -> bool:
        """Apply an update to the waiting snapshot; the first one that fits makes the book LIVE."""
        if self.sequencer.delta(event) is Verdict.DROP:
            self.dropped += 1
            return False
        self._update(event)
        self.state = BookState.LIVE
        self._waiting = False
        self._buffers.leave(self)
        self._accept(event)
        return True

    def _prune(self) -> None:
        """Forget levels far from the price: they are incomplete, and would only pile up over weeks."""
        bids, asks = self.top(2 * self._snapshot_levels)
        self.bids, self.asks = dict(bids), dict(asks)
