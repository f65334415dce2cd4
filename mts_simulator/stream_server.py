"""The WebSocket shell: handshakes, frames to sockets, keep-alive rules, faults of the connection.

What belongs here: everything that touches aiohttp for WebSocket. Frames are written to the transport as
they are, many at once, so that high rates and half frames are possible. What is sent is decided in a
session.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import time
from collections import deque
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from aiohttp import WSMsgType, web

from mts_simulator.binance_streams import RETIRED, ROUTES, BinanceSession
from mts_simulator.bybit_streams import BybitSession
from mts_simulator.request_log import LoggedRequest
from mts_simulator.server import reset_connection
from mts_simulator.stream_faults import StreamFault, spoiled

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mts_simulator.binance_streams import StreamSources
    from mts_simulator.clock import Clock
    from mts_simulator.request_log import RequestLog
    from mts_simulator.stream_faults import StreamFaultBook
    from mts_simulator.streams import Frame, Session
    from mts_simulator.wire import JsonObject

BINANCE_MOUNT = "/binance-ws"
BYBIT_MOUNT = "/bybit-ws"
BYBIT_PATH = "/v5/public/linear"

_TEXT, _CLOSE, _PING, _PONG = 0x1, 0x8, 0x9, 0xA
_FINAL = 0x80
_SHORT, _MEDIUM = 126, 1 << 16
_HIGH_WATER_BYTES = 1 << 18
_WAIT_FOR_CLIENT_S = 0.001
_POLICY_VIOLATION, _NORMAL = 1008, 1000


@dataclass(frozen=True)
class ConnectionRules:
    """How an exchange treats a connection; None switches a rule off.

    Attributes:
        ping_every_s: Pause between the server's pings.
        pong_within_s: A client that answers no ping for this long is cut.
        lifetime_s: Age at which a connection is closed.
        messages_per_s: Most messages of the client in a second.
        idle_s: A client that sends nothing for this long is cut.
    """

    ping_every_s: float | None = None
    pong_within_s: float | None = None
    lifetime_s: float | None = None
    messages_per_s: int | None = None
    idle_s: float | None = None


BINANCE_RULES = ConnectionRules(ping_every_s=180.0, pong_within_s=600.0, lifetime_s=86_400.0, messages_per_s=10)
BYBIT_RULES = ConnectionRules(idle_s=600.0)


@dataclass
class StreamConnection:
    """What is known of one connection.

    Attributes:
        venue: ``binance`` or ``bybit``.
        path: Path below the exchange's root.
        opened_ms: Simulated time of the handshake.
        frames_sent: Data frames written.
        pings: Pings of the client, WebSocket or JSON.
        pongs: Pongs of the client.
        topics: What was subscribed when last looked at.
        open: Whether it is still there.
    """

    venue: str
    path: str
    opened_ms: int
    frames_sent: int = 0
    pings: int = 0
    pongs: int = 0
    topics: list[str] = field(default_factory=list)
    open: bool = True


class _EndConnectionError(Exception):
    """Raised inside a connection's tasks to end both; with a code, by a closing handshake."""

    def __init__(self, code: int | None = None, reason: str = "") -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class StreamShell:
    """The WebSocket routes of both exchanges.

    Args:
        binance: Makes Binance's sources.
        bybit: Makes Bybit's sources.
        clock: The simulated time.
        faults: Pending faults.
        requests: Where handshakes are logged, as services ``binance_ws`` and ``bybit_ws``.
        binance_rules: Binance's treatment of connections.
        bybit_rules: Bybit's.
    """

    def __init__(
        self,
        binance: StreamSources,
        bybit: StreamSources,
        clock: Clock,
        faults: StreamFaultBook,
        requests: RequestLog,
        *,
        binance_rules: ConnectionRules = BINANCE_RULES,
        bybit_rules: ConnectionRules = BYBIT_RULES,
    ) -> None:
        self._binance = binance
        self._bybit = bybit
        self._clock = clock
        self._faults = faults
        self._requests = requests
        self._binance_rules = binance_rules
        self._bybit_rules = bybit_rules
        self._numbers = itertools.count(1)
        self.connections: list[StreamConnection] = []

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        return [
            web.get(f"{BINANCE_MOUNT}/{{tail:.*}}", self._serve_binance),
            web.get(f"{BYBIT_MOUNT}{BYBIT_PATH}", self._serve_bybit),
        ]

    async def _serve_binance(self, request: web.Request) -> web.StreamResponse:
        parts = request.match_info["tail"].split("/")
        route = parts.pop(0) if parts[0] in ROUTES else RETIRED
        form, streams = parts[0] if parts else "", [part for part in parts[1:] if part]
        if form == "stream":
            streams = [name for name in request.query.get("streams", "").split("/") if name]
        elif form != "ws":
            raise web.HTTPNotFound
        now_ms = self._clock.now_ms()
        session = BinanceSession(self._binance.source(), route, streams, now_ms, combined=form == "stream")
        return await self._serve(request, "binance", session, self._binance_rules)

    async def _serve_bybit(self, request: web.Request) -> web.StreamResponse:
        session = BybitSession(self._bybit.source(), f"simulated-{next(self._numbers)}")
        return await self._serve(request, "bybit", session, self._bybit_rules)

    async def _serve(
        self, request: web.Request, venue: str, session: Session, rules: ConnectionRules
    ) -> web.StreamResponse:
        mount = BINANCE_MOUNT if venue == "binance" else BYBIT_MOUNT
        path = request.path.removeprefix(mount)
        fault = self._faults.take(venue, path, handshake=True)
        self._log(request, venue, path, 101 if fault is None else fault.status)
        if fault is not None:
            headers = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
            return web.Response(status=fault.status, text="refused\n", headers=headers)
        socket = web.WebSocketResponse(autoping=False, autoclose=False, compress=False, timeout=0.5)
        await socket.prepare(request)
        state = StreamConnection(venue, path, self._clock.now_ms())
        self.connections.append(state)
        connection = _Connection(
            request, socket, session, rules=rules, state=state, clock=self._clock, faults=self._faults
        )
        try:
            await connection.run()
        finally:
            state.open = False
        return socket

    def _log(self, request: web.Request, venue: str, path: str, status: int) -> None:
        self._requests.append(
            LoggedRequest(
                service=f"{venue}_ws",
                method="GET",
                path=path,
                query=dict(request.query),
                headers={name.lower(): value for name, value in request.headers.items()},
                time_ms=self._clock.now_ms(),
                status=status,
            )
        )


