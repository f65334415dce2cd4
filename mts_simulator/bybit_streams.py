"""Bybit v5 public WebSocket, category linear: topics, control messages, payloads.

What belongs here: what the exchange accepts and how its frames look: books as one snapshot and deltas whose
``u`` grows by one, tickers as one snapshot and sparse deltas, acknowledgements, and pongs whose ``op`` is
``ping``.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from mts_simulator.books import STEP_MS, changes
from mts_simulator.bybit import cross_sequence
from mts_simulator.clock import SECOND_MS
from mts_simulator.coins import COINS_BY_PERPETUAL
from mts_simulator.noise import key_of
from mts_simulator.seeded import levels_json, side_pairs
from mts_simulator.streams import FeedSource, Frame

if TYPE_CHECKING:
    from mts_simulator.books import BookState
    from mts_simulator.bybit import SeededBybit
    from mts_simulator.coins import Coin
    from mts_simulator.streams import Feed, Source
    from mts_simulator.wire import JsonObject

_BOOK = re.compile(r"orderbook\.(1|50|200|1000)\.([A-Z0-9]+)")
_TICKER = re.compile(r"tickers\.([A-Z0-9]+)")
_KNOWN = re.compile(r"(publicTrade|allLiquidation|liquidation|kline\.\w+|priceLimit|adlAlert)\.[A-Z0-9.]+")
_ARGS_CHARACTERS = 21_000

_BOOK_PERIODS_MS = {1: 100, 50: 100, 200: 100, 1000: 200}
_IDLE_REPEAT_MS = 3 * SECOND_MS
_TICKER_PERIOD_MS = 200
_STATISTICS_PERIOD_MS = 5 * SECOND_MS
_PAIRS = (("bid1Price", "bid1Size"), ("ask1Price", "ask1Size"))
_LEFT_OUT = frozenset(
    {"predictedDeliveryPrice", "basisRate", "deliveryFeeRate", "deliveryTime", "basis", "basisRateYear"}
)


class BybitSession:
    """One connection.

    Args:
        source: Where the frames come from.
        connection_id: What the exchange calls the connection.
    """

    def __init__(self, source: Source, connection_id: str) -> None:
        self._source = source
        self._connection_id = connection_id
        self._topics: dict[str, None] = {}

    def receive(self, text: str, now_ms: int) -> list[str]:
        """The answers to a text message of the client."""
        try:
            message = json.loads(text)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            return [self._answer("", success=False, problem="Params Error", operation="")]
        number, operation = str(message.get("req_id", "")), message.get("op")
        if operation == "ping":
            return [self._answer(number, success=True, problem="pong", operation="ping")]
        names = message.get("args")
        if operation not in ("subscribe", "unsubscribe") or not isinstance(names, list):
            return [self._answer(number, success=False, problem="Params Error", operation=str(operation))]
        problem = self._subscribe(names, now_ms) if operation == "subscribe" else self._unsubscribe(names)
        return [self._answer(number, success=not problem, problem=problem, operation=operation)]

    def topics(self) -> list[str]:
        """What is subscribed, silent topics included."""
        return list(self._topics)

    def restart(self, topic: str) -> None:
        """Restart a topic's feed: the next frame is a snapshot with ``u`` 1."""
        self._source.restart(topic)

    def next_ms(self) -> float:
        """When the next frame is due."""
        return self._source.next_ms()

    def pop(self, now_ms: int) -> list[Frame]:
        """Frames due by now."""
        return self._source.pop(now_ms)

    def _subscribe(self, names: list[str], now_ms: int) -> str:
        """Subscribe to all or, with one bad topic, to none; returns the problem."""
        for name in names:
            if not (_BOOK.fullmatch(name) or _TICKER.fullmatch(name) or _KNOWN.fullmatch(name)):
                return f"error:handler not found,topic:{name}"
            if name in self._topics:
                return f"error:already subscribed,topic:{name}"
        if sum(map(len, [*self._topics, *names])) > _ARGS_CHARACTERS:
            return "error:args too long"
        for name in names:
            self._topics[name] = None
            self._source.add(name, now_ms)
        return ""

    def _unsubscribe(self, names: list[str]) -> str:
        for name in names:
            self._topics.pop(name, None)
            self._source.remove(name)
        return ""

    def _answer(self, number: str, *, success: bool, problem: str, operation: str) -> str:
        answer = {
            "success": success,
            "ret_msg": problem,
            "conn_id": self._connection_id,
            "req_id": number,
            "op": operation,
        }
        return json.dumps(answer, separators=(",", ":"))


