"""Binance USD-M WebSocket streams: routes, stream names, control messages, payloads.

What belongs here: what the exchange accepts and how its frames look. Routes: ``public`` carries books,
``market`` the rest, ``private`` nothing here; the retired root acknowledges everything and sends nothing. A
stream on the wrong route is acknowledged and stays silent, as on the exchange.
"""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

from mts_simulator.binance import statistics_24h
from mts_simulator.books import LEVELS, STEP_MS, changes
from mts_simulator.clock import DAY_MS, SECOND_MS
from mts_simulator.coins import COINS_BY_PERPETUAL, Coin
from mts_simulator.intervals import INTERVALS
from mts_simulator.noise import key_of
from mts_simulator.perpetuals import Window
from mts_simulator.seeded import levels_json, side_pairs, update_id
from mts_simulator.streams import FeedSource, Frame, SilentSource

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mts_simulator.books import BookState
    from mts_simulator.seeded import SeededPerpetuals
    from mts_simulator.streams import Feed, Source

PUBLIC, MARKET, PRIVATE, RETIRED = "public", "market", "private", "retired"
ROUTES = (PUBLIC, MARKET, PRIVATE)

_NAME = re.compile(r"(?P<symbol>[a-z0-9_]+)@(?P<kind>[A-Za-z]+?)(?P<levels>5|10|20)?(?:@(?P<speed>\d+m?s))?")
_PUBLIC_KINDS = re.compile(r"(.*@)?(depth|bookTicker|rpiDepth)(\d*)(@.*)?|!bookTicker")
_PERIODS_MS = {"0ms": 100, "100ms": 100, "250ms": 250, "500ms": 500, "1s": 1000}
_DEPTH_PERIOD_MS = 250
_MARK_PERIOD_MS = 3 * SECOND_MS
_TICKER_PERIOD_MS = 2 * SECOND_MS
_ALL_MARKS = "!markPrice@arr"

_USD_MARGINED, _COIN_MARGINED = 1, 2
_METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS")


def route_of(stream: str) -> str:
    """The route on which the exchange sends a stream."""
    return PUBLIC if _PUBLIC_KINDS.fullmatch(stream) else MARKET


class BinanceSession:
    """One connection.

    Args:
        source: Where the frames of streams on the right route come from.
        route: ``public``, ``market``, ``private`` or ``retired``.
        combined: Whether frames are wrapped as ``stream`` and ``data``.
        streams: What the address itself asks for.
        now_ms: The simulated time.
    """

    def __init__(self, source: Source, route: str, streams: Iterable[str], now_ms: int, *, combined: bool) -> None:
        self._source = source if route in (PUBLIC, MARKET) else SilentSource()
        self._route = route
        self._combined = combined
        self._topics: dict[str, None] = {}
        self._subscribe(streams, now_ms)

    def receive(self, text: str, now_ms: int) -> list[str]:
        """The answers to a text message of the client."""
        try:
            message = json.loads(text)
        except ValueError:
            return [_refusal(3, "Invalid JSON: expected value at line 1 column 1", None)]
        number = message.get("id") if isinstance(message, dict) else None
        if not isinstance(message, dict) or message.get("method") not in _METHODS:
            return [_refusal(2, "Invalid request: unknown method", number)]
        if message["method"] == "LIST_SUBSCRIPTIONS":
            return [_json({"result": self.topics(), "id": number})]
        names = message.get("params")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            return [_refusal(2, "Invalid request: params must be a list of stream names", number)]
        if message["method"] == "SUBSCRIBE":
            self._subscribe(names, now_ms)
        else:
            for name in names:
                self._topics.pop(name, None)
                self._source.remove(name)
        return [_json({"result": None, "id": number})]

    def topics(self) -> list[str]:
        """What is subscribed, silent streams included."""
        return list(self._topics)

    def restart(self, topic: str) -> None:
        """Restart a stream's feed."""
        self._source.restart(topic)

    def next_ms(self) -> float:
        """When the next frame is due."""
        return self._source.next_ms()

    def pop(self, now_ms: int) -> list[Frame]:
        """Frames due by now, wrapped as the address wants them."""
        frames = self._source.pop(now_ms)
        if not self._combined:
            return frames
        return [Frame(topic, f'{{"stream":"{topic}","data":{text}}}') for topic, text in frames]

    def _subscribe(self, names: Iterable[str], now_ms: int) -> None:
        for name in names:
            if name not in self._topics:
                self._topics[name] = None
                if route_of(name) == self._route:
                    self._source.add(name, now_ms)


