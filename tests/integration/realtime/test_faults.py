"""Scripted faults over real sockets. The outcome is read from the landed data and the metrics."""

from __future__ import annotations

import asyncio
import json

import pytest
import websockets

from mts_realtime.feed import Outlet
from tests.integration.realtime.running import Running, Start, assert_covered, assert_faithful
from tests.integration.realtime.venue import Venue

BYBIT = "/v5/public/linear"
BOOK = "orderbook.50.BTCUSDT"
PICTURE = "btcusdt@depth20@100ms"


async def settle(running: Running, exchange: str = "") -> None:
    """Everything is live again, and some rows later."""
    await running.until(lambda: running.live(exchange))
    rows = running.metric("rows_total", dataset="order_book")
    await running.until(lambda: running.metric("rows_total", dataset="order_book") > rows + 12)


def assert_whole(running: Running, venue: Venue) -> None:
    """All landed books are true, and every grid time is a row or a gap."""
    assert_faithful(running.rows("order_book"), venue)
    for exchange in running.settings.exchanges:
        for symbol in venue.symbols:
            assert_covered(running, "order_book", exchange, symbol)


def reasons(running: Running, exchange: str = "", symbol: str = "") -> set[str]:
    return {
        row["reason"]
        for row in running.rows("gaps")
        if exchange in ("", row["exchange"]) and symbol in ("", row["symbol"])
    }


async def test_reset_in_mid_frame(start: Start, venue: Venue) -> None:
    """Half a frame and a reset: reconnect, resync, a declared gap; the other exchange notices nothing."""
    async with start() as running:
        await settle(running)
        venue.reset_in_mid_frame(BYBIT)
        await running.until(lambda: running.metric("reconnects_total", exchange="bybit") == 2)
        await settle(running)
    assert_whole(running, venue)
    assert reasons(running, "bybit") == {"starting", "disconnected"}
    assert reasons(running, "binance") == {"starting"}
    assert running.metric("reconnects_total", exchange="binance") == 0


async def test_half_open_connection(start: Start, venue: Venue) -> None:
    """Nothing comes and nothing closes: found by its silence and replaced."""
    async with start() as running:
        await settle(running)
        venue.freeze("/public/stream")
        await running.until(lambda: running.metric("reconnects_total", exchange="binance", route="public") == 1)
        await settle(running)
    assert_whole(running, venue)
    assert "disconnected" in reasons(running, "binance")
    assert reasons(running, "bybit") == {"starting"}


async def test_silence_after_the_ack(start: Start, venue: Venue) -> None:
    """A route that acknowledges and stays silent is no live stream; the exchange's other routes go on."""
    venue.silent.add("/market/stream")
    async with start(exchanges=("binance",), connection_silence_s=5) as running:
        await running.until(lambda: running.metric("reconnects_total", route="market") >= 2)
        assert running.metric("live_topics", exchange="binance", dataset="funding") == 0
        assert running.metric("live_topics", exchange="binance", dataset="order_book") == 2
        assert running.side.supervisor.problems["binance"] == "subscribed, but no data"
        venue.silent.clear()
        await settle(running, "binance")
    assert reasons(running) == {"starting"}
    assert_whole(running, venue)


@pytest.mark.parametrize("fault", ["skipped", "swapped"])
async def test_missing_or_swapped_delta(start: Start, venue: Venue, fault: str) -> None:
    """One delta is lost, or two change places: the book is built again from a snapshot, the rest is untouched."""
    kept: list[bytes] = []

    def tamper(topic: str, frames: list[bytes]) -> list[bytes]:
        if topic != BOOK or b'"delta"' not in frames[0] or len(kept) > 1:
            return frames
        kept.extend(frames)
        if len(kept) == 1:
            return []
        return frames if fault == "skipped" else [kept[1], kept[0]]

    async with start() as running:
        await settle(running)
        venue.tamper = tamper
        await running.until(lambda: running.metric("resyncs_total", exchange="bybit", reason="sequence_gap") == 1)
        await settle(running)
    assert_whole(running, venue)
    assert reasons(running, "bybit", "BTCUSDT") == {"starting", "sequence_gap"}
    assert reasons(running, "bybit", "ETHUSDT") == {"starting"}
    assert venue.subscribed.count(BOOK) == 2
    assert running.metric("reconnects_total") == 0