class _Book:
    """Order book of one depth: a snapshot, then the differences; level 1 is all snapshots."""

    def __init__(self, data: SeededBybit, coin: Coin, depth: int, now_ms: int) -> None:
        self._books = data.books
        self._coin = coin
        self._topic = f"orderbook.{depth}.{coin.perpetual}"
        self._depth = depth
        self._period_ms = _BOOK_PERIODS_MS[depth]
        self._phase_ms = key_of(0, "phase", self._topic) % STEP_MS
        self._tick = (now_ms - self._phase_ms) // self._period_ms
        self._first_tick = 0
        self._last: BookState | None = None
        self._sent_ms = 0
        self.next_ms: float = now_ms

    def pop(self, now_ms: int) -> list[str]:
        """The snapshot at once, then a delta each period."""
        moment = self._tick * self._period_ms + self._phase_ms
        state = self._books.state(self._coin, moment // STEP_MS, self._depth)
        frames = self._frames(state, moment, now_ms)
        self._last = state
        self._tick += 1
        self.next_ms = self._tick * self._period_ms + self._phase_ms
        return frames

    def restart(self) -> None:
        """The update ids begin with 1 again, and with them a snapshot."""
        self._last = None
        self._first_tick = self._tick - 1

    def _frames(self, state: BookState, moment: int, now_ms: int) -> list[str]:
        last = self._last
        if self._depth == 1 and last is not None and self._same(last, state):
            if now_ms - self._sent_ms < _IDLE_REPEAT_MS:
                self._first_tick += 1  # The id stays while nothing changes.
                return []
            self._first_tick += 1
            return [self._frame("snapshot", side_pairs(state.bids), side_pairs(state.asks), moment, now_ms)]
        if last is None or self._depth == 1:
            return [self._frame("snapshot", side_pairs(state.bids), side_pairs(state.asks), moment, now_ms)]
        bids, asks = changes(last.bids, state.bids), changes(last.asks, state.asks)
        return [self._frame("delta", bids, asks, moment, now_ms)]

    def _same(self, last: BookState, state: BookState) -> bool:
        return (side_pairs(last.bids), side_pairs(last.asks)) == (
            side_pairs(state.bids),
            side_pairs(state.asks),
        )

    def _frame(
        self, kind: str, bids: list[tuple[int, int]], asks: list[tuple[int, int]], moment: int, now_ms: int
    ) -> str:
        self._sent_ms = now_ms
        coin = self._coin
        return (
            f'{{"topic":"{self._topic}","type":"{kind}","ts":{now_ms},"data":{{"s":"{coin.perpetual}",'
            f'"b":{levels_json(coin, bids, "0")},"a":{levels_json(coin, asks, "0")},'
            f'"u":{self._tick - self._first_tick},"seq":{cross_sequence(moment)}}},"cts":{moment}}}'
        )


class _Ticker:
    """A snapshot of all members, then only those that changed."""

    def __init__(self, data: SeededBybit, coin: Coin, now_ms: int) -> None:
        self._data = data
        self._coin = coin
        self._sent: JsonObject = {}
        self._statistics: JsonObject = {}
        self._statistics_ms = 0
        self.next_ms: float = now_ms

    def pop(self, now_ms: int) -> list[str]:
        """The snapshot at once, then what changed since."""
        self.next_ms = self.next_ms + _TICKER_PERIOD_MS
        current = self._current(now_ms)
        if self._sent:
            changed = {name for name, value in current.items() if self._sent.get(name) != value}
            for pair in _PAIRS:
                if changed.intersection(pair):
                    changed.update(pair)
            data = {name: value for name, value in current.items() if name in changed}
            if not data:
                return []
            kind, data = "delta", {"symbol": self._coin.perpetual, **data}
        else:
            kind, data = "snapshot", current
        self._sent = current
        frame = {
            "topic": f"tickers.{self._coin.perpetual}",
            "type": kind,
            "data": data,
            "cs": cross_sequence(now_ms),
            "ts": now_ms,
        }
        return [json.dumps(frame, separators=(",", ":"))]

    def restart(self) -> None:
        """The next frame is a snapshot."""
        self._sent = {}

    def _current(self, now_ms: int) -> JsonObject:
        """All members; the 24 h statistics are renewed every few seconds only."""
        symbol = self._coin.perpetual
        if now_ms - self._statistics_ms >= _STATISTICS_PERIOD_MS:
            row = self._data.ticker(symbol, now_ms) or {}
            self._statistics = {name: value for name, value in row.items() if name not in _LEFT_OUT}
            self._statistics_ms = now_ms
        mark, ladder = self._data.mark(symbol, now_ms), self._data.ladder(symbol, 1, now_ms)
        if mark is None:
            return {}
        (bid, bid_size), (ask, ask_size) = ladder.bids[0], ladder.asks[0]
        quick = {
            "lastPrice": bid if now_ms // SECOND_MS % 2 else ask,
            "markPrice": f"{float(mark.mark_price):.4f}",
            "indexPrice": f"{float(mark.index_price):.4f}",
            "fundingRate": self._statistics.get("fundingRate", ""),
            "nextFundingTime": str(mark.next_funding_ms),
            "bid1Price": bid,
            "bid1Size": bid_size,
            "ask1Price": ask,
            "ask1Size": ask_size,
        }
        return {**self._statistics, **quick}


class SeededBybitFeeds:
    """Makes the feeds of the seeded market.

    Args:
        data: The seeded perpetuals.
    """

    def __init__(self, data: SeededBybit) -> None:
        self._data = data

    def source(self) -> FeedSource:
        """A source for one connection."""
        return FeedSource(self.feed)

    def feed(self, topic: str, now_ms: int) -> Feed | None:
        """The feed of a topic; None for unknown symbols and topics that are not simulated."""
        book, ticker = _BOOK.fullmatch(topic), _TICKER.fullmatch(topic)
        if book and book[2] in COINS_BY_PERPETUAL:
            return _Book(self._data, COINS_BY_PERPETUAL[book[2]], int(book[1]), now_ms)
        if ticker and ticker[1] in COINS_BY_PERPETUAL:
            return _Ticker(self._data, COINS_BY_PERPETUAL[ticker[1]], now_ms)
        return None