class _Clocked:
    """A feed that speaks at multiples of its period, shifted by a phase of its own."""

    def __init__(self, period_ms: int, phase_ms: int, now_ms: int) -> None:
        self._period_ms = period_ms
        self.next_ms: float = (now_ms - phase_ms) // period_ms * period_ms + period_ms + phase_ms

    def pop(self, now_ms: int) -> list[str]:
        """The frame of this moment."""
        moment = int(self.next_ms)
        self.next_ms = moment + self._period_ms
        return self._frames(moment, now_ms)

    def restart(self) -> None:
        """Binance's streams do not show restarts."""

    def _frames(self, moment: int, now_ms: int) -> list[str]:
        raise NotImplementedError


class _Depth(_Clocked):
    """Partial depth (``levels``) or, without it, the difference to the moment before."""

    def __init__(
        self,
        data: SeededPerpetuals,
        coin: Coin,
        levels: int | None,
        *,
        period_ms: int,
        phase_ms: int,
        now_ms: int,
    ) -> None:
        super().__init__(period_ms, phase_ms, now_ms)
        self._books = data.books
        self._coin = coin
        self._levels = levels
        self._step = (int(self.next_ms) - period_ms) // STEP_MS

    def _frames(self, moment: int, now_ms: int) -> list[str]:
        step, before = moment // STEP_MS, self._step
        self._step = step
        coin = self._coin
        state = self._books.state(coin, step, self._levels or LEVELS)
        if self._levels:
            bids, asks = side_pairs(state.bids), side_pairs(state.asks)
        else:
            bids, asks = self._touched(before, state)
        symbol = coin.perpetual
        return [
            (
                f'{{"e":"depthUpdate","E":{now_ms},"T":{moment},"s":"{symbol}","ps":"{symbol}",'
                f'"U":{update_id(before) + 1},"u":{update_id(step)},"pu":{update_id(before)},'
                f'"b":{levels_json(coin, bids)},"a":{levels_json(coin, asks)},"st":{_USD_MARGINED}}}'
            )
        ]

    def _touched(self, before: int, state: BookState) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Every level that changed on the way from ``before``, with its size in the end.

        A level that changed and changed back is among them: a snapshot taken in between shows it changed.
        """
        path = [self._books.state(self._coin, step) for step in range(before, state.step)] + [state]
        bids = {tick: 0 for old, new in pairwise(path) for tick, _ in changes(old.bids, new.bids)}
        asks = {tick: 0 for old, new in pairwise(path) for tick, _ in changes(old.asks, new.asks)}
        bids |= {tick: size for tick, size in side_pairs(state.bids) if tick in bids}
        asks |= {tick: size for tick, size in side_pairs(state.asks) if tick in asks}
        return list(bids.items()), list(asks.items())


class _BookTicker(_Clocked):
    """Best bid and ask, sent when they change."""

    def __init__(self, data: SeededPerpetuals, coin: Coin, phase_ms: int, now_ms: int) -> None:
        super().__init__(STEP_MS, phase_ms, now_ms)
        self._books = data.books
        self._coin = coin
        self._last = ""

    def _frames(self, moment: int, now_ms: int) -> list[str]:
        step = moment // STEP_MS
        best = _best(self._coin, self._books.state(self._coin, step, 1))
        if best == self._last:
            return []
        self._last = best
        return [
            (
                f'{{"e":"bookTicker","u":{update_id(step)},"s":"{self._coin.perpetual}",{best},'
                f'"T":{moment},"E":{now_ms},"ps":"{self._coin.perpetual}","st":{_USD_MARGINED}}}'
            )
        ]


class _MarkPrice(_Clocked):
    """Mark price and funding estimate of some symbols; stamped with the whole second, as on the exchange.

    A frame stamped exactly with the settlement time still shows the old ``T``; the next one shows the new.
    """

    def __init__(self, data: SeededPerpetuals, coins: Iterable[Coin], period_ms: int, now_ms: int) -> None:
        super().__init__(period_ms, 0, now_ms)
        self._data = data
        self._coins = tuple(coins)

    def _frames(self, moment: int, now_ms: int) -> list[str]:  # noqa: ARG002  stamped with the moment
        return [self.update(coin, moment) for coin in self._coins]

    def update(self, coin: Coin, moment: int) -> str:
        """One ``markPriceUpdate``."""
        mark = self._data.mark(coin.perpetual, moment - 1)
        if mark is None:
            raise ValueError(f"{coin.id} has no perpetual")
        return (
            f'{{"e":"markPriceUpdate","E":{moment},"s":"{coin.perpetual}","p":"{mark.mark_price}",'
            f'"ap":"{mark.mark_price}","P":"{mark.settle_price}","i":"{mark.index_price}","r":"{mark.rate}",'
            f'"T":{mark.next_funding_ms},"st":{_USD_MARGINED}}}'
        )


class _AllMarkPrices(_MarkPrice):
    """All symbols in one array, COIN-M ones among them, as since the integration of both."""

    def _frames(self, moment: int, now_ms: int) -> list[str]:
        rows = super()._frames(moment, now_ms)
        coin_margined = (
            rows[0].replace("BTCUSDT", "BTCUSD_PERP").replace(f'"st":{_USD_MARGINED}', f'"st":{_COIN_MARGINED}')
        )
        return [f"[{','.join([*rows, coin_margined])}]"]


class _Ticker(_Clocked):
    """24 h statistics: no best bid or ask, no funding."""

    def __init__(self, data: SeededPerpetuals, coin: Coin, phase_ms: int, now_ms: int) -> None:
        super().__init__(_TICKER_PERIOD_MS, phase_ms, now_ms)
        self._data = data
        self._coin = coin

    def _frames(self, moment: int, now_ms: int) -> list[str]:
        symbol = self._coin.perpetual
        window = Window(moment - DAY_MS, moment, 25, newest=True)
        day = statistics_24h(self._data.candles(symbol, INTERVALS["1h"], window, moment), moment)
        return [
            _json(
                {
                    "e": "24hrTicker",
                    "E": now_ms,
                    "s": symbol,
                    "p": day["priceChange"],
                    "P": day["priceChangePercent"],
                    "w": day["weightedAvgPrice"],
                    "c": day["lastPrice"],
                    "Q": day["lastQty"],
                    "o": day["openPrice"],
                    "h": day["highPrice"],
                    "l": day["lowPrice"],
                    "v": day["volume"],
                    "q": day["quoteVolume"],
                    "O": day["openTime"],
                    "C": day["closeTime"],
                    "F": day["firstId"],
                    "L": day["lastId"],
                    "n": day["count"],
                    "ps": symbol,
                    "st": _USD_MARGINED,
                }
            )
        ]


class SeededBinanceFeeds:
    """Makes the feeds of the seeded market.

    Args:
        data: The seeded perpetuals.
    """

    def __init__(self, data: SeededPerpetuals) -> None:
        self._data = data

    def source(self) -> FeedSource:
        """A source for one connection."""
        return FeedSource(self.feed)

    def feed(self, stream: str, now_ms: int) -> Feed | None:
        """The feed of a stream; None for unknown symbols and streams that are not simulated."""
        if stream.startswith(_ALL_MARKS):
            period = _PERIODS_MS.get(stream.removeprefix(_ALL_MARKS).lstrip("@"), _MARK_PERIOD_MS)
            return _AllMarkPrices(self._data, COINS_BY_PERPETUAL.values(), period, now_ms)
        found = _NAME.fullmatch(stream)
        coin = COINS_BY_PERPETUAL.get(found["symbol"].upper()) if found else None
        if found is None or coin is None:
            return None
        return self._feed(found, coin, key_of(0, "phase", stream) % STEP_MS, now_ms)

    def _feed(self, name: re.Match[str], coin: Coin, phase_ms: int, now_ms: int) -> Feed | None:
        """The feed of a stream of one symbol, by the parts of its name."""
        speed = name["speed"] or ""
        match name["kind"]:
            case "depth":
                levels = int(name["levels"]) if name["levels"] else None
                period = _PERIODS_MS.get(speed, _DEPTH_PERIOD_MS)
                return _Depth(self._data, coin, levels, period_ms=period, phase_ms=phase_ms, now_ms=now_ms)
            case "bookTicker":
                return _BookTicker(self._data, coin, phase_ms, now_ms)
            case "markPrice":
                return _MarkPrice(self._data, [coin], _PERIODS_MS.get(speed, _MARK_PERIOD_MS), now_ms)
            case "ticker":
                return _Ticker(self._data, coin, phase_ms, now_ms)
        return None


class StreamSources(Protocol):
    """Makes the source of one connection."""

    def source(self) -> Source:
        """A source for one connection."""


def _best(coin: Coin, state: BookState) -> str:
    (bid, bid_size), (ask, ask_size) = side_pairs(state.bids)[0], side_pairs(state.asks)[0]
    price, size = 10**coin.price_decimals, 10**coin.quantity_decimals
    return (
        f'"b":"{bid / price:.{coin.price_decimals}f}","B":"{bid_size / size:.{coin.quantity_decimals}f}",'
        f'"a":"{ask / price:.{coin.price_decimals}f}","A":"{ask_size / size:.{coin.quantity_decimals}f}"'
    )


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _refusal(code: int, text: str, number: object) -> str:
    return _json({"error": {"code": code, "msg": text}, "id": number})