async def test_duplicated_deltas(start: Start, venue: Venue) -> None:
    """Every delta twice: dropped as repetitions, no resync."""
    async with start() as running:
        await settle(running)
        venue.tamper = lambda topic, frames: frames * 2 if topic == BOOK else frames
        await settle(running)
    assert_whole(running, venue)
    assert running.metric("resyncs_total") == 0
    assert reasons(running) == {"starting"}


async def test_restart_snapshot(start: Start, venue: Venue) -> None:
    """The service starts again with ``u`` 1 in the middle of the stream: the snapshot replaces the book, no gap."""
    async with start() as running:
        await settle(running)
        venue.books["bybit", "BTCUSDT"].restart()
        await venue.announce(BOOK, venue.bybit_snapshot("BTCUSDT"))
        await settle(running)
    assert_whole(running, venue)
    assert min(row["sequence_id"] for row in running.rows("order_book") if row["symbol"] == "BTCUSDT") < 1000
    assert running.metric("resyncs_total") == 0


async def test_missed_restart_snapshot(start: Start, venue: Venue) -> None:
    """The restart is seen only by its deltas, whose numbers look old: a gap, not repetitions."""
    async with start() as running:
        await settle(running)
        venue.books["bybit", "BTCUSDT"].restart()
        await running.until(lambda: running.metric("resyncs_total", exchange="bybit", reason="sequence_gap") >= 1)
        await settle(running)
    assert_whole(running, venue)


async def test_crossed_book(start: Start, venue: Venue) -> None:
    """A picture with bid above ask is never published; the next one heals."""

    def cross(topic: str, frames: list[bytes]) -> list[bytes]:
        if topic == PICTURE and venue.steps % 10 == 0:
            frame = json.loads(frames[0])
            frame["data"]["b"], frame["data"]["a"] = frame["data"]["a"], frame["data"]["b"]
            return [json.dumps(frame).encode()]
        return frames

    async with start() as running:
        await settle(running)
        venue.tamper = cross
        await running.until(lambda: running.metric("resyncs_total", exchange="binance", reason="crossed_book") >= 3)
        venue.tamper = lambda _topic, frames: frames
        await settle(running)
    assert_whole(running, venue)
    assert "crossed_book" in reasons(running, "binance", "BTCUSDT")
    assert running.metric("reconnects_total") == 0


async def test_malformed_frames(start: Start, venue: Venue) -> None:
    """Broken JSON and a missing member go to the quarantine file; the connection and the books live on."""

    def break_some(topic: str, frames: list[bytes]) -> list[bytes]:
        if topic == PICTURE and venue.steps % 4 == 0:
            return [frames[0][:-20], frames[0].replace(b'"u":', b'"v":'), *frames]
        return frames

    async with start() as running:
        await settle(running)
        venue.tamper = break_some
        await running.until(lambda: running.metric("quarantined_frames_total") >= 6)
        await settle(running)
    assert_whole(running, venue)
    assert running.metric("reconnects_total") == 0
    assert reasons(running) == {"starting"}
    problems = [json.loads(line)["problem"] for line in running.settings.quarantine_file.read_text().splitlines()]
    assert any("truncated" in problem for problem in problems)
    assert any("missing required field `u`" in problem for problem in problems)


async def test_schema_drift(start: Start, venue: Venue) -> None:
    """New members are counted by name and change nothing."""
    venue.tamper = lambda _topic, frames: [frame.replace(b'"u":', b'"novel":{"x":1},"u":') for frame in frames]
    async with start() as running:
        await settle(running)
    assert_whole(running, venue)
    assert running.metric("unknown_fields_total", exchange="binance", frame="depth", member="data.novel") >= 1
    assert running.metric("unknown_fields_total", exchange="bybit", frame="orderbook", member="data.novel") >= 1
    assert running.metric("quarantined_frames_total") == 0


