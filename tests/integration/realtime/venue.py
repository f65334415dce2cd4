"""A scripted venue on loopback: both exchanges' REST and WebSocket sides, with true books and faults on command.

It is written from the exchanges' documents, not from the product's code, and keeps every true book by its sequence
number, so that each landed row can be compared with the truth.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Callable
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response

STEP_S = 0.02
Ladder = list[tuple[float, float]]
Tamper = Callable[[str, list[bytes]], list[bytes]]


class TrueBook:
    """A book that changes by itself; knows each of its states by sequence number."""

    def __init__(self, symbol: str, base: float, seed: int, first_id: int) -> None:
        self.symbol = symbol
        self.rng = random.Random(seed)  # noqa: S311 - a reproducible market
        self.base = base
        self.bids = {round(base - 0.1 * n, 1): 1.0 for n in range(1, 31)}
        self.asks = {round(base + 0.1 * n, 1): 1.0 for n in range(1, 31)}
        self.last_id = first_id
        self.cross = 10 * first_id
        self.states: dict[int, tuple[Ladder, Ladder]] = {}
        self.remember()

    def remember(self) -> None:
        self.states[self.last_id] = (sorted(self.bids.items(), reverse=True), sorted(self.asks.items()))

    def step(self) -> tuple[Ladder, Ladder]:
        """Change some sizes, take and give some deep levels; returns the changed levels."""
        changed: list[dict[float, float]] = []
        for side, sign in ((self.bids, -1), (self.asks, 1)):
            changes: dict[float, float] = {}
            for _ in range(self.rng.randint(1, 4)):
                price = round(self.base + sign * 0.1 * self.rng.randint(1, 30), 1)
                size = float(self.rng.choice([0, 1, 2, 3, 5])) if abs(price - self.base) > 0.15 else 2.0
                changes[price] = size
                if size:
                    side[price] = size
                else:
                    side.pop(price, None)
            changed.append(changes)
        self.last_id += 1
        self.cross += self.rng.randint(1, 5)
        self.remember()
        return list(changed[0].items()), list(changed[1].items())

    def move(self, base: float) -> None:
        """Another price: everything changes (only between steps, sent as a fresh snapshot)."""
        self.base = base
        self.bids = {round(base - 0.1 * n, 1): 1.0 for n in range(1, 31)}
        self.asks = {round(base + 0.1 * n, 1): 1.0 for n in range(1, 31)}

    def restart(self) -> None:
        """The service starts again: the sequence begins at 1."""
        self.last_id = 1
        self.cross += 1
        self.remember()

    def top(self, levels: int) -> tuple[Ladder, Ladder]:
        bids, asks = self.states[self.last_id]
        return bids[:levels], asks[:levels]


def text(levels: Ladder) -> list[list[str]]:
    return [[f"{price:.1f}", f"{size:g}"] for price, size in levels]


def dump(frame: object) -> bytes:
    return json.dumps(frame, separators=(",", ":")).encode()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Venue:
    """The server. Tests set its attributes to make it misbehave.

    Attributes:
        tamper: Changes the frames of a topic before they are sent.
        silent: Connections whose path contains one of these texts get acknowledgements and no data.
        refuse: HTTP status, headers and body for every handshake whose path contains the key.
        rest_refuse: The same for REST calls.
        mute_pongs: Whether Bybit's pings go unanswered.
        clock_ahead_ms: How far Binance's clock is ahead.
        delisted: Symbols that the instruments lists leave out.
        opened: Handshakes so far, by path.
        subscribed: Topics asked for so far, in order.
    """

    def __init__(self, symbols: tuple[str, ...]) -> None:
        self.symbols = symbols
        self.books: dict[tuple[str, str], TrueBook] = {}
        for number, symbol in enumerate(symbols):
            self.books["binance", symbol] = TrueBook(symbol, 100.0 + 100 * number, number, 1000)
            self.books["bybit", symbol] = TrueBook(symbol, 100.0 + 100 * number, 50 + number, 5000)
        self.tamper: Tamper = lambda _topic, frames: frames
        self.silent: set[str] = set()
        self.refuse: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.rest_refuse: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.mute_pongs = False
        self.clock_ahead_ms = 0
        self.delisted: set[str] = set()
        self.opened: list[str] = []
        self.subscribed: list[str] = []
        self.funding_rate = {"binance": "0.0001", "bybit": "0.0001"}
        self.connections: dict[ServerConnection, set[str]] = {}
        self.frozen: set[ServerConnection] = set()
        self.port = 0
        self.steps = 0

    # REST

    def answer(self, _connection: ServerConnection, request: Request) -> Response | None:
        path, _, query = request.path.partition("?")
        if path.endswith("/stream") or path == "/v5/public/linear":
            for part, (status, headers, body) in self.refuse.items():
                if part in path:
                    return respond(status, body, headers)
            self.opened.append(path)
            return None
        for part, (status, headers, body) in self.rest_refuse.items():
            if part in path:
                return respond(status, body, headers)
        answers: dict[str, Callable[[str], Any]] = {
            "/fapi/v1/exchangeInfo": lambda _: {"symbols": [self._binance_row(symbol) for symbol in self._listed()]},
            "/fapi/v1/fundingInfo": lambda _: [],
            "/fapi/v1/time": lambda _: {"serverTime": now_ms() + self.clock_ahead_ms},
            "/v5/market/time": lambda _: {"retCode": 0, "retMsg": "OK", "time": now_ms()},
            "/fapi/v1/depth": self._binance_snapshot,
            "/v5/market/instruments-info": self._bybit_instruments,
        }
        if path not in answers:
            return respond(404, b"{}")
        return respond(200, dump(answers[path](query)))

    def _binance_snapshot(self, query: str) -> dict[str, Any]:
        symbol = dict(part.split("=") for part in query.split("&"))["symbol"]
        book = self.books["binance", symbol]
        bids, asks = book.top(1000)
        return {"lastUpdateId": book.last_id, "E": now_ms(), "T": now_ms(), "bids": text(bids), "asks": text(asks)}

    def _bybit_instruments(self, _query: str) -> dict[str, Any]:
        rows = [self._bybit_row(symbol) for symbol in self._listed()]
        return {"retCode": 0, "retMsg": "OK", "result": {"list": rows, "nextPageCursor": ""}}

    def _listed(self) -> list[str]:
        return [symbol for symbol in self.symbols if symbol not in self.delisted]

    @staticmethod
    def _binance_row(symbol: str) -> dict[str, Any]:
        filters = [
            {"filterType": "PRICE_FILTER", "tickSize": "0.1"},
            {"filterType": "LOT_SIZE", "stepSize": "0.001", "minQty": "0.001"},
            {"filterType": "MIN_NOTIONAL", "notional": "5"},
        ]
        row = {"symbol": symbol, "contractType": "PERPETUAL", "status": "TRADING", "filters": filters}
        return row | {"baseAsset": symbol[:-4], "quoteAsset": "USDT"}

    @staticmethod
    def _bybit_row(symbol: str) -> dict[str, Any]:
        row = {"symbol": symbol, "contractType": "LinearPerpetual", "status": "Trading", "fundingInterval": 480}
        row |= {"baseCoin": symbol[:-4], "quoteCoin": "USDT", "priceFilter": {"tickSize": "0.1"}}
        return row | {"lotSizeFilter": {"qtyStep": "0.001", "minOrderQty": "0.001", "minNotionalValue": "5"}}

    # WebSocket

    async def serve(self, connection: ServerConnection) -> None:
        path = connection.request.path if connection.request is not None else ""
        topics = self.connections.setdefault(connection, set())
        with contextlib.suppress(ConnectionClosed):
            if "streams=" in path:
                await self._subscribe(connection, path.partition("streams=")[2].split("/"))
            async for message in connection:
                await self._on_request(connection, json.loads(message))
        topics.clear()
        self.connections.pop(connection, None)

    async def _on_request(self, connection: ServerConnection, request: dict[str, Any]) -> None:
        if connection in self.frozen:
            return
        if request.get("op") == "ping":
            if not self.mute_pongs:
                await connection.send(dump({"success": True, "ret_msg": "pong", "req_id": "", "op": "ping"}), text=True)
            return
        topics = request.get("params") or request.get("args") or []
        if request.get("op") == "subscribe" or request.get("method") == "SUBSCRIBE":
            ack = {"success": True, "ret_msg": "", "conn_id": "c", "req_id": request.get("req_id"), "op": "subscribe"}
            await connection.send(dump(ack if "op" in request else {"result": None, "id": request["id"]}), text=True)
            await self._subscribe(connection, topics)
        else:
            self.connections[connection] -= set(topics)
            ack = {"success": True, "ret_msg": "", "conn_id": "c", "req_id": request.get("req_id"), "op": "unsubscribe"}
            await connection.send(dump(ack if "op" in request else {"result": None, "id": request["id"]}), text=True)

    async def _subscribe(self, connection: ServerConnection, topics: list[str]) -> None:
        self.subscribed += topics
        if connection.request is not None and any(part in connection.request.path for part in self.silent):
            return
        for topic in topics:
            symbol = topic.rpartition(".")[2]
            if symbol.partition("@")[0].upper() not in self._listed():
                continue
            self.connections[connection].add(topic)  # before the snapshot, so that no update falls in between
            if topic.startswith("orderbook."):
                await self._send(connection, topic, [self.bybit_snapshot(symbol)])
            if topic.startswith("tickers."):
                await self._send(connection, topic, [self.bybit_ticker(symbol, "snapshot")])

    async def run(self) -> None:
        """Let the market go on."""
        while True:
            await asyncio.sleep(STEP_S)
            self.steps += 1
            for symbol in self.symbols:
                await self._step(symbol)

    async def _step(self, symbol: str) -> None:
        binance, bybit = self.books["binance", symbol], self.books["bybit", symbol]
        previous = binance.last_id
        changes = binance.step()
        name = symbol.lower()
        bids, asks = binance.top(20)
        await self._publish(
            f"{name}@depth20@100ms", self.binance_depth(f"{name}@depth20@100ms", previous, bids, asks, symbol)
        )
        await self._publish(
            f"{name}@depth@100ms", self.binance_depth(f"{name}@depth@100ms", previous, *changes, symbol)
        )
        await self._publish(f"orderbook.50.{symbol}", self.bybit_delta(symbol, *bybit.step()))
        if self.steps % 5 == 0:
            await self._publish(f"{name}@markPrice@1s", self.binance_mark_price(symbol))
            await self._publish(f"{name}@ticker", self.binance_ticker(symbol))
            await self._publish(f"tickers.{symbol}", self.bybit_ticker(symbol, "delta"))

    async def _publish(self, topic: str, frame: bytes) -> None:
        receivers = [connection for connection, topics in self.connections.items() if topic in topics]
        if receivers:
            frames = self.tamper(topic, [frame])
            for connection in receivers:
                await self._send_raw(connection, frames)

    async def _send(self, connection: ServerConnection, topic: str, frames: list[bytes]) -> None:
        await self._send_raw(connection, self.tamper(topic, frames))

    async def _send_raw(self, connection: ServerConnection, frames: list[bytes]) -> None:
        if connection in self.frozen:
            return
        with contextlib.suppress(ConnectionClosed):
            for frame in frames:
                await connection.send(frame, text=True)

    async def announce(self, topic: str, frame: bytes) -> None:
        """Send a frame out of turn to whoever has the topic."""
        for connection, topics in list(self.connections.items()):
            if topic in topics:
                await self._send_raw(connection, [frame])

    # Frames

    def binance_depth(self, stream: str, previous: int, bids: Ladder, asks: Ladder, symbol: str) -> bytes:
        last = self.books["binance", symbol].last_id
        data = {"e": "depthUpdate", "E": now_ms(), "T": now_ms(), "s": symbol, "U": previous + 1, "u": last}
        return dump({"stream": stream, "data": data | {"pu": previous, "b": text(bids), "a": text(asks), "st": 1}})

    def binance_mark_price(self, symbol: str) -> bytes:
        price = str(self.books["binance", symbol].base)
        data = {"e": "markPriceUpdate", "E": now_ms(), "s": symbol, "p": price, "i": price, "P": price, "ap": price}
        data |= {"r": self.funding_rate["binance"], "T": next_hour_ms(), "st": 1}
        return dump({"stream": f"{symbol.lower()}@markPrice@1s", "data": data})

    def binance_ticker(self, symbol: str) -> bytes:
        data = {"e": "24hrTicker", "E": now_ms(), "s": symbol, "c": "100", "v": "5", "q": str(500 + self.steps)}
        return dump({"stream": f"{symbol.lower()}@ticker", "data": data})

    def bybit_snapshot(self, symbol: str) -> bytes:
        book = self.books["bybit", symbol]
        return self._bybit_book(symbol, "snapshot", *book.top(50))

    def bybit_delta(self, symbol: str, bids: Ladder, asks: Ladder) -> bytes:
        return self._bybit_book(symbol, "delta", bids, asks)

    def _bybit_book(self, symbol: str, kind: str, bids: Ladder, asks: Ladder) -> bytes:
        book = self.books["bybit", symbol]
        data = {"s": symbol, "b": text(bids), "a": text(asks), "u": book.last_id, "seq": book.cross}
        return dump({"topic": f"orderbook.50.{symbol}", "type": kind, "ts": now_ms(), "data": data, "cts": now_ms()})

    def bybit_ticker(self, symbol: str, kind: str) -> bytes:
        data = {"symbol": symbol, "markPrice": str(self.books["bybit", symbol].base)}
        if kind == "snapshot":
            data |= {"fundingRate": self.funding_rate["bybit"], "nextFundingTime": str(next_hour_ms())}
            data |= {"fundingIntervalHour": "8", "indexPrice": "100", "lastPrice": "100", "volume24h": "5"}
            data |= {"turnover24h": "500", "openInterest": "7"}
        return dump({"topic": f"tickers.{symbol}", "type": kind, "data": data, "cs": 1, "ts": now_ms()})

    # Faults on connections

    def on(self, part: str) -> list[ServerConnection]:
        """Connections whose path contains the text."""
        return [c for c in self.connections if c.request is not None and part in c.request.path]

    def reset_in_mid_frame(self, part: str) -> None:
        """Half a frame, then a TCP reset."""
        for connection in self.on(part):
            whole = Frame(Opcode.TEXT, b'{"topic":"' + b"x" * 500).serialize(mask=False)
            connection.transport.write(whole[:100])
            connection.transport.abort()

    @staticmethod
    def framed(message: bytes) -> bytes:
        """A message as it goes over the wire, for writing many at once."""
        return Frame(Opcode.TEXT, message).serialize(mask=False)

    def freeze(self, part: str) -> None:
        """Half-open: the connection stays, nothing is sent or answered any more."""
        self.frozen |= set(self.on(part))


def respond(status: int, body: bytes, headers: dict[str, str] | None = None) -> Response:
    lines = Headers({"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})})
    return Response(status, "answer", lines, body)


def next_hour_ms() -> int:
    return (now_ms() // 3_600_000 + 1) * 3_600_000
