"""A clock that never waits, and a server on loopback that answers from a script."""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from mts_dagster.settings import Settings
from mts_dagster.sources.http import Clock

MakeSettings = Callable[..., Settings]
START = datetime(2026, 11, 20, 12, 0, 30, tzinfo=UTC)


@dataclass
class FakeTime:
    """Time that passes only when someone sleeps."""

    now: float = START.timestamp()
    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        if seconds > 0:
            self.slept.append(seconds)
        self.now += seconds

    @property
    def clock(self) -> Clock:
        return Clock(now=lambda: self.now, sleep=self.sleep)


@dataclass(frozen=True)
class Seen:
    """A request as it arrived."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]


class ScriptedServer:
    """HTTP on loopback; answers in the order they were given, the last one again and again."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self._script: list[Callable[[BaseHTTPRequestHandler], None]] = []
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.handle(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
                """Stay silent."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """Stay silent about connections that the test spoiled."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        with self._lock:
            self.seen.append(Seen(parts.path, dict(parse_qsl(parts.query)), dict(handler.headers)))
            step = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        step(handler)

    def respond(self, reply: Callable[[Seen], object]) -> ScriptedServer:
        """Answer every request with the JSON that ``reply`` makes of it."""
        return self.respond_text(lambda seen: json.dumps(reply(seen)))

    def respond_text(self, reply: Callable[[Seen], str]) -> ScriptedServer:
        """Answer every request with the text that ``reply`` makes of it."""

        def step(handler: BaseHTTPRequestHandler) -> None:
            raw = reply(self.seen[-1]).encode()
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(raw)))
            handler.end_headers()
            handler.wfile.write(raw)

        self._script.append(step)
        return self

    def answer(self, body: object = b"", status: int = 200, **headers: str) -> ScriptedServer:
        """Answer; anything but bytes and text is sent as JSON."""
        raw = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()

        def step(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            for name, value in headers.items():
                handler.send_header(name.replace("_", "-"), value)
            handler.send_header("Content-Length", str(len(raw)))
            handler.end_headers()
            handler.wfile.write(raw)

        self._script.append(step)
        return self

    def truncate(self, body: bytes) -> ScriptedServer:
        """Promise the whole body and hang up after half of it."""

        def step(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body[: len(body) // 2])
            handler.close_connection = True

        self._script.append(step)
        return self

    def reset(self) -> ScriptedServer:
        """Reset the connection without an answer."""

        def step(handler: BaseHTTPRequestHandler) -> None:
            linger = struct.pack("ii", 1, 0)
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            os.close(handler.connection.detach())
            raise ConnectionAbortedError

        self._script.append(step)
        return self

    def stay_silent(self, released: threading.Event) -> ScriptedServer:
        """Answer nothing until the test lets go."""

        def step(handler: BaseHTTPRequestHandler) -> None:
            released.wait(30)
            handler.close_connection = True

        self._script.append(step)
        return self

    def forget(self) -> None:
        """Begin a new script."""
        self._script.clear()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
