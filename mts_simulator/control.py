"""The control endpoint: faults, logs and the clock over HTTP, for tests in other processes.

What belongs here: ``/control/...`` and nothing that a real service would answer.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Generic

from aiohttp import web

from mts_simulator.faults import F, Fault, FaultBook, PendingFaults, from_json
from mts_simulator.stream_faults import StreamFault, StreamFaultBook
from mts_simulator.stream_server import describe

if TYPE_CHECKING:
    from mts_simulator.clock import Clock
    from mts_simulator.request_log import RequestLog
    from mts_simulator.stream_server import StreamShell

_ROOT = "/control"


class Control:
    """The endpoint.

    Args:
        clock: The simulated time.
        faults: Pending HTTP faults.
        stream_faults: Pending WebSocket faults.
        requests: The log of requests.
        streams: The WebSocket shell.
    """

    def __init__(
        self,
        clock: Clock,
        faults: FaultBook,
        stream_faults: StreamFaultBook,
        requests: RequestLog,
        streams: StreamShell,
    ) -> None:
        self._clock = clock
        self._requests = requests
        self._streams = streams
        self._http_faults = _FaultRoutes(faults, Fault)
        self._stream_faults = _FaultRoutes(stream_faults, StreamFault)

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount."""
        return [
            web.get(f"{_ROOT}/health", self._health),
            web.get(f"{_ROOT}/requests", self._logged),
            web.delete(f"{_ROOT}/requests", self._forget_requests),
            web.get(f"{_ROOT}/streams", self._connections),
            web.post(f"{_ROOT}/clock", self._set_clock),
            *self._http_faults.routes(f"{_ROOT}/faults"),
            *self._stream_faults.routes(f"{_ROOT}/stream-faults"),
        ]

    async def _health(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "now": self._clock.now().isoformat()})

    async def _logged(self, _request: web.Request) -> web.Response:
        return web.json_response([asdict(request) for request in self._requests])

    async def _forget_requests(self, _request: web.Request) -> web.Response:
        self._requests.clear()
        return web.json_response([])

    async def _connections(self, _request: web.Request) -> web.Response:
        return web.json_response(describe(list(self._streams.connections)))

    async def _set_clock(self, request: web.Request) -> web.Response:
        try:
            moment = datetime.fromisoformat(str((await request.json())["now"]))
        except (ValueError, KeyError, TypeError) as error:
            return _refused(f"send {{'now': '<ISO 8601 with offset>'}}: {error}")
        if moment.tzinfo is None:
            return _refused("the time needs an offset, such as +00:00")
        self._clock.set(moment)
        return web.json_response({"now": self._clock.now().isoformat()})


class _FaultRoutes(Generic[F]):
    """List, add and clear one book of faults."""

    def __init__(self, book: PendingFaults[F], kind: type[F]) -> None:
        self._book = book
        self._kind = kind

    def routes(self, path: str) -> list[web.RouteDef]:
        return [web.get(path, self._list), web.post(path, self._add), web.delete(path, self._clear)]

    async def _list(self, _request: web.Request) -> web.Response:
        return web.json_response(self._book.pending())

    async def _add(self, request: web.Request) -> web.Response:
        try:
            value = await request.json()
            faults = [from_json(self._kind, item) for item in (value if isinstance(value, list) else [value])]
        except ValueError as error:
            return _refused(str(error))
        for fault in faults:
            self._book.add(fault)
        return web.json_response(self._book.pending())

    async def _clear(self, _request: web.Request) -> web.Response:
        self._book.clear()
        return web.json_response([])


def _refused(reason: str) -> web.Response:
    return web.json_response({"error": reason}, status=400)