class _Connection:
    """One open connection: a reader, a writer, and the rules."""

    def __init__(
        self,
        request: web.Request,
        socket: web.WebSocketResponse,
        session: Session,
        *,
        rules: ConnectionRules,
        state: StreamConnection,
        clock: Clock,
        faults: StreamFaultBook,
    ) -> None:
        self._request = request
        self._socket = socket
        self._session = session
        self._rules = rules
        self._state = state
        self._clock = clock
        self._faults = faults
        self._changed = asyncio.Event()
        self._opened_s = time.monotonic()
        self._heard_s = self._opened_s
        self._pinged_s = self._opened_s
        self._ponged_s = self._opened_s
        self._received: deque[float] = deque()
        self._silent: set[str] = set()
        self._swapped: dict[str, str] = {}
        self._held: list[str] = []
        self._hold_until_s = 0.0
        self._hold_pattern = ""
        self._deaf = False

    async def run(self) -> None:
        """Serve until either side ends it."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read())
                tasks.create_task(self._write())
        except* _EndConnectionError as ends:
            end = ends.exceptions[0]
            if isinstance(end, _EndConnectionError) and end.code is not None:
                await self._socket.close(code=end.code, message=end.reason.encode())

    async def _read(self) -> None:
        while True:
            message = await self._socket.receive()
            self._heard_s = time.monotonic()
            match message.type:
                case WSMsgType.CLOSE if self._deaf:
                    await asyncio.Event().wait()
                case WSMsgType.TEXT | WSMsgType.PING | WSMsgType.PONG if self._deaf:
                    continue
                case WSMsgType.TEXT:
                    self._count_message()
                    self._answer(str(message.data))
                case WSMsgType.PING:
                    self._count_message()
                    self._state.pings += 1
                    self._put(encode(message.data, _PONG))
                case WSMsgType.PONG:
                    self._count_message()
                    self._state.pongs += 1
                    self._ponged_s = self._heard_s
                case WSMsgType.CLOSE:
                    raise _EndConnectionError(int(message.data or _NORMAL))
                case _:
                    raise _EndConnectionError

    def _answer(self, text: str) -> None:
        if '"ping"' in text:
            self._state.pings += 1
        for answer in self._session.receive(text, self._clock.now_ms()):
            self._put(encode(answer.encode()))
        self._state.topics = self._session.topics()
        self._changed.set()

    def _count_message(self) -> None:
        """Cut a client that sends more messages in a second than the exchange allows."""
        most = self._rules.messages_per_s
        if most is None:
            return
        self._received.append(self._heard_s)
        while self._received[0] <= self._heard_s - 1.0:
            self._received.popleft()
        if len(self._received) > most:
            raise _EndConnectionError(_POLICY_VIOLATION, "Too many requests")

    async def _write(self) -> None:
        self._state.topics = self._session.topics()
        while True:
            self._keep_rules()
            now_ms = self._clock.now_ms()
            frames = self._session.pop(now_ms)
            if self._held or self._swapped or self._silent or len(self._faults):
                texts = await self._through_faults(frames)
            else:
                texts = [frame.text for frame in frames]
            if texts:
                self._state.frames_sent += len(texts)
                self._put(b"".join([encode(text.encode()) for text in texts]))
                await self._drained()
            await self._wait(now_ms)

    async def _wait(self, now_ms: int) -> None:
        """Until the next frame is due, a rule wants attention, or the subscriptions change."""
        until_s = (self._session.next_ms() - now_ms) / 1000
        if self._held:
            until_s = min(until_s, self._hold_until_s - time.monotonic())
        pause_s = min(until_s, self._next_rule_s())
        if pause_s <= 0:
            await asyncio.sleep(0)
            return
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), None if math.isinf(pause_s) else pause_s)

    async def _drained(self) -> None:
        """Wait for a client that reads slower than frames come (a transport tells nobody when it has)."""
        transport = self._request.transport
        while transport is not None and transport.get_write_buffer_size() > _HIGH_WATER_BYTES:  # noqa: ASYNC110
            await asyncio.sleep(_WAIT_FOR_CLIENT_S)

    def _put(self, data: bytes) -> None:
        transport = self._request.transport
        if transport is None or transport.is_closing():
            raise _EndConnectionError
        transport.write(data)

    # The exchange's rules

    def _next_rule_s(self) -> float:
        """Seconds until the next ping or cut."""
        now_s = time.monotonic()
        moments = [
            since + limit
            for since, limit in (
                (self._pinged_s, self._rules.ping_every_s),
                (self._ponged_s, self._rules.pong_within_s),
                (self._opened_s, self._rules.lifetime_s),
                (self._heard_s, self._rules.idle_s),
            )
            if limit is not None
        ]
        return max(min(moments, default=math.inf) - now_s, _WAIT_FOR_CLIENT_S)

    def _keep_rules(self) -> None:
        rules, now_s = self._rules, time.monotonic()
        if rules.lifetime_s is not None and now_s >= self._opened_s + rules.lifetime_s:
            raise _EndConnectionError(_NORMAL)
        if rules.idle_s is not None and now_s >= self._heard_s + rules.idle_s:
            raise _EndConnectionError(_NORMAL)
        if rules.pong_within_s is not None and now_s >= self._ponged_s + rules.pong_within_s:
            raise _EndConnectionError(_POLICY_VIOLATION, "Pong timeout")
        if rules.ping_every_s is not None and now_s >= self._pinged_s + rules.ping_every_s:
            self._pinged_s = now_s
            self._put(encode(str(self._clock.now_ms()).encode(), _PING))

    # Faults

    async def _through_faults(self, frames: Iterable[Frame]) -> list[str]:
        """The texts to send in place of ``frames``; ends the connection if a fault says so."""
        texts: list[str] = []
        if self._held and time.monotonic() >= self._hold_until_s:
            texts, self._held = self._held, []
        for frame in frames:
            fault = self._faults.take(self._state.venue, frame.topic)
            if fault is not None and fault.kind in ("reset", "close", "slow_close", "half_open"):
                await self._end(fault, frame, texts)
            if fault is not None and fault.kind == "silence":
                self._silent.add(frame.topic)
            if frame.topic in self._silent:
                continue
            if fault is not None and fault.kind == "burst":
                self._hold_until_s = time.monotonic() + fault.hold_s
                self._hold_pattern = fault.topic
                self._held.append(frame.text)
                continue
            sent = self._replaced(fault, frame)
            if self._held and fnmatchcase(frame.topic, self._hold_pattern):
                self._held += sent
            else:
                texts += sent
        return texts

    def _replaced(self, fault: StreamFault | None, frame: Frame) -> list[str]:
        """What is sent in place of one frame."""
        after = [self._swapped.pop(frame.topic)] if frame.topic in self._swapped else []
        if fault is None:
            return [frame.text, *after]
        match fault.kind:
            case "skip":
                return after
            case "duplicate":
                return [frame.text, frame.text, *after]
            case "swap":
                self._swapped[frame.topic] = frame.text
                return after
            case "restart":
                self._session.restart(frame.topic)
                return after
        return [spoiled(fault, frame.text), *after]

    async def _end(self, fault: StreamFault, frame: Frame, before: list[str]) -> None:
        """Send what came before, then spoil the connection itself."""
        self._put(b"".join([encode(text.encode()) for text in before]))
        if fault.kind == "close":
            raise _EndConnectionError(fault.code, "simulated")
        if fault.kind == "reset":
            whole = encode(frame.text.encode())
            self._put(whole[: len(whole) // 2])
            # The half frame has to leave before the reset, which discards what waits; no event tells when.
            transport = self._request.transport
            while transport is not None and transport.get_write_buffer_size():  # noqa: ASYNC110
                await asyncio.sleep(_WAIT_FOR_CLIENT_S)
        else:
            if fault.kind == "slow_close":
                self._put(encode(fault.code.to_bytes(2, "big"), _CLOSE))
            self._deaf = True
            await asyncio.sleep(fault.hold_s)
        reset_connection(self._request)
        raise _EndConnectionError


def encode(payload: bytes, opcode: int = _TEXT) -> bytes:
    """A whole, unmasked WebSocket frame (RFC 6455)."""
    size = len(payload)
    if size < _SHORT:
        return bytes((_FINAL | opcode, size)) + payload
    if size < _MEDIUM:
        return bytes((_FINAL | opcode, _SHORT)) + size.to_bytes(2, "big") + payload
    return bytes((_FINAL | opcode, _SHORT + 1)) + size.to_bytes(8, "big") + payload


def describe(connections: Iterable[StreamConnection]) -> list[JsonObject]:
    """Connections as the control endpoint shows them."""
    return [dict(vars(connection)) for connection in connections]
