"""One WebSocket connection to an exchange: open, subscribe, keep alive, carry out orders, end.

What belongs here: everything that touches a socket of an exchange. When to connect again, and the overlap of old
and new connections, is the ``supervisor``'s business; what frames mean is the ``pipeline``'s.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Opcode

from mts_realtime.errors import ExchangeError, RealtimeError
from mts_realtime.sessions import OrderKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from websockets.protocol import Event

    from mts_realtime.exchanges.base import ConnectionPlan, Exchange
    from mts_realtime.sessions import Session
    from mts_realtime.shell import Shell

log = logging.getLogger(__name__)

_TEXT, _BINARY, _CONT = Opcode.TEXT, Opcode.BINARY, Opcode.CONT
_ORDER_PAUSE_S = 0.1


class FrameConnection(ClientConnection):
    """A client connection that hands over each message while the socket is being read.

    ``recv`` would queue every message and wake a task for it, which costs as much as reading it. Receipt time is
    taken once for all messages that arrive in one piece.
    """

    on_message: Callable[[bytes, int], None]
    now_ns: Callable[[], int]
    _received_ns = 0
    _parts: list[bytes] | None = None

    def data_received(self, data: bytes) -> None:
        """Note when the bytes came, then let the protocol take them apart."""
        self._received_ns = self.now_ns()
        super().data_received(data)

    def process_event(self, event: Event) -> None:
        """Pass messages on; everything else (handshake, ping, close) is the library's."""
        if self.response is None:
            super().process_event(event)
            return
        opcode = event.opcode  # type: ignore[union-attr]
        if opcode is _TEXT or opcode is _BINARY:
            if event.fin:  # type: ignore[union-attr]
                self.on_message(bytes(event.data), self._received_ns)  # type: ignore[union-attr]
            else:
                self._parts = [bytes(event.data)]  # type: ignore[union-attr]
        elif opcode is _CONT and self._parts is not None:
            self._parts.append(bytes(event.data))  # type: ignore[union-attr]
            if event.fin:  # type: ignore[union-attr]
                message, self._parts = b"".join(self._parts), None
                self.on_message(message, self._received_ns)
        else:
            super().process_event(event)


