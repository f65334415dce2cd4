"""The WebSocket shell: the routes of both exchanges and their handshakes.

What belongs here: which address gets which session, refused handshakes, the list of connections. What happens on
an open connection is in ``stream_connection``.
"""

from __future__ import annotations

import itertools
from collections import deque
from typing import TYPE_CHECKING

from aiohttp import web

from mts_simulator.binance_streams import RETIRED, ROUTES, BinanceSession
from mts_simulator.bybit_streams import BybitSession
from mts_simulator.request_log import LoggedRequest
from mts_simulator.stream_connection import (
    BINANCE_RULES,
    BYBIT_RULES,
    Connection,
    ConnectionRules,
    StreamConnection,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mts_simulator.binance_streams import StreamSources
    from mts_simulator.clock import Clock
    from mts_simulator.request_log import RequestLog
    from mts_simulator.stream_faults import StreamFaultBook
    from mts_simulator.streams import Session
    from mts_simulator.wire import JsonObject

BINANCE_MOUNT = "/binance-ws"
BYBIT_MOUNT = "/bybit-ws"
BYBIT_PATH = "/v5/public/linear"

_KEPT_CONNECTIONS = 10_000


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
        self.connections: deque[StreamConnection] = deque(maxlen=_KEPT_CONNECTIONS)

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
        connection = Connection(
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


def describe(connections: Iterable[StreamConnection]) -> list[JsonObject]:
    """Connections as the control endpoint shows them."""
    return [dict(vars(connection)) for connection in connections]
