"""The synchronous heart: frames and receipt times in; books, rows, gaps, signals and orders out.

What belongs here: routing events to topic states, which of two connections is active for a topic, the sampling
grid, the watch over silent topics, and what is ordered from the shell (subscribe again, fetch a snapshot, connect
again). No socket, no file, no clock: time comes with the calls, so a capture gives the same rows as the live stream.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING

from mts_realtime.detector import Detector, Market
from mts_realtime.diff_book import DiffBook
from mts_realtime.errors import BookError, FrameError, SnapshotStaleError
from mts_realtime.events import Ack, Feed, FundingUpdate, Pong, Refusal
from mts_realtime.gaps import Covered, GapLedger, GapReason
from mts_realtime.histogram import Histogram
from mts_realtime.recorder import Recorder
from mts_realtime.sessions import Counters, Order, OrderKind, Session
from mts_realtime.topics import BookTopic, MarketTopic, Topic
from mts_realtime.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mts_realtime.analytics.opportunities import Change, Opportunity
    from mts_realtime.analytics.signals import Signal
    from mts_realtime.events import Event, Subscription
    from mts_realtime.exchanges.base import ConnectionPlan, Exchange
    from mts_realtime.recorder import Batch
    from mts_realtime.settings import RealtimeSettings
    from mts_realtime.writer import Marker

NS_PER_S = 1_000_000_000
_HOUR_NS = 3600 * NS_PER_S


class Pipeline:
    """All topics of all exchanges.

    Args:
        settings: Intervals, limits, levels.
        exchanges: Adapters by name.
        started_ns: When the process started, or a recording begins.
        record: Whether rows are kept for landing.
    """

    def __init__(
        self,
        settings: RealtimeSettings,
        exchanges: dict[str, Exchange],
        started_ns: int,
        *,
        record: bool = True,
    ) -> None:
        self.settings = settings
        self.exchanges = exchanges
        self.recorder = Recorder()
        self.ledger = GapLedger(self.recorder.add_gap if record else lambda _: None)
        self.detector = Detector(settings, self._signal, self._opportunity)
        self.sessions: dict[int, Session] = {}
        self.active: dict[tuple[str, str], Topic] = {}
        self.changed: dict[BookTopic, None] = {}
        self.counters = Counters()
        self.exchange_lag = {name: Histogram() for name in exchanges}
        self._frames_before: Counter[tuple[str, str]] = Counter()
        self.broken: dict[tuple[str, str], int] = {}
        self.now_ns = started_ns
        self.finished = False
        self.on_signal: list[Callable[[Signal], None]] = []
        self.on_opportunity: list[Callable[[Change, Opportunity], None]] = []
        self.on_funding: list[Callable[[Market], None]] = []
        self.on_quarantine: Callable[[Session, bytes, FrameError, int], None] | None = None
        self.on_refusal: Callable[[Session, str], None] | None = None
        self.on_batch: Callable[[Batch], None] | None = None
        self._watchdog = Watchdog(settings, self._lose)
        self._record = record
        self._started_ns = started_ns
        self._covered: dict[tuple[str, str], Covered] = {}
        self._settled: set[str] = set()
        self._grid_ns = settings.sample_interval_ns
        self._tick_lag_ns = self._grid_ns // 4
        self._ahead_grid_ns = 0
        self._ahead: Iterator[Topic] = iter(())
        samples = max(1, int(settings.flush_interval_ns * 0.8) // self._grid_ns)
        self._flush_ns = samples * self._grid_ns
        self._tick_at_ns = self._next_grid(started_ns) + self._tick_lag_ns

    # Connections

    def open_session(self, session_id: int, plan: ConnectionPlan, at_ns: int) -> Session:
        """A connection is up and its topics are being subscribed to."""
        self.advance(at_ns)
        exchange = self.exchanges[plan.exchange]
        session = Session(session_id, plan, exchange.codec(), at_ns)
        for subscription in plan.subscriptions:
            topic = self._new_topic(exchange, session, subscription, at_ns)
            session.topics[subscription.topic] = topic
            key = (plan.exchange, subscription.topic)
            if key not in self._covered:
                self._promise(topic.covered, self._started_ns)
            if key not in self.active:
                self._activate(topic)
        self.sessions[session_id] = session
        return session

    def resume(self, marker: Marker) -> None:
        """Take over where the process before left: whatever it had not landed is a gap until data comes."""
        for gap in marker.gaps():
            self._covered[gap.covered.exchange, gap.covered.topic] = gap.covered
            self.ledger.open(gap.covered, gap.start_ns, gap.reason)

    def settle(self, exchange: str, subscriptions: Iterable[Subscription], keep: set[str], at_ns: int) -> None:
        """The plan for an exchange is known: what is in it is missing until data comes, what is not is forgotten.

        Args:
            exchange: Name of the exchange.
            subscriptions: What will be collected. Of the first plan it was promised since the start of the process.
            keep: Further topics that are still collected or declared missing.
            at_ns: When.
        """
        since_ns = at_ns if exchange in self._settled else self._started_ns
        self._settled.add(exchange)
        wanted = {subscription.topic: subscription for subscription in subscriptions}
        for key, covered in list(self._covered.items()):
            if key[0] == exchange and key[1] not in wanted and key[1] not in keep:
                del self._covered[key]
                self.ledger.close(covered, at_ns)
        for topic, subscription in wanted.items():
            if (exchange, topic) not in self._covered:
                self._promise(Covered.by(subscription), since_ns)

    def _promise(self, covered: Covered, since_ns: int) -> None:
        self._covered[covered.exchange, covered.topic] = covered
        self.ledger.open(covered, since_ns, GapReason.STARTING)

    def close_session(self, session: Session, at_ns: int, reason: str = GapReason.DISCONNECTED) -> None:
        """A connection is gone, and with it the state of its topics."""
        if self.finished:
            return
        self.advance(at_ns)
        self.sessions.pop(session.id, None)
        self._frames_before[session.plan.exchange, session.plan.route] += session.frames
        for topic in session.topics.values():
            key = (session.plan.exchange, topic.subscription.topic)
            if self.active.get(key) is topic:
                self._sample(topic, at_ns)
                self._lose(topic, reason)
                del self.active[key]
                self._promote(key)

    def _promote(self, key: tuple[str, str]) -> None:
        """Another connection may carry the topic already: it becomes active."""
        for session in self.sessions.values():
            candidate = session.topics.get(key[1])
            if candidate is not None and session.plan.exchange == key[0]:
                self._activate(candidate)
                if candidate.live:
                    self.ledger.close(candidate.covered, candidate.good_ns)
                return

    def _new_topic(self, exchange: Exchange, session: Session, subscription: Subscription, at_ns: int) -> Topic:
        market = self.detector.market(subscription.instrument, exchange.taker_fee_bps)
        if market.funding_hours is None:
            market.funding_hours = subscription.instrument.funding_interval_hours
        if Feed.ORDER_BOOK in subscription.feeds:
            book = exchange.book(subscription.topic)
            return BookTopic(self, subscription, market, session.id, at_ns, book)
        return MarketTopic(self, subscription, market, session.id, at_ns, self._grid_ns)

    def _activate(self, topic: Topic) -> None:
        """From now on this state is the published one."""
        topic.active = True
        topic.retired = False
        self.active[topic.subscription.instrument.exchange, topic.subscription.topic] = topic
        topic.sample_due_ns = self._next_grid(self.now_ns)
        if isinstance(topic, BookTopic):
            topic.market.book = topic.book if topic.live else None
        elif isinstance(topic, MarketTopic):
            topic.market.funding = topic.funding or topic.market.funding
            topic.market.ticker = topic.ticker or topic.market.ticker

    def frames_by_route(self) -> Counter[tuple[str, str]]:
        """Frames handled so far, by exchange and route."""
        frames = Counter(self._frames_before)
        for session in self.sessions.values():
            frames[session.plan.exchange, session.plan.route] += session.frames
        return frames

    # Frames

    def handle(self, session: Session, raw: bytes, received_ns: int) -> bool:
        """Take one frame; False when it could not be read."""
        if self.finished:
            return True
        if received_ns >= self._tick_at_ns:
            self.advance(received_ns)
        self.counters.frames += 1
        session.frames += 1
        session.heard_ns = received_ns
        try:
            events = session.codec.parse(raw, received_ns)
        except FrameError as error:
            self.counters.quarantined += 1
            if self.on_quarantine is not None:
                self.on_quarantine(session, raw, error, received_ns)
            return False
        for event in events:
            try:
                topic = session.topics[event.topic]  # type: ignore[union-attr]
            except (AttributeError, KeyError):
                self._on_control(session, event, received_ns)
            else:
                topic.on_event(event)
        return True

    def _on_control(self, session: Session, event: Event, received_ns: int) -> None:
        if isinstance(event, Refusal):
            self.counters.refused += 1
            if self.on_refusal is not None:
                self.on_refusal(session, event.problem)
        elif isinstance(event, Pong):
            session.pong_ns = received_ns
        elif not isinstance(event, Ack):
            self.counters.unrouted += 1

    def snapshot(self, session: Session, topic_name: str, body: bytes, received_ns: int) -> None:
        """A REST snapshot that was ordered has arrived."""
        self.advance(received_ns)
        topic = session.topics.get(topic_name)
        if not isinstance(topic, BookTopic):
            return
        try:
            event = self.exchanges[session.plan.exchange].parse_snapshot(topic_name, body, received_ns)
        except FrameError as error:
            self.counters.quarantined += 1
            if self.on_quarantine is not None:
                self.on_quarantine(session, body, error, received_ns)
            return
        topic.on_event(event)

    # What topics report (``topics.Hub``)

    def went_live(self, topic: Topic, received_ns: int) -> None:
        """The topic is known (again): its gap ends here."""
        topic.live = True
        topic.good_ns = received_ns
        self.sessions[topic.session_id].has_data = True
        if topic.active:
            self.ledger.close(topic.covered, received_ns)
            topic.sample_due_ns = self._next_grid(received_ns)
            if isinstance(topic, BookTopic):
                topic.market.book = topic.book
                topic.updates = 1

    def caught_up(self, topic: Topic) -> None:
        """Hand over to this connection's state once it is live and not behind the active one."""
        if not topic.live or topic.retired:
            return
        active = self.active[topic.subscription.instrument.exchange, topic.subscription.topic]
        if active.live and topic.position() < active.position():
            return
        self._sample(active, topic.good_ns)
        due_ns = active.sample_due_ns if active.live else self._next_grid(topic.good_ns)
        active.active = False
        active.retired = True
        self.counters.handovers += 1
        if isinstance(topic, BookTopic) and isinstance(active, BookTopic):
            self.changed.pop(active, None)
            topic.updates = active.updates
        self._activate(topic)
        topic.sample_due_ns = due_ns
        self.ledger.close(topic.covered, topic.good_ns)

    def broke(self, topic: BookTopic, error: BookError, received_ns: int) -> None:
        """Drop the book, declare the gap, and ask for the topic again."""
        exchange = topic.subscription.instrument.exchange
        key = (exchange, error.reason)
        self.broken[key] = self.broken.get(key, 0) + 1
        self.counters.resyncs += 1
        if isinstance(error, SnapshotStaleError) and not topic.live:
            topic.snapshot_asked = False  # the next update orders a newer snapshot; the buffer stays
            return
        self._lose(topic, error.reason)
        if not self.exchanges[exchange].is_picture(topic.subscription.topic):  # the next picture heals by itself
            self._watchdog.ask_again(self.sessions[topic.session_id], topic, error.reason, received_ns)

    def book_changed(self, topic: BookTopic, received_ns: int) -> None:
        """Note the book for the feed and look for opportunities."""
        self.changed[topic] = None
        self.detector.on_book(topic.market, received_ns)

    def wants_snapshot(self, topic: BookTopic, received_ns: int) -> None:
        """Order the REST snapshot."""
        topic.asked_ns = received_ns
        self.sessions[topic.session_id].order(Order(OrderKind.SNAPSHOT, topic.subscription.topic, "syncing"))

    def funding_changed(self, topic: MarketTopic, event: FundingUpdate, change: str) -> None:
        """Record the row, compare with other exchanges."""
        market = topic.market
        if self._record and Feed.FUNDING in topic.subscription.feeds:
            self.recorder.add_funding(market.instrument, event, change, market.funding_hours)
        self.detector.on_funding(market)
        for listener in self.on_funding:
            listener(market)

    def sample_book(self, topic: BookTopic, received_ns: int) -> None:
        """Write the rows of all grid times that have passed; the book is still as it was at each of them."""
        try:
            bids, asks = topic.book.checked_top(self.settings.sample_levels)
        except BookError as error:
            self.broke(topic, error, received_ns)
            return
        book, market = topic.book, topic.market
        if isinstance(book, DiffBook) and book.refresh_due:
            self._refresh(topic, book, received_ns)
        self.exchange_lag[market.instrument.exchange].add(book.received_ns / NS_PER_S - book.exchange_time_ms / 1000.0)
        position = (book.exchange_time_ms, book.received_ns, book.last_id, book.cross_id)
        while topic.sample_due_ns <= received_ns:
            if self._record:
                self.recorder.add_book(market.instrument, topic.sample_due_ns, position, topic.updates, (bids, asks))
            self.detector.on_book_sample(market, topic.sample_due_ns, bids, asks)
            self.counters.samples += 1
            topic.updates = 0
            topic.sample_due_ns += self._grid_ns

    def _refresh(self, topic: BookTopic, book: DiffBook, at_ns: int) -> None:
        """The price moves out of the snapshot: order another one, unless one was ordered a moment ago."""
        if at_ns - topic.asked_ns > self.settings.subscribe_timeout_s * NS_PER_S:
            topic.asked_ns = at_ns
            book.begin_refresh()
            self.sessions[topic.session_id].order(Order(OrderKind.SNAPSHOT, topic.subscription.topic, "refresh"))

    def sample_ticker(self, topic: MarketTopic, received_ns: int) -> None:
        """The same for a ticker."""
        ticker, market = topic.ticker, topic.market
        if ticker is None:
            return
        while topic.sample_due_ns <= received_ns:
            if self._record and Feed.TICKERS in topic.subscription.feeds:
                self.recorder.add_ticker(market.instrument, topic.sample_due_ns, ticker)
            self.detector.on_ticker_sample(market, topic.sample_due_ns, ticker)
            topic.sample_due_ns += self._grid_ns

    # Time

    def sample_ahead(self, now_ns: int, most: int) -> None:
        """Sample some books whose grid time has passed, so that little is left for the next tick.

        A book that had no event since its grid time is still as it was then, so it does not matter when it is
        sampled. Only to be called when no received frame waits to be handled.
        """
        grid_ns = now_ns // self._grid_ns * self._grid_ns
        if grid_ns != self._ahead_grid_ns:
            self._ahead_grid_ns = grid_ns
            self._ahead = iter(list(self.active.values()))
        for topic in islice(self._ahead, most):
            self._sample(topic, grid_ns)

    def advance(self, now_ns: int) -> None:
        """Time has come this far. Every grid time in between is dealt with, in order."""
        while self._tick_at_ns <= now_ns and not self.finished:
            self._tick(self._tick_at_ns)
            self._tick_at_ns += self._grid_ns
        self.now_ns = max(self.now_ns, now_ns)

    def _tick(self, at_ns: int) -> None:
        """A moment after each grid time: sample what had no event since, look for silence, cut batches."""
        self.now_ns = at_ns
        grid_ns = at_ns - self._tick_lag_ns
        self._sample_all(grid_ns)
        self.detector.on_tick(at_ns)
        for session in list(self.sessions.values()):
            self._watchdog.watch(session, at_ns)
        if grid_ns % _HOUR_NS == 0:
            self.ledger.roll(grid_ns)
        if grid_ns % self._flush_ns == 0:
            self._cut(at_ns)

    def _sample_all(self, until_ns: int) -> None:
        """Write what is due and was not written by an event of its own."""
        for topic in list(self.active.values()):
            self._sample(topic, until_ns)

    def _sample(self, topic: Topic, until_ns: int) -> None:
        if topic.active and topic.live and topic.sample_due_ns <= until_ns:
            if isinstance(topic, BookTopic):
                self.sample_book(topic, until_ns)
            elif isinstance(topic, MarketTopic):
                self.sample_ticker(topic, until_ns)

    def _lose(self, topic: Topic, reason: str) -> None:
        """The topic is not known any more: its gap starts where the good data ended."""
        was_live, topic.live = topic.live, False
        if isinstance(topic, BookTopic):
            topic.book.invalidate()
        if not topic.active:
            return
        market = topic.market
        if was_live:
            self.ledger.open(topic.covered, topic.good_ns, reason)
        if isinstance(topic, BookTopic):
            self.changed.pop(topic, None)
            self.detector.on_book_lost(market, self.now_ns)
        else:
            if Feed.FUNDING in topic.subscription.feeds:
                market.funding = None
            if Feed.TICKERS in topic.subscription.feeds:
                market.ticker = None

    def shed(self, session: Session, topic_name: str, received_ns: int) -> None:
        """Frames of a topic were given up under overload: its book is broken."""
        topic = session.topics.get(topic_name)
        if isinstance(topic, BookTopic) and topic.live:
            key = (session.plan.exchange, GapReason.OVERLOAD)
            self.broken[key] = self.broken.get(key, 0) + 1
            self._sample(topic, received_ns)
            self._lose(topic, GapReason.OVERLOAD)
            self._watchdog.ask_again(self.sessions[topic.session_id], topic, GapReason.OVERLOAD, received_ns)

    def missing(self, covered: Covered, at_ns: int) -> None:
        """A symbol that was asked for cannot be had."""
        self._covered[covered.exchange, covered.topic] = covered
        self.ledger.open(covered, at_ns, GapReason.UNKNOWN_SYMBOL)

    def _cut(self, at_ns: int, *, clean: bool = False) -> None:
        if not self._record or self.on_batch is None:
            return
        covered = [self._covered[key] for key in sorted(self._covered)]
        self.on_batch(self.recorder.take(at_ns, self.ledger.still_open(), covered, clean=clean))

    def finish(self, at_ns: int) -> None:
        """The sidecar ends in order: everything that is open is declared, and the last batch is cut."""
        if self.finished:
            return
        self.advance(at_ns)
        self._sample_all(at_ns)
        self.detector.expire_all(at_ns)
        self.ledger.roll(at_ns)
        self._cut(at_ns, clean=True)
        self.finished = True

    def _next_grid(self, at_ns: int) -> int:
        """First grid time after a moment."""
        return (at_ns // self._grid_ns + 1) * self._grid_ns

    def _signal(self, signal: Signal) -> None:
        if self._record:
            self.recorder.add_signal(signal)
        for listener in self.on_signal:
            listener(signal)

    def _opportunity(self, change: Change, opportunity: Opportunity) -> None:
        if self._record and opportunity.expired_ns is not None:
            self.recorder.add_opportunity(opportunity)
        for listener in self.on_opportunity:
            listener(change, opportunity)
