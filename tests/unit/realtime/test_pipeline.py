"""The pipeline: sampling grid, gaps, silence, resync orders, hand-over between connections. Time is given by hand."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable

import pytest

from mts_realtime.analytics.signals import Signal
from mts_realtime.book import BookState
from mts_realtime.events import Feed, Instrument
from mts_realtime.exchanges.base import ConnectionPlan
from mts_realtime.exchanges.registry import build_exchanges
from mts_realtime.gaps import Covered, OpenGap
from mts_realtime.pipeline import Pipeline
from mts_realtime.recorder import Batch
from mts_realtime.sessions import Order, OrderKind, Session
from mts_realtime.settings import RealtimeSettings
from mts_realtime.topics import BookTopic
from mts_realtime.writer import Marker

S = 1_000_000_000
MS = 1_000_000
START = 1_795_176_000 * S
BYBIT_BOOK = "orderbook.50.BTCUSDT"
BINANCE_BOOK = "btcusdt@depth20@100ms"
DIFF = "btcusdt@depth@100ms"


def bybit_book(kind: str, u: int, bids: list[list[str]], asks: list[list[str]], symbol: str = "BTCUSDT") -> bytes:
    data = {"s": symbol, "b": bids, "a": asks, "u": u, "seq": 10 * u}
    return json.dumps(
        {"topic": f"orderbook.50.{symbol}", "type": kind, "ts": 5, "data": data, "cts": 1_795_176_000_000 + u},
        separators=(",", ":"),
    ).encode()


def snapshot(u: int = 10, bid: str = "100", ask: str = "101") -> bytes:
    return bybit_book("snapshot", u, [[bid, "1"]], [[ask, "1"]])


def delta(u: int, size: str = "2") -> bytes:
    return bybit_book("delta", u, [["99", size]], [])


def picture(u: int, bid: str = "100", ask: str = "101", previous: int | None = None) -> bytes:
    data = {"e": "depthUpdate", "E": 5, "T": 1_795_176_000_000 + u, "s": "BTCUSDT", "U": u, "u": u}
    data |= {"pu": u - 1 if previous is None else previous, "b": [[bid, "1"]], "a": [[ask, "1"]]}
    return json.dumps({"stream": BINANCE_BOOK, "data": data}, separators=(",", ":")).encode()


class Bench:
    """A pipeline, its batches, and sessions on it."""

    def __init__(self, settings: RealtimeSettings, make_instrument: Callable[..., Instrument]) -> None:
        self.settings = settings
        self.make_instrument = make_instrument
        self.exchanges = build_exchanges(settings)
        self.pipeline = Pipeline(settings, self.exchanges, START)
        self.batches: list[Batch] = []
        self.pipeline.on_batch = self.batches.append
        self.sessions = 0

    def plan(self, exchange: str, *feeds: Feed, symbols: tuple[str, ...] = ("BTCUSDT",)) -> ConnectionPlan:
        instruments = [self.make_instrument(exchange, symbol) for symbol in symbols]
        (plan,) = self.exchanges[exchange].plan(instruments, frozenset(feeds or {Feed.ORDER_BOOK}))
        return plan

    def open(self, plan: ConnectionPlan, at_ns: int = START) -> Session:
        self.sessions += 1
        return self.pipeline.open_session(self.sessions, plan, at_ns)

    def rows(self, dataset: str) -> list[dict[str, object]]:
        return [
            row
            for batch in self.batches
            for name, _, table in batch.tables()
            if name == dataset
            for row in table.to_pylist()
        ]

    def grid(self, dataset: str = "order_book") -> list[float]:
        """Seconds after the start of the sampled rows."""
        return [row["timestamp"].timestamp() - START / S for row in self.rows(dataset)]  # type: ignore[attr-defined]

    def gaps(self) -> list[tuple[object, float, float]]:
        """Reason, start and end in seconds after the start."""
        return [
            (
                row["reason"],
                round(row["gap_start"].timestamp() - START / S, 3),  # type: ignore[attr-defined]
                round(row["gap_end"].timestamp() - START / S, 3),  # type: ignore[attr-defined]
            )
            for row in self.rows("gaps")
        ]

    def book(self, session: Session, topic: str = BYBIT_BOOK) -> BookTopic:
        found = session.topics[topic]
        assert isinstance(found, BookTopic)
        return found


@pytest.fixture
def bench(
    make_settings: Callable[..., RealtimeSettings], make_instrument: Callable[..., Instrument]
) -> Callable[..., Bench]:
    def make(**overrides: object) -> Bench:
        return Bench(make_settings(**overrides), make_instrument)

    return make


def test_every_grid_second_has_the_book_as_it_was_just_before(bench: Callable[..., Bench]) -> None:
    """Updates at 0.5, 1.2 and 3.1 s give rows at 1, 2 and 3 s: each the state of its moment, quiet seconds too."""
    b = bench()
    session = b.open(b.plan("bybit"))
    b.pipeline.handle(session, snapshot(), START + 500 * MS)
    b.pipeline.handle(session, delta(11, "7"), START + 1200 * MS)
    b.pipeline.handle(session, delta(12, "8"), START + 3100 * MS)
    b.pipeline.finish(START + 3200 * MS)
    assert b.grid() == [1.0, 2.0, 3.0]
    assert [row["sequence_id"] for row in b.rows("order_book")] == [10, 11, 11]
    assert [row["update_count"] for row in b.rows("order_book")] == [1, 1, 0]
    assert [row["bid_sizes"] for row in b.rows("order_book")] == [[1.0], [1.0, 7.0], [1.0, 7.0]]


def test_ticks_and_frames_give_the_same_rows(bench: Callable[..., Bench]) -> None:
    """Whether time comes with frames or between them changes nothing."""
    frames = [(START + 200 * MS, snapshot())] + [
        (START + (300 + 170 * n) * MS, delta(11 + n, str(n + 1))) for n in range(40)
    ]
    results = []
    for advances in (False, True):
        b = bench()
        session = b.open(b.plan("bybit"))
        for at, raw in frames:
            if advances:
                b.pipeline.sample_ahead(at - 1, 300)
                b.pipeline.advance(at - 1)
            b.pipeline.handle(session, raw, at)
        b.pipeline.finish(START + 8 * S)
        results.append([table.to_pylist() for batch in b.batches for _, _, table in batch.tables()])
    assert results[0] == results[1]


def test_gap_from_start_until_the_first_snapshot(bench: Callable[..., Bench]) -> None:
    """What was promised at the start and came later is declared."""
    b = bench()
    session = b.open(b.plan("bybit"))
    b.pipeline.handle(session, snapshot(), START + 500 * MS)
    b.pipeline.finish(START + 600 * MS)
    assert b.gaps() == [("starting", 0.0, 0.5)]


def test_sequence_gap_is_declared_and_resynchronised(bench: Callable[..., Bench]) -> None:
    """A missing update: the book is not published, the topic is ordered again, the snapshot closes the gap."""
    b = bench()
    session = b.open(b.plan("bybit"))
    b.pipeline.handle(session, snapshot(), START + 100 * MS)
    b.pipeline.handle(session, delta(11), START + 200 * MS)
    b.pipeline.handle(session, delta(13), START + 400 * MS)
    assert session.orders == [Order(OrderKind.RESUBSCRIBE, BYBIT_BOOK, "sequence_gap")]
    assert b.book(session).book.state is BookState.SYNCING
    b.pipeline.handle(session, delta(14), START + 1500 * MS)
    b.pipeline.handle(session, snapshot(20), START + 1800 * MS)
    b.pipeline.finish(START + 2100 * MS)
    assert b.gaps()[1:] == [("sequence_gap", 0.2, 1.8)]
    assert b.grid() == [2.0]
    assert b.pipeline.broken == {("bybit", "sequence_gap"): 1}


def test_repeated_gaps_do_not_become_a_storm(bench: Callable[..., Bench]) -> None:
    """A topic that breaks again at once waits before it is ordered again."""
    b = bench()
    session = b.open(b.plan("bybit"))
    for number in range(20):
        at = START + (100 + 50 * number) * MS
        b.pipeline.handle(session, snapshot(100 * number + 10), at)
        b.pipeline.handle(session, delta(100 * number + 15), at + 10 * MS)
    assert len(session.orders) == 1


def test_crossed_picture_heals_without_an_order(bench: Callable[..., Bench]) -> None:
    """The next picture is complete; the moment in between is a gap."""
    b = bench()
    session = b.open(b.plan("binance"))
    b.pipeline.handle(session, picture(1), START + 100 * MS)
    b.pipeline.handle(session, picture(2, bid="102"), START + 200 * MS)
    b.pipeline.handle(session, picture(3), START + 300 * MS)
    b.pipeline.finish(START + 400 * MS)
    assert session.orders == []
    assert b.gaps()[1:] == [("crossed_book", 0.1, 0.3)]


def test_silent_topic_is_declared_and_asked_for_again(bench: Callable[..., Bench]) -> None:
    """One of two topics falls silent: from its last data on it is a gap; the other goes on."""
    b = bench(silence_s=3, connection_silence_s=60)
    session = b.open(b.plan("bybit", symbols=("BTCUSDT", "ETHUSDT")))
    b.pipeline.handle(session, snapshot(), START + 100 * MS)
    for number in range(50):
        frame = bybit_book("snapshot", 10 + number, [["5", "1"]], [["6", "1"]], "ETHUSDT")
        b.pipeline.handle(session, frame, START + (200 + 100 * number) * MS)
    b.pipeline.finish(START + 5200 * MS)
    assert session.orders == [Order(OrderKind.RESUBSCRIBE, BYBIT_BOOK, "silence")]
    assert ("silence", 0.1, 5.2) in b.gaps()
    symbols = [(row["symbol"], second) for row, second in zip(b.rows("order_book"), b.grid(), strict=True)]
    assert [second for symbol, second in symbols if symbol == "BTCUSDT"] == [1.0, 2.0, 3.0]
    assert [second for symbol, second in symbols if symbol == "ETHUSDT"] == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_topic_that_never_answers_is_asked_for_ever_more_slowly(bench: Callable[..., Bench]) -> None:
    """After 2, 4, 8, 16 s and so on, up to the slow retry; the topic that works is left alone."""
    b = bench(subscribe_timeout_s=2, dead_topic_retry_s=16, connection_silence_s=1000, silence_s=1000)
    session = b.open(b.plan("bybit", symbols=("BTCUSDT", "ETHUSDT")))
    b.pipeline.handle(session, snapshot(), START + 100 * MS)
    asked = []
    for second in range(1, 100):
        b.pipeline.advance(START + second * S)
        asked += [second] * len(session.orders)
        assert {order.topic for order in session.orders} <= {"orderbook.50.ETHUSDT"}
        session.orders.clear()
    waits = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert asked[0] == 3
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(16, abs=1)


def test_acknowledged_but_silent_connection_is_replaced(bench: Callable[..., Bench]) -> None:
    """An ack is no proof: without data from any topic the whole connection is given up."""
    b = bench(subscribe_timeout_s=2)
    session = b.open(b.plan("binance"))
    b.pipeline.handle(session, b'{"result":null,"id":1}', START + 100 * MS)
    b.pipeline.advance(START + 4 * S)
    assert session.orders == [Order(OrderKind.RECONNECT, "", "subscribed, but no data")]


def test_half_open_connection_is_replaced(bench: Callable[..., Bench]) -> None:
    """Data came, then nothing at all any more."""
    b = bench(connection_silence_s=5)
    session = b.open(b.plan("bybit"))
    b.pipeline.handle(session, snapshot(), START + 100 * MS)
    b.pipeline.advance(START + 4 * S)
    assert session.orders == []
    b.pipeline.advance(START + 7 * S)
    assert session.orders == [Order(OrderKind.RECONNECT, "", "nothing received")]


def test_disconnect_drops_state_and_is_a_gap(bench: Callable[..., Bench]) -> None:
    """The next connection starts from nothing: its first delta means nothing without a snapshot."""
    b = bench()
    plan = b.plan("bybit")
    first = b.open(plan)
    b.pipeline.handle(first, snapshot(), START + 100 * MS)
    b.pipeline.close_session(first, START + 400 * MS)
    second = b.open(plan, START + 900 * MS)
    b.pipeline.handle(second, delta(11), START + 1100 * MS)
    b.pipeline.handle(second, snapshot(30), START + 1300 * MS)
    b.pipeline.finish(START + 2100 * MS)
    assert b.gaps()[1:] == [("disconnected", 0.1, 1.3)]
    assert b.grid() == [2.0]


def test_row_of_a_grid_time_before_the_disconnect_is_not_lost(bench: Callable[..., Bench]) -> None:
    """The connection ends between a grid time and the tick after it: the book was known at the grid time."""
    b = bench()
    session = b.open(b.plan("bybit"))
    b.pipeline.handle(session, snapshot(), START + 100 * MS)
    b.pipeline.close_session(session, START + 1100 * MS)
    b.pipeline.finish(START + 2 * S)
    assert b.grid() == [1.0]


def test_row_at_a_hand_over_shows_the_book_before_it(bench: Callable[..., Bench]) -> None:
    """The old connection knew the book at the grid time; the new one takes over a moment later, already further."""
    b = bench()
    plan = b.plan("bybit")
    old, new = b.open(plan), b.open(plan, START + 1)
    b.pipeline.handle(old, snapshot(10), START + 100 * MS)
    b.pipeline.handle(new, snapshot(12), START + 1100 * MS)
    b.pipeline.finish(START + 1200 * MS)
    assert [row["sequence_id"] for row in b.rows("order_book")] == [10]


def test_rotation_hands_over_without_a_gap_or_a_double(bench: Callable[..., Bench]) -> None:
    """The new connection takes over when it is live and not behind; the old one ends unnoticed."""
    b = bench()
    plan = b.plan("bybit")
    old = b.open(plan)
    b.pipeline.handle(old, snapshot(10), START + 100 * MS)
    new = b.open(plan, START + 500 * MS)
    b.pipeline.handle(old, delta(11), START + 600 * MS)
    b.pipeline.handle(old, delta(12), START + 700 * MS)
    b.pipeline.handle(new, snapshot(11), START + 800 * MS)
    assert b.book(old).active
    b.pipeline.handle(new, delta(12), START + 900 * MS)
    assert b.book(new).active
    b.pipeline.handle(old, delta(13), START + 1000 * MS)
    b.pipeline.handle(new, delta(13), START + 1010 * MS)
    b.pipeline.close_session(old, START + 1500 * MS)
    b.pipeline.handle(new, delta(14), START + 2500 * MS)
    b.pipeline.finish(START + 3100 * MS)
    assert b.grid() == [1.0, 2.0, 3.0]
    assert b.gaps() == [("starting", 0.0, 0.1)]
    assert b.pipeline.counters.handovers == 1


def test_new_connection_that_dies_leaves_the_old_one_in_charge(bench: Callable[..., Bench]) -> None:
    """A failed rotation is no gap while the old connection still delivers."""
    b = bench()
    plan = b.plan("bybit")
    old = b.open(plan)
    b.pipeline.handle(old, snapshot(10), START + 100 * MS)
    new = b.open(plan, START + 200 * MS)
    b.pipeline.close_session(new, START + 300 * MS)
    b.pipeline.handle(old, delta(11), START + 1200 * MS)
    b.pipeline.finish(START + 1300 * MS)
    assert b.gaps() == [("starting", 0.0, 0.1)]
    assert b.grid() == [1.0]


def test_new_connection_takes_over_a_topic_that_is_broken_on_the_old_one(bench: Callable[..., Bench]) -> None:
    """There is nothing to wait for."""
    b = bench()
    plan = b.plan("bybit")
    old = b.open(plan)
    b.pipeline.handle(old, snapshot(10), START + 100 * MS)
    new = b.open(plan, START + 200 * MS)
    b.pipeline.handle(old, delta(15), START + 300 * MS)
    b.pipeline.handle(new, snapshot(12), START + 400 * MS)
    b.pipeline.finish(START + 1100 * MS)
    assert b.gaps()[1:] == [("sequence_gap", 0.1, 0.4)]
    assert b.grid() == [1.0]


def test_diff_book_orders_a_snapshot_and_goes_live(bench: Callable[..., Bench]) -> None:
    """The first update orders the REST snapshot; spliced, the book is live and its gap closed."""
    b = bench(binance_depth="diff")
    session = b.open(b.plan("binance"))

    def update(first: int, last: int, previous: int) -> bytes:
        data = {"E": 5, "T": 6, "U": first, "u": last, "pu": previous, "b": [["100", "2"]], "a": []}
        return json.dumps({"stream": DIFF, "data": data}, separators=(",", ":")).encode()

    b.pipeline.handle(session, update(5, 8, 4), START + 100 * MS)
    b.pipeline.handle(session, update(9, 12, 8), START + 200 * MS)
    assert session.orders == [Order(OrderKind.SNAPSHOT, DIFF, "syncing")]
    body = b'{"lastUpdateId":%d,"E":1,"T":2,"bids":[["100","1"]],"asks":[["101","1"]]}'
    b.pipeline.snapshot(session, DIFF, body % 3, START + 300 * MS)
    assert b.book(session, DIFF).book.state is BookState.SYNCING
    b.pipeline.handle(session, update(13, 14, 12), START + 400 * MS)
    assert len(session.orders) == 2
    b.pipeline.snapshot(session, DIFF, body % 10, START + 500 * MS)
    assert b.book(session, DIFF).book.last_id == 14
    b.pipeline.finish(START + 1100 * MS)
    assert b.gaps() == [("starting", 0.0, 0.5)]
    assert b.rows("order_book")[0]["bid_sizes"] == [2.0]


def test_unreadable_frame_is_put_aside_and_nothing_stops(bench: Callable[..., Bench]) -> None:
    """The frame goes to quarantine, the connection lives on."""
    b = bench()
    put_aside: list[bytes] = []
    b.pipeline.on_quarantine = lambda _session, raw, _error, _at: put_aside.append(raw)
    session = b.open(b.plan("bybit"))
    b.pipeline.handle(session, b"{broken", START + 100 * MS)
    b.pipeline.handle(session, snapshot(), START + 200 * MS)
    assert put_aside == [b"{broken"]
    assert b.pipeline.counters.quarantined == 1
    assert b.book(session).live


def test_refusals_and_pongs_are_noted(bench: Callable[..., Bench]) -> None:
    """Control frames reach the shell."""
    b = bench()
    refusals: list[str] = []
    b.pipeline.on_refusal = lambda _session, problem: refusals.append(problem)
    session = b.open(b.plan("bybit"))
    b.pipeline.handle(session, b'{"success":false,"ret_msg":"no such topic","req_id":"1","op":"subscribe"}', START + 1)
    b.pipeline.handle(session, b'{"success":true,"ret_msg":"pong","req_id":"","op":"ping"}', START + 2)
    assert (refusals, session.pong_ns) == (["no such topic"], START + 2)


def test_batches_come_more_often_than_the_flush_interval(bench: Callable[..., Bench]) -> None:
    """With 5 s allowed to be lost, a batch is cut every 4 s, a quarter second after its grid time."""
    b = bench()
    session = b.open(b.plan("bybit"))
    b.pipeline.handle(session, snapshot(), START + 100 * MS)
    b.pipeline.advance(START + 9 * S)
    assert [batch.until_ns - START for batch in b.batches] == [4 * S + 250 * MS, 8 * S + 250 * MS]
    assert b.batches[0].covered == [Covered("bybit", "BTCUSDT", BYBIT_BOOK, ("order_book",))]


def test_process_that_follows_declares_what_was_killed(bench: Callable[..., Bench]) -> None:
    """The gap reaches from what had landed to the first live event of the new process."""
    b = bench()
    covered = Covered("bybit", "BTCUSDT", BYBIT_BOOK, ("order_book",))
    b.pipeline.resume(Marker(until_ns=START - 60 * S, clean=False, covered=[covered], open_gaps=[]))
    session = b.open(b.plan("bybit"))
    b.pipeline.handle(session, snapshot(), START + 500 * MS)
    b.pipeline.finish(START + 600 * MS)
    assert b.gaps() == [("process_killed", -60.0, 0.5)]


def test_topics_no_longer_wanted_end_with_the_new_plan(bench: Callable[..., Bench]) -> None:
    """What the user took out of the configuration is declared up to now and then forgotten."""
    b = bench()
    gone = Covered("bybit", "OLDUSDT", "orderbook.50.OLDUSDT", ("order_book",))
    silent = OpenGap(gone, START - 90 * S, "silence")
    b.pipeline.resume(Marker(until_ns=START - 60 * S, clean=True, covered=[], open_gaps=[silent]))
    b.pipeline.settle("bybit", b.plan("bybit").subscriptions, set(), START)
    b.pipeline.finish(START + S)
    assert b.gaps() == [("silence", -90.0, 0.0), ("starting", 0.0, 1.0)]


def test_planned_topic_is_missing_even_if_no_connection_opens(bench: Callable[..., Bench]) -> None:
    """The first plan counts from the start of the process, a symbol found later from then on."""
    b = bench()
    b.pipeline.settle("bybit", b.plan("bybit").subscriptions, set(), START + S)
    both = b.plan("bybit", symbols=("BTCUSDT", "ETHUSDT")).subscriptions
    b.pipeline.settle("bybit", both, set(), START + 2 * S)
    b.pipeline.finish(START + 3 * S)
    assert b.gaps() == [("starting", 0.0, 3.0), ("starting", 2.0, 3.0)]


def test_lasting_gap_shows_every_hour(bench: Callable[..., Bench]) -> None:
    """START is a full hour; a gap over the next one is declared in two pieces that join."""
    b = bench(connection_silence_s=10_000, subscribe_timeout_s=10_000)
    b.open(b.plan("bybit"))
    b.pipeline.finish(START + 3700 * S)
    assert b.gaps() == [("starting", 0.0, 3600.0), ("starting", 3600.0, 3700.0)]


def test_shed_topic_is_broken_and_declared(bench: Callable[..., Bench]) -> None:
    """Frames given up under overload: the book is invalid until its next snapshot."""
    b = bench()
    session = b.open(b.plan("bybit"))
    b.pipeline.handle(session, snapshot(), START + 100 * MS)
    b.pipeline.shed(session, BYBIT_BOOK, START + 200 * MS)
    assert session.orders == [Order(OrderKind.RESUBSCRIBE, BYBIT_BOOK, "overload")]
    b.pipeline.handle(session, snapshot(50), START + 400 * MS)
    b.pipeline.finish(START + 500 * MS)
    assert b.gaps()[1:] == [("overload", 0.1, 0.4)]


def mark_price(stamp_ms: int, rate: str, settles_ms: int) -> bytes:
    data = {"e": "markPriceUpdate", "E": stamp_ms, "s": "BTCUSDT", "p": "100", "i": "100", "r": rate, "T": settles_ms}
    return json.dumps({"stream": "btcusdt@markPrice@1s", "data": data}, separators=(",", ":")).encode()


def test_funding_rows_are_changes_and_samples(bench: Callable[..., Bench]) -> None:
    """First, unchanged in the same second (no row), unchanged in the next (sample), changed rate, settlement."""
    b = bench()
    session = b.open(b.plan("binance", Feed.FUNDING))
    noon_ms = START // MS
    settles = noon_ms + 3000
    for at_ms, rate, settlement in (
        (100, "0.0001", settles),
        (600, "0.0001", settles),
        (1600, "0.0001", settles),
        (1700, "0.0002", settles),
        (3100, "0.0002", settles + 4 * 3_600_000),
    ):
        b.pipeline.handle(session, mark_price(noon_ms + at_ms, rate, settlement), START + at_ms * MS)
    b.pipeline.finish(START + 4 * S)
    assert [row["change"] for row in b.rows("funding")] == ["first", "sample", "rate", "settlement"]
    assert [row["funding_interval_hours"] for row in b.rows("funding")] == [None, None, None, 4.0]


def test_settlement_seen_late_gives_no_interval(bench: Callable[..., Bench]) -> None:
    """After a long silence several settlements may have passed: the distance proves nothing."""
    b = bench(silence_s=1e6, connection_silence_s=1e6)
    session = b.open(b.plan("binance", Feed.FUNDING))
    noon_ms = START // MS
    b.pipeline.handle(session, mark_price(noon_ms, "0.0001", noon_ms + 3000), START + 100 * MS)
    late_ms = noon_ms + 9 * 3_600_000
    b.pipeline.handle(session, mark_price(late_ms, "0.0001", noon_ms + 16 * 3_600_000), START + 9 * 3600 * S)
    b.pipeline.finish(START + 9 * 3600 * S + 1)
    assert b.rows("funding")[-1]["change"] == "settlement"
    assert b.rows("funding")[-1]["funding_interval_hours"] is None


def test_arbitrage_between_two_live_books(bench: Callable[..., Bench]) -> None:
    """Bybit bids 102 over Binance asks 101: opened, a signal raised, expired when the edge goes, one row landed."""
    b = bench()
    signals: list[Signal] = []
    b.pipeline.on_signal.append(signals.append)
    binance, bybit = b.open(b.plan("binance")), b.open(b.plan("bybit"))
    b.pipeline.handle(binance, picture(1), START + 100 * MS)
    b.pipeline.handle(bybit, bybit_book("snapshot", 10, [["102", "3"]], [["103", "1"]]), START + 150 * MS)
    b.pipeline.handle(bybit, bybit_book("delta", 11, [["102", "0"], ["100", "1"]], []), START + 450 * MS)
    b.pipeline.finish(START + S)
    (row,) = b.rows("opportunities")
    assert (row["buy_exchange"], row["sell_exchange"], row["lifetime_ms"]) == ("binance", "bybit", 300.0)
    assert (row["peak_size_base"], row["peak_buy_price"], row["peak_sell_price"]) == (1.0, 101.0, 102.0)
    assert row["peak_net_usd"] == pytest.approx(102 * (1 - 5.5e-4) - 101 * (1 + 5e-4))
    assert (row["net_bps_after_50ms"], row["net_bps_after_1000ms"]) == (pytest.approx(row["peak_net_bps"]), None)
    assert [(signal.kind, signal.exchanges, signal.at_ns) for signal in signals] == [
        ("arbitrage", ("binance", "bybit"), START + 150 * MS)
    ]


def test_opportunity_ends_with_its_book(bench: Callable[..., Bench]) -> None:
    """A book that is lost can no longer be traded against."""
    b = bench()
    binance, bybit = b.open(b.plan("binance")), b.open(b.plan("bybit"))
    b.pipeline.handle(binance, picture(1), START + 100 * MS)
    b.pipeline.handle(bybit, bybit_book("snapshot", 10, [["102", "3"]], [["103", "1"]]), START + 150 * MS)
    b.pipeline.close_session(bybit, START + 200 * MS)
    b.pipeline.finish(START + 300 * MS)
    assert [row["expired_reason"] for row in b.rows("opportunities")] == ["book_lost"]


def test_opportunity_ends_when_its_books_grow_old(bench: Callable[..., Bench]) -> None:
    """Nobody updates either book: after the age limit there is nothing to act on."""
    b = bench(arbitrage_max_age_ms=1500)
    binance, bybit = b.open(b.plan("binance")), b.open(b.plan("bybit"))
    b.pipeline.handle(binance, picture(1), START + 100 * MS)
    b.pipeline.handle(bybit, bybit_book("snapshot", 10, [["102", "3"]], [["103", "1"]]), START + 150 * MS)
    b.pipeline.advance(START + 5 * S)
    b.pipeline.finish(START + 5 * S)
    assert [row["expired_reason"] for row in b.rows("opportunities")] == ["book_too_old"]


def test_imbalance_raises_a_graded_signal(bench: Callable[..., Bench]) -> None:
    """9 to 1 is an imbalance of 0.8 against 0.7: WEAK, on the exchange it was seen on."""
    b = bench(imbalance_threshold=0.7)
    signals: list[Signal] = []
    b.pipeline.on_signal.append(signals.append)
    session = b.open(b.plan("bybit"))
    b.pipeline.handle(session, bybit_book("snapshot", 10, [["100", "9"]], [["101", "1"]]), START + 100 * MS)
    b.pipeline.advance(START + 2500 * MS)
    (signal,) = signals
    assert (signal.kind.value, signal.strength.value) == ("order_book_imbalance", "WEAK")
    assert signal.value == pytest.approx(0.8)


def test_spread_anomaly_is_measured_against_its_past(bench: Callable[..., Bench]) -> None:
    """Forty seconds of a quiet spread, then a wide one."""
    b = bench(signal_window=20, imbalance_threshold=0.99)
    signals: list[Signal] = []
    b.pipeline.on_signal.append(signals.append)
    session = b.open(b.plan("binance"))
    for second in range(40):
        ask = "100.1" if second % 2 else "100.2"
        b.pipeline.handle(session, picture(second + 1, ask=ask), START + second * S + 100 * MS)
    b.pipeline.handle(session, picture(99, ask="105"), START + 40 * S + 100 * MS)
    b.pipeline.advance(START + 42 * S)
    (signal,) = signals
    assert (signal.kind, signal.unit, signal.strength) == ("spread_anomaly", "z", "STRONG")
    assert signal.detail["spread_bps"] == pytest.approx(5 / 102.5 * 10_000)


def test_volume_spike_is_measured_on_the_trailing_total(bench: Callable[..., Bench]) -> None:
    """Ten to twelve USD a second, then a thousand."""
    b = bench(signal_window=20)
    signals: list[Signal] = []
    b.pipeline.on_signal.append(signals.append)
    session = b.open(b.plan("binance", Feed.TICKERS))
    turnover = 1000.0
    for second in range(40):
        turnover += 1000.0 if second == 39 else 10.0 + second % 3
        data = {"E": 5, "s": "BTCUSDT", "c": "100", "v": "1", "q": str(turnover)}
        raw = json.dumps({"stream": "btcusdt@ticker", "data": data}).encode()
        b.pipeline.handle(session, raw, START + second * S + 100 * MS)
    b.pipeline.advance(START + 41 * S)
    (signal,) = signals
    assert signal.kind.value == "volume_spike"
    assert signal.detail["turnover_usd"] == pytest.approx(1000.0)


def test_funding_divergence_names_the_legs(bench: Callable[..., Bench]) -> None:
    """0.01 % and 0.05 % every 8 h: 43.8 % a year apart, long on the cheaper one."""
    b = bench(funding_divergence_pct=20)
    signals: list[Signal] = []
    b.pipeline.on_signal.append(signals.append)
    binance = b.open(b.plan("binance", Feed.FUNDING))
    bybit = b.open(b.plan("bybit", Feed.FUNDING))
    noon_ms = START // MS
    b.pipeline.detector.markets["binance", "BTCUSDT"].funding_hours = 8.0
    b.pipeline.handle(binance, mark_price(noon_ms, "0.0001", noon_ms + 3_600_000), START + 100 * MS)
    data = {"symbol": "BTCUSDT", "markPrice": "100", "fundingRate": "0.0005", "fundingIntervalHour": "8"}
    data["nextFundingTime"] = str(noon_ms + 3_600_000)
    raw = json.dumps({"topic": "tickers.BTCUSDT", "type": "snapshot", "data": data, "cs": 1, "ts": noon_ms}).encode()
    b.pipeline.handle(bybit, raw, START + 200 * MS)
    (signal,) = signals
    assert (signal.kind, signal.exchanges) == ("funding_divergence", ("binance", "bybit"))
    assert signal.value == pytest.approx(43.8)
    assert signal.detail["net_bps"] == pytest.approx(3 * 4.0 - 21.0)


def test_nothing_is_kept_when_only_monitoring(
    make_settings: Callable[..., RealtimeSettings], make_instrument: Callable[..., Instrument]
) -> None:
    """Books and signals live on, no row is collected."""
    settings = make_settings(exchanges=("bybit",))
    pipeline = Pipeline(settings, build_exchanges(settings), START, record=False)
    batches: list[Batch] = []
    pipeline.on_batch = batches.append
    (plan,) = pipeline.exchanges["bybit"].plan([make_instrument("bybit")], frozenset({Feed.ORDER_BOOK}))
    session = pipeline.open_session(1, plan, START)
    pipeline.handle(session, snapshot(), START + 100 * MS)
    pipeline.finish(START + 9 * S)
    assert batches == []
    assert sum(pipeline.recorder.rows_added.values()) == 0
