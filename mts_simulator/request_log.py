"""What clients asked for: the log of requests and WebSocket handshakes.

What belongs here: the log alone; ``server`` and ``stream_server`` write it, tests and ``control`` read it.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_KEPT = 200_000


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
    """The latest requests, oldest first. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: deque[LoggedRequest] = deque(maxlen=_KEPT)

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
