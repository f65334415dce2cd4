"""Order books with their state machine: what is known of a book, and whether it may be used.

What belongs here: levels, the four states, and when they change. No clock, no socket, no venue field names; which
update follows which is judged by the sequencers in ``exchanges.sequence``.

States::

    EMPTY    nothing is known: before the subscription, and after every disconnect
    SYNCING  asked for, waiting for the snapshot (diff depth collects updates meanwhile)
    LIVE     complete and current: the only state in which a book is published
    STALE    was LIVE and broke (gap, crossed, silence); waits until it is asked for again

Three kinds differ in how they become and stay LIVE: pictures (each message is the whole book), deltas (the stream
brings its own snapshot), and diffs (the snapshot comes over REST and is spliced into the buffered updates).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from enum import IntEnum
from typing import TYPE_CHECKING

from mts_realtime.errors import BookError, CrossedBookError, SequenceGapError, SnapshotStaleError
from mts_realtime.events import BookDelta, BookSnapshot
from mts_realtime.exchanges.sequence import Verdict

if TYPE_CHECKING:
    from mts_realtime.events import Levels
    from mts_realtime.exchanges.sequence import Sequencer

NO_ASK = float("inf")
NO_BID = 0.0


class BookState(IntEnum):
    """How far a book may be trusted."""

    EMPTY = 0
    SYNCING = 1
    LIVE = 2
    STALE = 3


class OrderBook(ABC):
    """One book. Best prices are kept on every update; sorted levels are made when asked for.

    Attributes:
        topic: The exchange's name of the stream.
        state: See the module's text.
        best_bid: Highest bid, 0 when there is none.
        best_ask: Lowest ask, infinite when there is none.
        last_id: Sequence number of the newest update applied.
        cross_id: Sequence number comparable between streams, where the venue sends one.
        exchange_time_ms: Exchange time of that update.
        received_ns: Our receipt time of that update.
        dropped: Updates skipped as repetitions.
    """

    __slots__ = (
        "best_ask",
        "best_bid",
        "cross_id",
        "dropped",
        "exchange_time_ms",
        "last_id",
        "received_ns",
        "sequencer",
        "state",
        "topic",
    )

    needs_snapshot = False
    """Whether somebody has to bring a REST snapshot while the book is SYNCING."""

    def __init__(self, topic: str, sequencer: Sequencer) -> None:
        self.topic = topic
        self.sequencer = sequencer
        self.state = BookState.EMPTY
        self.dropped = 0
        self.clear()

    def clear(self) -> None:
        """Forget levels and position."""
        self.best_bid = NO_BID
        self.best_ask = NO_ASK
        self.last_id = -1
        self.cross_id: int | None = None
        self.exchange_time_ms = 0
        self.received_ns = 0
        self.sequencer.reset()

    def begin(self) -> None:
        """The topic is (again) subscribed to: drop everything and wait for data."""
        self.clear()
        self.state = BookState.SYNCING

    def invalidate(self) -> None:
        """The book may not be used any more until it is synchronised again."""
        if self.state is BookState.LIVE:
            self.state = BookState.STALE

    def drop(self) -> None:
        """The connection is gone: nothing is known any more."""
        self.clear()
        self.state = BookState.EMPTY

    @abstractmethod
    def on_snapshot(self, event: BookSnapshot) -> bool:
        """Take a full picture; True when the book changed and is LIVE.

        Raises:
            BookError: When the book may not be used any more.
        """

    @abstractmethod
    def on_delta(self, event: BookDelta) -> bool:
        """Take changed levels; True when the book changed and is LIVE.

        Raises:
            BookError: When the book may not be used any more.
        """

    @abstractmethod
    def top(self, levels: int) -> tuple[Levels, Levels]:
        """Best ``levels`` bids (falling) and asks (rising)."""

    def checked_top(self, levels: int) -> tuple[Levels, Levels]:
        """The same, proven sorted, uncrossed and positive: what may be published.

        Raises:
            CrossedBookError: When it is not; the book becomes STALE.
        """
        bids, asks = self.top(levels)
        if not _is_ladder(bids, asks):
            self.invalidate()
            raise CrossedBookError(self.topic, f"levels out of order at update {self.last_id}")
        return bids, asks

    def _accept(self, event: BookSnapshot | BookDelta) -> None:
        """Note the position of an applied update, and refuse a crossed book."""
        self.last_id = event.last_id
        self.cross_id = event.cross_id
        self.exchange_time_ms = event.exchange_time_ms
        self.received_ns = event.received_ns
        if self.best_bid >= self.best_ask:
            self.invalidate()
            raise CrossedBookError(self.topic, f"bid {self.best_bid} at or above ask {self.best_ask}")


def _is_ladder(bids: Levels, asks: Levels) -> bool:
    """Bids strictly falling, asks strictly rising, all positive, not crossed."""
    last = asks[0][0] if asks else NO_ASK
    for price, size in bids:
        if not (price < last and price > 0.0 and size > 0.0):
            return False
        last = price
    last = bids[0][0] if bids else NO_BID
    for price, size in asks:
        if not (price > last and size > 0.0):
            return False
        last = price
    return True


class PictureBook(OrderBook):
    """A book of which every message shows all of it (Binance partial depth)."""

    __slots__ = ("asks", "bids")

    def clear(self) -> None:
        """Forget levels and position."""
        super().clear()
        self.bids: Levels = []
        self.asks: Levels = []

    def on_snapshot(self, event: BookSnapshot) -> bool:
        """Replace the book."""
        if self.state is BookState.EMPTY:
            return False
        if self.sequencer.snapshot(event) is Verdict.DROP:
            self.dropped += 1
            return False
        self.bids = bids = event.bids
        self.asks = asks = event.asks
        self.best_bid = bids[0][0] if bids else NO_BID
        self.best_ask = asks[0][0] if asks else NO_ASK
        self.state = BookState.LIVE
        self._accept(event)
        return True

    def on_delta(self, event: BookDelta) -> bool:
        """Refuse: this stream has no deltas."""
        self.invalidate()
        self.sequencer.delta(event)
        return False

    def top(self, levels: int) -> tuple[Levels, Levels]:
        """Best levels, as the exchange sorted them."""
        return self.bids[:levels], self.asks[:levels]


class DeltaBook(OrderBook):
    """A book whose stream begins with a snapshot and goes on with deltas (Bybit).

    Levels live in dicts from price to size: an update costs one store a level, and sorting happens only for
    levels that somebody asks for.
    """

    __slots__ = ("asks", "bids")

    def clear(self) -> None:
        """Forget levels and position."""
        super().clear()
        self.bids: dict[float, float] = {}
        self.asks: dict[float, float] = {}

    def on_snapshot(self, event: BookSnapshot) -> bool:
        """Replace the book; it is LIVE from here on."""
        if self.state is BookState.EMPTY:
            return False
        if self._judge_snapshot(event) is Verdict.DROP:
            self.dropped += 1
            return False
        self._replace(event)
        self.state = BookState.LIVE
        self._accept(event)
        return True

    def on_delta(self, event: BookDelta) -> bool:
        """Apply changed levels to a LIVE book; without one there is nothing to apply them to."""
        if self.state is not BookState.LIVE:
            return False
        try:
            verdict = self.sequencer.delta(event)
        except SequenceGapError:
            self.invalidate()
            raise
        if verdict is Verdict.DROP:
            self.dropped += 1
            return False
        self._update(event)
        self._accept(event)
        return True

    def top(self, levels: int) -> tuple[Levels, Levels]:
        """Best levels, sorted now."""
        bids, asks = self.bids, self.asks
        best_bids = sorted(bids, reverse=True)[:levels]
        best_asks = sorted(asks)[:levels]
        return [(price, bids[price]) for price in best_bids], [(price, asks[price]) for price in best_asks]

    def _judge_snapshot(self, event: BookSnapshot) -> Verdict:
        try:
            return self.sequencer.snapshot(event)
        except SequenceGapError:
            self.invalidate()
            raise

    def _replace(self, event: BookSnapshot) -> None:
        self.bids = {price: size for price, size in event.bids if size}
        self.asks = {price: size for price, size in event.asks if size}
        self.best_bid = max(self.bids, default=NO_BID)
        self.best_ask = min(self.asks, default=NO_ASK)

    def _update(self, event: BookDelta) -> None:
        """Store, or remove, each level; the best price is searched again only when it went away."""
        side, best = self.bids, self.best_bid
        for price, size in event.bids:
            if size:
                side[price] = size
                if price > best:  # noqa: PLR1730 - max() would cost as much as the rest of the loop
                    best = price
            else:
                side.pop(price, None)
        self.best_bid = best if best in side else max(side, default=NO_BID)
        side, best = self.asks, self.best_ask
        for price, size in event.asks:
            if size:
                side[price] = size
                if price < best:  # noqa: PLR1730 - same
                    best = price
            else:
                side.pop(price, None)
        self.best_ask = best if best in side else min(side, default=NO_ASK)


class DiffBook(DeltaBook):
    """A book whose snapshot comes over REST (Binance diff depth).

    While SYNCING it keeps the newest ``buffer_updates`` updates. A snapshot newer than all of them waits for the
    update that bridges it.

    A snapshot shows at most ``snapshot_levels`` a side; a level beyond them stays unknown until it changes, so the
    book thins out where the price moves away from the snapshot (BTC leaves 1000 levels within minutes). Before the
    wanted levels reach the end of what the snapshot showed, ``refresh_due`` asks for another one; it is spliced into
    a successor beside the LIVE book, which takes its levels over without a gap.

    Attributes:
        floor: Lowest bid that the snapshot showed, 0 when it showed all of them.
        ceiling: Highest ask that the snapshot showed, infinite when it showed all of them.
        refresh_due: Whether the wanted levels come near either.
    """

    __slots__ = ("_buffer", "_snapshot_levels", "_successor", "_waiting", "ceiling", "floor", "refresh_due")

    needs_snapshot = True

    def __init__(self, topic: str, sequencer: Sequencer, snapshot_levels: int, buffer_updates: int = 1000) -> None:
        self._snapshot_levels = snapshot_levels
        self._buffer: deque[BookDelta] = deque(maxlen=buffer_updates)
        super().__init__(topic, sequencer)

    def clear(self) -> None:
        """Forget levels, position, buffered updates, and what the snapshot showed."""
        super().clear()
        self._buffer.clear()
        self._waiting = False
        self.floor = NO_BID
        self.ceiling = NO_ASK
        self._successor: DiffBook | None = None
        self.refresh_due = False

    def begin_refresh(self) -> None:
        """A further snapshot was asked for: collect updates for it while this book goes on."""
        self.refresh_due = False
        self._successor = DiffBook(self.topic, type(self.sequencer)(self.topic), self._snapshot_levels)
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
            self._successor = None  # a further sample asks again
            return
        if successor.state is BookState.LIVE and successor.last_id == self.last_id:
            self.bids, self.asks = successor.bids, successor.asks
            self.best_bid, self.best_ask = successor.best_bid, successor.best_ask
            self.floor, self.ceiling = successor.floor, successor.ceiling
            self._successor = None

    def _continue(self, event: BookDelta) -> bool:
        """Apply an update to the waiting snapshot; the first one that fits makes the book LIVE."""
        if self.sequencer.delta(event) is Verdict.DROP:
            self.dropped += 1
            return False
        self._update(event)
        self.state = BookState.LIVE
        self._waiting = False
        self._accept(event)
        return True

    def _prune(self) -> None:
        """Forget levels far from the price: they are incomplete, and would only pile up over weeks."""
        bids, asks = self.top(2 * self._snapshot_levels)
        self.bids, self.asks = dict(bids), dict(asks)