class ConnectionOverError(RealtimeError):
    """The connection has to end: the exchange closed it, or it is of no use any more."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Link:
    """The life of one connection.

    Attributes:
        plan: Where it leads and what it carries.
        session: The pipeline's view of it, once it is open.
        opened: Set when it is open, or when it ended before.
        ended: Set when it is over.
        failure: Why it ended; ``None`` after an orderly end.
    """

    def __init__(self, shell: Shell, exchange: Exchange, plan: ConnectionPlan) -> None:
        self._shell = shell
        self._exchange = exchange
        self.plan = plan
        self.session: Session | None = None
        self.opened = asyncio.Event()
        self.ended = asyncio.Event()
        self.failure: Exception | None = None
        self._early: list[tuple[bytes, int]] = []
        self._orders = asyncio.Event()
        self._stop = asyncio.Event()
        self._requests = 0

    async def run(self) -> None:
        """Live until the connection ends, for whatever reason; the reason is kept, not raised."""
        try:
            await self._live()
        except Exception as error:  # noqa: BLE001 - any failure of one connection ends in a reconnect, never in a crash
            self.failure = _reason(error)
        finally:
            self.ended.set()
            self.opened.set()

    def stop(self) -> None:
        """Ask for an orderly end."""
        self._stop.set()

    async def _live(self) -> None:
        websocket = await self._connect()
        shell = self._shell
        at_ns = shell.clock.now_ns()
        self.session = session = shell.open_session(self.plan, at_ns)
        session.wake = self._orders.set
        for raw, received_ns in self._early:
            shell.inbox.push(session, raw, max(received_ns, at_ns))
        self._early.clear()
        self.opened.set()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._serve(websocket, session, group))
                group.create_task(self._wait_closed(websocket))
                group.create_task(self._wait_stopped())
                group.create_task(self._keep_alive(websocket, session))
        except* ConnectionOverError:
            if not self._stop.is_set():
                raise
        finally:
            session.closed = True
            shell.close_session(session, shell.clock.now_ns())
            await self._close(websocket)

    async def _connect(self) -> FrameConnection:
        shell, settings = self._shell, self._shell.settings

        def create(*arguments: Any, **options: Any) -> FrameConnection:  # noqa: ANN401 - the library's signature
            connection = FrameConnection(*arguments, **options)
            connection.now_ns = shell.clock.now_ns
            connection.on_message = self._on_message
            return connection

        await shell.connection_permit(self._exchange)
        try:
            websocket = await connect(
                self.plan.url,
                create_connection=create,  # type: ignore[arg-type]
                compression=None,
                open_timeout=settings.open_timeout_s,
                close_timeout=settings.close_timeout_s,
                ping_interval=None,  # the exchange pings; half-open connections are found by their silence
                max_size=settings.frame_max_bytes,
            )
        except InvalidStatus as error:
            response = error.response
            refused = self._exchange.classify(
                response.status_code, response.headers, bytes(response.body or b""), shell.clock.now_ns() // 1_000_000
            )
            if refused is None:
                raise
            raise refused.error(self._exchange.name) from error
        return websocket  # type: ignore[return-value]

    def _on_message(self, raw: bytes, received_ns: int) -> None:
        if self.session is None:
            self._early.append((raw, received_ns))
        else:
            self._shell.inbox.push(self.session, raw, received_ns)

    async def _serve(self, websocket: FrameConnection, session: Session, group: asyncio.TaskGroup) -> None:
        """Subscribe, then carry out what the pipeline orders."""
        topics = [subscription.topic for subscription in self.plan.subscriptions[self.plan.in_url :]]
        await self._send(websocket, self._exchange.subscribe(topics, self._next_request()))
        while True:
            await self._orders.wait()
            await asyncio.sleep(_ORDER_PAUSE_S)  # orders come in swarms; one message can carry many
            self._orders.clear()
            orders, session.orders = session.orders, []
            again = []
            for order in orders:
                if order.kind is OrderKind.RECONNECT:
                    raise ConnectionOverError(order.reason)
                if order.kind is OrderKind.SNAPSHOT:
                    group.create_task(self._fetch_snapshot(session, order.topic))
                else:
                    again.append(order.topic)
            if again:
                await self._send(websocket, self._exchange.unsubscribe(again, self._next_request()))
                await self._send(websocket, self._exchange.subscribe(again, self._next_request()))

    def _next_request(self) -> int:
        self._requests += 100  # an exchange may number several messages of one request upwards
        return self._requests

    async def _send(self, websocket: FrameConnection, messages: list[str]) -> None:
        for message in messages:
            await websocket.send(message)
            await asyncio.sleep(1.0 / self._exchange.messages_per_s)

    async def _fetch_snapshot(self, session: Session, topic: str) -> None:
        call = self._exchange.snapshot_call(topic)
        if call is None:
            return
        try:
            body = await self._shell.rest.get(self._exchange, call)
        except ExchangeError as error:
            # The pipeline asks again for a topic that does not become live, more slowly each time.
            log.warning(
                "snapshot failed", extra={"exchange": self._exchange.name, "topic": topic, "problem": str(error)}
            )
            return
        if not session.closed:
            self._shell.snapshot(session, topic, body, self._shell.clock.now_ns())

    async def _keep_alive(self, websocket: FrameConnection, session: Session) -> None:
        """Ping inside the data protocol where the exchange wants it, and insist on the answer."""
        keep = self._exchange.keep_alive()
        if keep is None:
            return
        while True:
            await asyncio.sleep(keep.interval_s)
            sent_ns = self._shell.clock.now_ns()
            await websocket.send(keep.message)
            await asyncio.sleep(keep.timeout_s)
            if session.pong_ns < sent_ns and session.heard_ns < sent_ns:
                raise ConnectionOverError("ping not answered")

    @staticmethod
    async def _wait_closed(websocket: FrameConnection) -> None:
        await websocket.wait_closed()
        code, reason = websocket.close_code, websocket.close_reason
        raise ConnectionOverError(f"closed by the exchange ({code} {reason or ''})".replace(" )", ")"))

    async def _wait_stopped(self) -> None:
        await self._stop.wait()
        raise ConnectionOverError("stopped")

    async def _close(self, websocket: FrameConnection) -> None:
        """Close politely when there is somebody to be polite to, and never wait long."""
        if not self._stop.is_set():
            websocket.transport.abort()
        try:
            async with asyncio.timeout(self._shell.settings.close_timeout_s):
                await websocket.close()
        except (TimeoutError, ConnectionClosed, OSError):
            websocket.transport.abort()


def _reason(error: Exception) -> Exception:
    """The first cause inside a task group's bundle."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
