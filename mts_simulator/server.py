"""The HTTP shell: sockets to calls and back, faults carried out, requests logged.

What belongs here: everything that touches aiohttp for the services' REST side. What a service answers is
decided in its wire module; the control endpoint is in ``control``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import struct
from typing import TYPE_CHECKING

from aiohttp import web

from mts_simulator.errors import SimulatorError
from mts_simulator.request_log import LoggedRequest, RequestLog
from mts_simulator.wire import Call, Reply, Service

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mts_simulator.clock import Clock
    from mts_simulator.faults import Fault, FaultBook

_PAGE = "<!DOCTYPE html><html><title>Just a moment...</title><body>Checking your browser</body></html>"

_log = logging.getLogger(__name__)


class Shell:
    """All services in one handler.

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

    def routes(self) -> list[web.RouteDef]:
        """The routes to mount after all others: every path that is left."""
        return [web.route("*", "/{path:.*}", self._serve)]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        service = next((s for s in self._services if _below(s.mount, request.path)), None)
        if service is None:
            raise web.HTTPNotFound(text="no simulated service at this path\n")
        call = Call(
            path=request.path[len(service.mount) :] or "/",
            query=dict(request.query),
            headers={name.lower(): value for name, value in request.headers.items()},
            now_ms=self._clock.now_ms(),
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
        try:
            return service.answer(call)
        except SimulatorError as error:
            _log.error("%s", error)
            return Reply(f"{error}\n", 500, "text/plain")

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
