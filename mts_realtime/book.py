"""Order books with their state machine: what is known of a book, and whether it may be used.

What belongs here: levels, the four states, and when they change. No clock, no socket, no venue field names; which
update follows which is judged by the sequencers in ``exchanges.sequence``. Books from REST snapshots: ``diff_book``.

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
from enum import IntEnum
from typing import TYPE_CHECKING

from mts_realtime.errors import CrossedBookError, SequenceGapError
from mts_realtime.exchanges.sequence import Verdict

if TYPE_CHECKING:
    from mts_realtime.events import BookDelta, BookSnapshot, Levels
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
