"""The live feed for others: a local WebSocket, health and metrics over HTTP.

What belongs here: the server, its clients, and their bounded buffers. What the messages say is ``messages``'s.

    ws://host:port/stream?channels=books,signals&symbols=BTCUSDT,ETHUSDT      both optional; default: everything
    http://host:port/health        JSON; 503 while no topic is live
    http://host:port/metrics       Prometheus

A slow client loses nothing but its place in time: of books, spreads and funding it gets the latest of each; signals
and opportunities wait in a queue, and when that overflows the client is told how many it missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import WSCloseCode, web

from mts_realtime.errors import BookError, SettingsError
from mts_realtime.messages import (
    CHANNELS,
    CONFLATED,
    Message,
    book_message,
    funding_message,
    opportunity_message,
    signal_message,
    spread_message,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from mts_realtime.analytics.opportunities import Change, Opportunity
    from mts_realtime.analytics.signals import Signal
    from mts_realtime.detector import Market
    from mts_realtime.pipeline import Pipeline
    from mts_realtime.settings import RealtimeSettings

log = logging.getLogger(__name__)

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_HEARTBEAT_S = 20.0


class Outlet:
    """The bounded buffer of one receiver.

    Attributes:
        channels: What it wants.
        symbols: Which instruments; empty means all.
        missed: Queued messages that it lost since it was last told.
        missed_total: All of them.
    """

    def __init__(self, channels: frozenset[str], symbols: frozenset[str], limit: int) -> None:
        self.channels = channels
        self.symbols = symbols
        self.missed = 0
        self.missed_total = 0
        self._latest: dict[tuple[str, str], Message] = {}
        self._queue: deque[Message] = deque()
        self._limit = limit
        self._ready = asyncio.Event()

    def wants(self, channel: str, symbol: str) -> bool:
        """Whether the receiver asked for this."""
        return channel in self.channels and (not self.symbols or symbol in self.symbols)

    def put(self, message: Message) -> None:
        """Buffer a message that is wanted."""
        if message.channel in CONFLATED:
            self._latest[message.channel, message.key] = message
        else:
            if len(self._queue) >= self._limit:
                self._queue.popleft()
                self.missed += 1
                self.missed_total += 1
            self._queue.append(message)
        self._ready.set()

    async def take(self) -> list[Message]:
        """Wait for messages and take all of them: queued ones first, in order."""
        await self._ready.wait()
        self._ready.clear()
        messages = [*self._queue, *self._latest.values()]
        self._queue.clear()
        self._latest.clear()
        return messages


class Feed:
    """Turns live state into messages for all outlets, and serves them.

    Attributes:
        outlets: Receivers, the Redis sink among them.
        port: Port in use once the server runs.
    """

    def __init__(
        self,
        settings: RealtimeSettings,
        pipeline: Pipeline,
        health: Callable[[], dict[str, Any]],
        metrics: Callable[[], bytes],
    ) -> None:
        self._settings = settings
        self._pipeline = pipeline
        self._health = health
        self._metrics = metrics
        self.outlets: set[Outlet] = set()
        self.port = 0
        self.missed_by_gone = 0
        self._websockets: set[web.WebSocketResponse] = set()
        pipeline.on_signal.append(self.on_signal)
        pipeline.on_opportunity.append(self.on_opportunity)
        pipeline.on_funding.append(self.on_funding)

    def on_signal(self, signal: Signal) -> None:
        """Pass a signal on at once."""
        if self.outlets:
            self._spread(signal_message(signal))

    def on_opportunity(self, change: Change, opportunity: Opportunity) -> None:
        """Pass the change of an opportunity on at once."""
        if self.outlets:
            self._spread(opportunity_message(change, opportunity))

    def on_funding(self, market: Market) -> None:
        """Pass new funding on."""
        if self.outlets:
            self._spread(funding_message(market))

    def _spread(self, message: Message) -> None:
        for outlet in self.outlets:
            if outlet.wants(message.channel, message.symbol):
                outlet.put(message)

    async def run(self) -> None:
        """Publish changed books at the configured pace until cancelled."""
        while True:
            await asyncio.sleep(self._settings.feed_interval_ms / 1000.0)
            self.publish_changed()

    def publish_changed(self) -> None:
        """Publish every book that changed since the last time, to whoever wants it."""
        changed, self._pipeline.changed = self._pipeline.changed, {}
        outlets = list(self.outlets)
        if outlets:
            for topic in changed:
                self._publish(topic.market, outlets)

    def _publish(self, market: Market, outlets: list[Outlet]) -> None:
        book, symbol = market.book, market.instrument.symbol
        for_books = [outlet for outlet in outlets if outlet.wants("books", symbol)]
        for_spreads = [outlet for outlet in outlets if outlet.wants("spreads", symbol)]
        if book is None or not (for_books or for_spreads):
            return
        try:
            bids, asks = book.checked_top(self._settings.sample_levels)
        except BookError:
            return  # the pipeline meets the same book at its next grid time and deals with it
        if for_books:
            message = book_message(market, bids, asks)
            for outlet in for_books:
                outlet.put(message)
        if for_spreads and bids and asks:
            message = spread_message(market, bids, asks)
            for outlet in for_spreads:
                outlet.put(message)

    def attach(self, outlet: Outlet) -> None:
        """A receiver joins; it gets the present state first."""
        self.outlets.add(outlet)
        for market in self._pipeline.detector.markets.values():
            self._publish(market, [outlet])
            if market.funding is not None and outlet.wants("funding", market.instrument.symbol):
                outlet.put(funding_message(market))

    def detach(self, outlet: Outlet) -> None:
        """A receiver leaves."""
        self.outlets.discard(outlet)
        self.missed_by_gone += outlet.missed_total

    # Server

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serve while the context is open.

        Raises:
            SettingsError: When the port is taken.
        """
        app = web.Application()
        app.router.add_get("/health", self._serve_health)
        app.router.add_get("/metrics", self._serve_metrics)
        app.router.add_get("/stream", self._serve_stream)
        app.on_shutdown.append(self._close_websockets)
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
        await runner.setup()
        try:
            host, port = self._settings.feed_host, self._settings.feed_port
            try:
                await web.TCPSite(runner, host, port).start()
            except OSError as error:
                raise SettingsError(f"setting MTS_FEED_PORT: {host}:{port} cannot be used: {error.strerror}") from error
            self.port = runner.addresses[0][1]
            yield
        finally:
            await runner.cleanup()

    async def _serve_health(self, _request: web.Request) -> web.Response:
        report = self._health()
        status = 503 if report["status"] == "down" else 200
        return web.Response(body=msgspec.json.encode(report), content_type="application/json", status=status)

    async def _serve_metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._metrics(), headers={"Content-Type": _METRICS_TYPE})

    async def _serve_stream(self, request: web.Request) -> web.StreamResponse:
        channels = frozenset(_names(request, "channels")) or frozenset(CHANNELS)
        unknown = channels - frozenset(CHANNELS)
        if unknown:
            raise web.HTTPBadRequest(text=f"unknown channels {sorted(unknown)}; there are {list(CHANNELS)}\n")
        symbols = frozenset(name.upper() for name in _names(request, "symbols"))
        outlet = Outlet(channels, symbols, self._settings.feed_buffer_messages)
        websocket = web.WebSocketResponse(heartbeat=_HEARTBEAT_S)
        await websocket.prepare(request)
        hello = {"type": "hello", "channels": sorted(channels), "symbols": sorted(symbols)}
        await websocket.send_str(msgspec.json.encode(hello).decode())
        self.attach(outlet)
        self._websockets.add(websocket)
        try:
            async with asyncio.TaskGroup() as group:
                sender = group.create_task(_send(websocket, outlet))
                async for _ in websocket:
                    pass  # clients have nothing to say; reading notices when they leave
                sender.cancel()
        except* ConnectionError:
            pass  # the client left in the middle of a message
        finally:
            self._websockets.discard(websocket)
            self.detach(outlet)
        return websocket

    async def _close_websockets(self, _app: web.Application) -> None:
        for websocket in list(self._websockets):
            await websocket.close(code=WSCloseCode.GOING_AWAY, message=b"the sidecar stops")


async def _send(websocket: web.WebSocketResponse, outlet: Outlet) -> None:
    while True:
        messages = await outlet.take()
        if outlet.missed:
            missed, outlet.missed = outlet.missed, 0
            await websocket.send_str(f'{{"type":"missed","count":{missed}}}')
        for message in messages:
            await websocket.send_str(message.content.decode())


def _names(request: web.Request, parameter: str) -> list[str]:
    return [name.strip() for name in request.query.get(parameter, "").split(",") if name.strip()]