async def test_burst_conflates_pictures_and_keeps_funding(start: Start, venue: Venue) -> None:
    """Thousands of pictures at once: the latest wins, what was skipped is counted, funding arrives whole."""
    async with start(exchanges=("binance",), conflate_frames=10, inbox_frames=100) as running:
        await settle(running, "binance")
        rates = [f"0.000{number:03d}" for number in range(100, 400)]
        (public,), (market,) = venue.on("/public/stream"), venue.on("/market/stream")
        frame = venue.binance_depth(PICTURE, 0, *venue.books["binance", "BTCUSDT"].top(20), "BTCUSDT")
        last = venue.books["binance", "BTCUSDT"].last_id
        burst = b"".join(venue.framed(frame) for _ in range(5000))
        for rate in rates:
            venue.funding_rate["binance"] = rate
            market.transport.write(venue.framed(venue.binance_mark_price("BTCUSDT")))
        public.transport.write(burst)
        await running.until(lambda: running.metric("dropped_frames_total", kind="conflated") > 1000)
        await settle(running, "binance")
    assert last in venue.books["binance", "BTCUSDT"].states
    assert_whole(running, venue)
    landed = {row["funding_rate"] for row in running.rows("funding") if row["symbol"] == "BTCUSDT"}
    assert {float(rate) for rate in rates} <= landed
    assert running.metric("dropped_frames_total", kind="shed") == 0


async def test_overload_of_deltas_gives_up_whole_books_and_declares_them(start: Start, venue: Venue) -> None:
    """Deltas cannot conflate: above the bound the busiest books are dropped, declared and built again."""
    async with start(exchanges=("bybit",), conflate_frames=10, inbox_frames=100) as running:
        await settle(running, "bybit")
        connection = next(c for c, topics in venue.connections.items() if BOOK in topics)
        frame = venue.bybit_delta("BTCUSDT", [], [])
        connection.transport.write(b"".join(venue.framed(frame) for _ in range(3000)))
        await running.until(lambda: running.metric("dropped_frames_total", kind="shed") > 100)
        await settle(running, "bybit")
    assert_whole(running, venue)
    assert "overload" in reasons(running, "bybit", "BTCUSDT")
    assert running.metric("reconnects_total") == 0


async def test_slow_close(start: Start, venue: Venue) -> None:
    """An exchange that does not finish the closing handshake delays neither the reconnect nor the end."""
    async with start(exchanges=("bybit",)) as running:
        await settle(running, "bybit")
        venue.freeze(BYBIT)
        for connection in venue.on(BYBIT):
            connection.transport.pause_reading()
        await running.until(lambda: running.metric("reconnects_total", exchange="bybit") == 2)
        await settle(running, "bybit")
        for connection in venue.on(BYBIT):
            connection.transport.pause_reading()
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 10
    assert running.exit_code == 0
    assert_whole(running, venue)


async def test_polite_close_by_the_exchange(start: Start, venue: Venue) -> None:
    """Maintenance: every connection is closed with a reason, and comes back."""
    async with start() as running:
        await settle(running)
        for connection in list(venue.connections):
            await connection.close(1012, "service restart")
        await running.until(lambda: running.metric("reconnects_total") == 4)
        await settle(running)
    assert_whole(running, venue)


@pytest.mark.parametrize(
    ("status", "headers", "body", "problem"),
    [
        (429, {"Retry-After": "0"}, b"", "HTTP 429, too many requests"),
        (418, {}, b'{"code":-1003,"msg":"banned until 1500000000000"}', "HTTP 418, too many requests"),
        (503, {}, b"", "HTTP 503"),
        (451, {}, b"restricted location", "this location or network is blocked"),
    ],
)
async def test_refused_handshakes(
    start: Start, venue: Venue, status: int, headers: dict[str, str], body: bytes, problem: str
) -> None:
    """Each answer is understood and shown; when it ends, the exchange comes up; the other one ran all the time."""
    venue.refuse["/public/stream"] = venue.refuse["/market/stream"] = (status, headers, body)
    async with start(dead_topic_retry_s=0.3) as running:
        await running.until(lambda: problem in running.side.supervisor.problems.get("binance", ""))
        await settle(running, "bybit")
        assert running.metric("connections", exchange="binance") == 0
        venue.refuse.clear()
        await settle(running)
    assert_whole(running, venue)
    assert reasons(running, "bybit") == {"starting"}


async def test_banned_rest_calls_pause(start: Start, venue: Venue) -> None:
    """The instruments list is refused for a second: no call goes out before, then everything starts."""
    venue.rest_refuse["/fapi/v1/exchangeInfo"] = (429, {"Retry-After": "1"}, b"{}")
    async with start() as running:
        await running.until(lambda: "too many requests" in running.side.supervisor.problems.get("binance", ""))
        venue.rest_refuse.clear()
        await settle(running)
    assert_whole(running, venue)


