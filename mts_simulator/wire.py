"""What a service is given and what it answers: plain values, no socket.

What belongs here: the request and reply every wire module works with. The HTTP shell turns sockets into
these.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

JsonObject = dict[str, Any]
"""A JSON object in a service's own spelling."""


@dataclass(frozen=True)
class Call:
    """One request to a service.

    Attributes:
        path: Path below the service's root, such as ``/coins/markets``.
        query: Query parameters; of a repeated one, the last.
        headers: Headers with lower-case names.
        now_ms: The simulated time at which it arrived.
    """

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    now_ms: int


@dataclass(frozen=True)
class Reply:
    """One answer of a service."""

    body: str
    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


class Service(Protocol):
    """A simulated service: its name, where it is mounted, and how it answers."""

    name: str
    mount: str

    def answer(self, call: Call) -> Reply:
        """The reply to one request."""


def json_reply(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    """A reply whose body is ``value`` in compact JSON."""
    return Reply(json.dumps(value, separators=(",", ":"), ensure_ascii=False), status, headers=headers or {})
