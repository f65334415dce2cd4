"""One WebSocket connection: frames to the socket, keep-alive rules, faults of the connection.

What belongs here: the reader, the writer and the rules of a connection that is open. Frames are written to the
transport as they are, many at once, so that high rates and half frames are possible. What is sent is decided in a
session; handshakes are in ``stream_server``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import deque
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from aiohttp import WSMsgType, web

from mts_simulator.errors import SimulatorError
from mts_simulator.server import reset_connection
from mts_simulator.stream_faults import StreamFault, spoiled

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mts_simulator.clock import Clock
    from mts_simulator.stream_faults import StreamFaultBook
    from mts_simulator.streams import Frame, Session

_TEXT, _CLOSE, _PING, _PONG = 0x1, 0x8, 0x9, 0xA
_FINAL = 0x80
_SHORT, _MEDIUM = 126, 1 << 16
_HIGH_WATER_BYTES = 1 << 18
_WAIT_FOR_CLIENT_S = 0.001
_LONGEST_WAIT_S = 1.0
_NORMAL, _GOING_AWAY, _POLICY_VIOLATION, _INTERNAL_ERROR = 1000, 1001, 1008, 1011

_log = logging.getLogger(__name__)


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


class Connection:
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
        self._moves = clock.moves
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
        except* SimulatorError as errors:
            _log.error("%s", errors.exceptions[0])
            await self._socket.close(code=_INTERNAL_ERROR)
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
        pause_s = min(until_s, self._next_rule_s(), _LONGEST_WAIT_S)
        if pause_s <= 0:
            await asyncio.sleep(0)
            return
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), pause_s)

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
        if self._clock.moves != self._moves:
            raise _EndConnectionError(_GOING_AWAY, "the simulated clock was set")
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
            case "drop":
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