async def test_exchange_down_from_the_start(start: Start, venue: Venue) -> None:
    """One exchange never answers: the other one's data lands, health says degraded."""
    async with start(bybit_url="http://127.0.0.1:9", bybit_ws_url="ws://127.0.0.1:9") as running:
        await settle(running, "binance")
        assert running.metric("live_topics", exchange="bybit") == 0
        assert "failed" in running.side.supervisor.problems["bybit"]
    assert {row["exchange"] for row in running.rows("order_book")} == {"binance"}


async def test_ping_that_is_not_answered(start: Start, venue: Venue) -> None:
    """Bybit's data stops and its pongs with it: the ping finds out before the silence does."""
    async with start(
        exchanges=("bybit",), bybit_ping_s=0.2, bybit_pong_timeout_s=0.2, connection_silence_s=30, silence_s=30
    ) as running:
        await settle(running, "bybit")
        venue.freeze(BYBIT)
        await running.until(lambda: running.metric("reconnects_total", exchange="bybit") == 2)
        assert running.side.supervisor.problems["bybit"] == "ping not answered"
        await settle(running, "bybit")
    assert_whole(running, venue)


async def test_rotation_leaves_no_gap(start: Start, venue: Venue) -> None:
    """Connections are replaced again and again while data flows: no gap, no double row, no reconnect counted."""
    async with start(binance_rotate_s=1.0, bybit_rotate_s=1.0) as running:
        await settle(running)
        await running.until(lambda: running.metric("rotations_total") >= 8)
        await settle(running)
    assert_whole(running, venue)
    assert reasons(running) == {"starting"}
    rows = [(row["exchange"], row["symbol"], row["timestamp"]) for row in running.rows("order_book")]
    assert len(rows) == len(set(rows))
    assert running.metric("reconnects_total") == 0
    assert running.metric("handovers_total") >= 8


async def test_delisted_symbol_falls_silent_and_the_other_goes_on(start: Start, venue: Venue) -> None:
    """One topic ends for good: declared, asked for again more and more slowly."""
    async with start(exchanges=("bybit",), silence_s=0.4, subscribe_timeout_s=0.3) as running:
        await settle(running, "bybit")
        venue.delisted = {"ETHUSDT"}
        for topics in venue.connections.values():
            topics -= {"orderbook.50.ETHUSDT", "tickers.ETHUSDT"}
        await running.until(lambda: venue.subscribed.count("orderbook.50.ETHUSDT") >= 3)
        rows = running.metric("rows_total", dataset="order_book")
        await running.until(lambda: running.metric("rows_total", dataset="order_book") > rows + 10)
    assert_whole(running, venue)
    assert "silence" in reasons(running, "bybit", "ETHUSDT")
    assert reasons(running, "bybit", "BTCUSDT") == {"starting"}


async def changes(running: Running, count: int) -> None:
    """So many opportunities have opened or ended."""
    await running.until(lambda: running.metric("opportunities_total") >= count)


async def test_slow_feed_client_is_told_what_it_missed(start: Start, venue: Venue) -> None:
    """A client that does not read costs bounded memory; books are the latest, the count of lost signals is told."""
    async with start(feed_buffer_messages=10) as running:
        await running.until(running.live)
        feed = running.side.feed
        assert feed is not None
        slow = Outlet(frozenset({"books", "opportunities"}), frozenset(), 10)
        feed.attach(slow)
        book = venue.books["bybit", "BTCUSDT"]
        for number in range(30):
            book.move(103.0 if number % 2 == 0 else 100.0)
            book.step()
            await venue.announce(BOOK, venue.bybit_snapshot("BTCUSDT"))
            await changes(running, number + 1)
        messages = await slow.take()
        feed.detach(slow)
    assert slow.missed > 0
    assert sum(message.channel == "opportunities" for message in messages) == 10
    assert len([message for message in messages if message.channel == "books"]) == 4


async def test_client_that_leaves_is_forgotten(start: Start, venue: Venue) -> None:
    """A feed client that disconnects in the middle of the stream leaves nothing behind."""
    async with start() as running:
        await running.until(running.live)
        async with websockets.connect(f"ws://127.0.0.1:{running.port}/stream") as client:
            assert json.loads(await client.recv())["type"] == "hello"
            assert running.metric("feed_clients") == 1
            client.transport.abort()
            await client.wait_closed()
        await running.until(lambda: running.metric("feed_clients") == 0)
