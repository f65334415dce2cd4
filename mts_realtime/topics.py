"""The state of one topic on one connection: its data, whether it is live, and when it is asked for again.

What belongs here: per-topic state machines between codec and pipeline. A state lives and dies with its connection;
during a rotation a topic has two, of which one is active. What happens when a topic becomes live, breaks or falls
silent is the pipeline's business (``Hub``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

from mts_realtime.analytics.funding import HOUR_MS
from mts_realtime.errors import BookError
from mts_realtime.events import BookDelta, BookSnapshot, Event, FundingUpdate, TickerUpdate
from mts_realtime.gaps import Covered

if TYPE_CHECKING:
    from mts_realtime.book import OrderBook
    from mts_realtime.detector import Market
    from mts_realtime.events import Subscription

_SETTLEMENT_WINDOW_MS = 300_000
"""A new settlement time counts as the next one only when it shows up this soon after the old one."""


class Hub(Protocol):
    """What a topic reports to."""

    def sample_book(self, topic: BookTopic, received_ns: int) -> None:
        """A grid time has passed; the book is still as it was then."""

    def sample_ticker(self, topic: MarketTopic, received_ns: int) -> None:
        """The same for a ticker."""

    def went_live(self, topic: Topic, received_ns: int) -> None:
        """The topic is known (again)."""

    def caught_up(self, topic: Topic) -> None:
        """A topic that is not active got an event; it may be ready to take over."""

    def broke(self, topic: BookTopic, error: BookError, received_ns: int) -> None:
        """The book may not be used any more."""

    def book_changed(self, topic: BookTopic, received_ns: int) -> None:
        """The active, live book changed."""

    def wants_snapshot(self, topic: BookTopic, received_ns: int) -> None:
        """Updates are coming in, and a REST snapshot is needed to use them."""

    def funding_changed(self, topic: MarketTopic, event: FundingUpdate, change: str) -> None:
        """New funding, or the sample of an unchanged one."""


class Topic(ABC):
    """State common to all kinds.

    Attributes:
        subscription: What was asked for.
        covered: The same, as gaps name it.
        session_id: The connection.
        active: Whether this state, not that of another connection, is the one published.
        retired: Whether another connection has taken over.
        live: Whether the data may be used.
        asked_ns: When it was last subscribed to.
        heard_ns: Receipt time of the newest frame.
        good_ns: Receipt time of the newest frame after which it was live.
        attempts: Times it was asked for without becoming live.
        sample_due_ns: Next grid time for which a row is due.
    """

    __slots__ = (
        "active",
        "asked_ns",
        "attempts",
        "covered",
        "good_ns",
        "heard_ns",
        "hub",
        "live",
        "market",
        "retired",
        "sample_due_ns",
        "session_id",
        "subscription",
    )

    def __init__(self, hub: Hub, subscription: Subscription, market: Market, session_id: int, at_ns: int) -> None:
        self.hub = hub
        self.subscription = subscription
        self.covered = Covered.by(subscription)
        self.market = market
        self.session_id = session_id
        self.active = False
        self.retired = False
        self.live = False
        self.asked_ns = at_ns
        self.heard_ns = 0
        self.good_ns = 0
        self.attempts = 0
        self.sample_due_ns = 0

    @abstractmethod
    def on_event(self, event: Event) -> None:
        """Take one event of this topic."""

    @abstractmethod
    def position(self) -> int:
        """How far the data is; comparable between two connections of the same topic."""

    @abstractmethod
    def restart(self) -> None:
        """It is subscribed to again: forget everything."""


class BookTopic(Topic):
    """A topic that carries a book."""

    __slots__ = ("book", "snapshot_asked", "updates")

    def __init__(
        self, hub: Hub, subscription: Subscription, market: Market, session_id: int, at_ns: int, book: OrderBook
    ) -> None:
        super().__init__(hub, subscription, market, session_id, at_ns)
        self.book = book
        self.updates = 0
        self.snapshot_asked = False
        book.begin()

    def on_event(self, event: Event) -> None:
        """Sample the book if a grid time has passed, then apply the event."""
        kind = event.__class__
        if self.retired or (kind is not BookDelta and kind is not BookSnapshot):
            return
        received_ns = event.received_ns  # type: ignore[union-attr]
        if received_ns >= self.sample_due_ns and self.active and self.live:
            self.hub.sample_book(self, received_ns)
        self.heard_ns = received_ns
        book = self.book
        try:
            changed = book.on_delta(event) if kind is BookDelta else book.on_snapshot(event)  # type: ignore[arg-type]
        except BookError as error:
            self.hub.broke(self, error, received_ns)
            return
        if changed:
            self.good_ns = received_ns
            self.updates += 1
            if not self.live:
                self.hub.went_live(self, received_ns)
            if self.active:
                self.hub.book_changed(self, received_ns)
            else:
                self.hub.caught_up(self)
        elif self.live:
            self.good_ns = received_ns
        elif book.needs_snapshot and not self.snapshot_asked:
            self.snapshot_asked = True
            self.hub.wants_snapshot(self, received_ns)

    def position(self) -> int:
        """Sequence number of the newest update."""
        return self.book.last_id

    def restart(self) -> None:
        """Forget the book and wait for a snapshot."""
        self.book.begin()
        self.snapshot_asked = False
        self.updates = 0


class MarketTopic(Topic):
    """A topic that carries funding, a ticker, or both."""

    __slots__ = ("_funding_sampled_ns", "_position_ms", "_sample_interval_ns", "funding", "ticker")

    def __init__(
        self,
        hub: Hub,
        subscription: Subscription,
        market: Market,
        session_id: int,
        at_ns: int,
        sample_interval_ns: int,
    ) -> None:
        super().__init__(hub, subscription, market, session_id, at_ns)
        self._sample_interval_ns = sample_interval_ns
        self.restart()

    def restart(self) -> None:
        """Forget what was merged."""
        self.funding: FundingUpdate | None = None
        self.ticker: TickerUpdate | None = None
        self._funding_sampled_ns = 0
        self._position_ms = 0

    def on_event(self, event: Event) -> None:
        """Take funding or a ticker."""
        if self.retired:
            return
        if event.__class__ is FundingUpdate:
            self._heard(event.received_ns, event.exchange_time_ms)  # type: ignore[union-attr]
            self._on_funding(event)  # type: ignore[arg-type]
        elif event.__class__ is TickerUpdate:
            received_ns = event.received_ns  # type: ignore[union-attr]
            if received_ns >= self.sample_due_ns and self.active and self.ticker is not None:
                self.hub.sample_ticker(self, received_ns)
            self.ticker = event  # type: ignore[assignment]
            self._heard(received_ns, event.exchange_time_ms)  # type: ignore[union-attr]
            if self.active:
                self.market.ticker = self.ticker

    def _heard(self, received_ns: int, exchange_time_ms: int) -> None:
        self.heard_ns = self.good_ns = received_ns
        self._position_ms = exchange_time_ms
        if not self.live:
            self.hub.went_live(self, received_ns)
        if not self.active:
            self.hub.caught_up(self)

    def _on_funding(self, event: FundingUpdate) -> None:
        before = self.funding
        self.funding = event
        if not self.active:
            return
        market = self.market
        market.funding = event
        change = ""
        if before is None:
            change = "first"
        elif before.next_funding_ms != event.next_funding_ms:
            change = "settlement"
            observed = _observed_hours(before, event)
            if observed is not None:
                market.funding_hours = observed
        elif before.funding_rate != event.funding_rate or before.interval_hours != event.interval_hours:
            change = "rate"
        elif event.received_ns // self._sample_interval_ns > self._funding_sampled_ns // self._sample_interval_ns:
            change = "sample"
        if event.interval_hours is not None:
            market.funding_hours = event.interval_hours
        if change:
            self._funding_sampled_ns = event.received_ns
            self.hub.funding_changed(self, event, change)

    def position(self) -> int:
        """Exchange time of the newest message."""
        return self._position_ms


def _observed_hours(before: FundingUpdate, after: FundingUpdate) -> float | None:
    """Interval between the settlement that just passed and the next one; ``None`` when one may lie between."""
    passed, coming = before.next_funding_ms, after.next_funding_ms
    if passed is None or coming is None or coming <= passed:
        return None
    if not 0 <= after.exchange_time_ms - passed <= _SETTLEMENT_WINDOW_MS:
        return None
    return (coming - passed) / HOUR_MS
