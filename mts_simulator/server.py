"""The HTTP shell: sockets to calls and back, faults carried out, requests logged, the control endpoint.

What belongs here: everything that touches aiohttp for REST. What a service answers is decided in its wire
module.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import struct
import threading
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from aiohttp import web

from mts_simulator.faults import Fault, FaultBook
from mts_simulator.wire import Call, Reply, Service

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mts_simulator.clock import Clock

_PAGE = "<!DOCTYPE html><html><title>Just a moment...</title><body>Checking your browser</body></html>"
_CONTROL = "/control"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoggedRequest:
    """One request as it arrived.

    Attributes:
        service: Name of the service.
        method: HTTP method.
        path: Path below the service's root.
        query: Query parameters.
        headers: Headers with lower-case names.
        time_ms: Simulated time of arrival.
        status: Status of the answer; 0 when a fault left none.
    """

    service: str
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    time_ms: int
    status: int


class RequestLog:
    """All requests so far, oldest first. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: list[LoggedRequest] = []

    def append(self, request: LoggedRequest) -> None:
        """Add a request."""
        with self._lock:
            self._all.append(request)

    def clear(self) -> None:
        """Forget all requests."""
        with self._lock:
            self._all.clear()

    def of(self, service: str, path: str = "") -> list[LoggedRequest]:
        """Requests to a service whose path starts with ``path``."""
        return [request for request in self if request.service == service and request.path.startswith(path)]

    def __iter__(self) -> Iterator[LoggedRequest]:
        with self._lock:
            return iter(list(self._all))

    def __len__(self) -> int:
        with self._lock:
            return len(self._all)


class Shell:
    """One aiohttp application with all services and the control endpoint.

    Args:
        services: What is mounted.
        clock: The simulated time.
        faults: Pending faults.
        requests: Where requests are logged.
    """

    def __init__(self, services: Iterable[Service], clock: Clock, faults: FaultBook, requests: RequestLog) -> None:
        self._services = sorted(services, key=lambda service: -len(service.mount))
        self._clock = clock
        self._faults = faults
        self._requests = requests

    def application(self) -> web.Application:
        """The application to serve."""
        app = web.Application()
        app.router.add_get(f"{_CONTROL}/health", self._health)
        app.router.add_get(f"{_CONTROL}/requests", self._logged)
        app.router.add_delete(f"{_CONTROL}/requests", self._forget_requests)
        app.router.add_get(f"{_CONTROL}/faults", self._list_faults)
        app.router.add_post(f"{_CONTROL}/faults", self._add_faults)
        app.router.add_delete(f"{_CONTROL}/faults", self._clear_faults)
        app.router.add_post(f"{_CONTROL}/clock", self._set_clock)
        app.router.add_route("*", "/{path:.*}", self._serve)
        return app

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        service = next((s for s in self._services if _below(s.mount, request.path)), None)
        if service is None:
            raise web.HTTPNotFound(text="no simulated service at this path\n")
        call = Call(
            path=request.path[len(service.mount) :] or "/",
            query=dict(request.query),
            headers={name.lower(): value for name, value in request.headers.items()},
            now_ms=self._clock.now_ms(),
            client=request.remote or "",
        )
        fault = self._faults.take(service.name, call.path)
        reply = self._answer(service, call, request.method, fault)
        self._log_request(service, call, request.method, fault, reply)
        if fault is None or fault.kind in ("status", "html"):
            return _response(reply)
        return await _spoil(request, fault, reply)

    def _answer(self, service: Service, call: Call, method: str, fault: Fault | None) -> Reply:
        if fault is not None and fault.kind == "status":
            headers = {} if fault.retry_after is None else {"Retry-After": fault.retry_after}
            return Reply(fault.body or json.dumps({"error": "simulated fault"}), fault.status, headers=headers)
        if fault is not None and fault.kind == "html":
            return Reply(fault.body or _PAGE, content_type="text/html")
        if method not in ("GET", "HEAD"):
            return Reply("method not allowed", 405, "text/plain")
        return service.answer(call)

    def _log_request(self, service: Service, call: Call, method: str, fault: Fault | None, reply: Reply) -> None:
        silent = fault is not None and fault.kind in ("timeout", "reset")
        self._requests.append(
            LoggedRequest(
                service=service.name,
                method=method,
                path=call.path,
                query=dict(call.query),
                headers=dict(call.headers),
                time_ms=call.now_ms,
                status=0 if silent else reply.status,
            )
        )

    async def _health(self, _request: web.Request) -> web.Response:
        names = [service.name for service in self._services]
        return web.json_response({"status": "ok", "now": self._clock.now().isoformat(), "services": names})

    async def _logged(self, _request: web.Request) -> web.Response:
        return web.json_response([asdict(request) for request in self._requests])

    async def _forget_requests(self, _request: web.Request) -> web.Response:
        self._requests.clear()
        return web.json_response({"requests": 0})

    async def _list_faults(self, _request: web.Request) -> web.Response:
        return web.json_response(self._faults.pending())

    async def _add_faults(self, request: web.Request) -> web.Response:
        try:
            value = await request.json()
            faults = [Fault.from_json(item) for item in (value if isinstance(value, list) else [value])]
        except (ValueError, TypeError) as error:
            return web.json_response({"error": str(error)}, status=400)
        for fault in faults:
            self._faults.add(fault)
        return web.json_response(self._faults.pending())

    async def _clear_faults(self, _request: web.Request) -> web.Response:
        self._faults.clear()
        return web.json_response([])

    async def _set_clock(self, request: web.Request) -> web.Response:
        try:
            moment = datetime.fromisoformat(str((await request.json())["now"]))
        except (ValueError, KeyError, TypeError) as error:
            return web.json_response({"error": f"send {{'now': '<ISO 8601 with offset>'}}: {error}"}, status=400)
        if moment.tzinfo is None:
            return web.json_response({"error": "the time needs an offset, such as +00:00"}, status=400)
        self._clock.set(moment)
        return web.json_response({"now": self._clock.now().isoformat()})


def _below(mount: str, path: str) -> bool:
    return path == mount or path.startswith(mount + "/")


def _response(reply: Reply) -> web.Response:
    return web.Response(
        text=reply.body,
        status=reply.status,
        content_type=reply.content_type,
        charset="utf-8",
        headers=reply.headers,
    )


async def _spoil(request: web.Request, fault: Fault, reply: Reply) -> web.StreamResponse:
    """Carry out a fault of the connection."""
    if fault.kind == "timeout":
        await asyncio.sleep(fault.delay_s)
        return _response(reply)
    if fault.kind == "reset":
        reset_connection(request)
        return web.Response()
    body = reply.body.encode()
    response = web.StreamResponse(status=reply.status, headers={**reply.headers, "Content-Type": reply.content_type})
    response.content_length = len(body)
    await response.prepare(request)
    if fault.kind == "truncate":
        await response.write(body[: len(body) // 2])
        if request.transport is not None:
            request.transport.close()
        return response
    for position in range(len(body)):
        await response.write(body[position : position + 1])
        await asyncio.sleep(fault.delay_s)
    return response


def reset_connection(request: web.Request) -> None:
    """End the connection with a TCP reset instead of an orderly close."""
    transport = request.transport
    if transport is None:
        return
    raw = transport.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
