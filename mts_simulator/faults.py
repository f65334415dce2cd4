"""HTTP faults on demand: which requests are spoiled, how, and how often.

What belongs here: the description of a fault and the book of pending ones. ``server`` carries them out;
faults of the WebSocket side are in ``stream_faults``.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from mts_simulator.wire import JsonObject

FaultKind = Literal["status", "timeout", "reset", "html", "truncate", "drip"]
KINDS: tuple[str, ...] = get_args(FaultKind)


@dataclass(frozen=True)
class Fault:
    """What to do to matching requests.

    Attributes:
        kind: ``status`` answers with ``status``; ``timeout`` stays silent for ``delay_s``, then answers;
            ``reset`` resets the connection; ``html`` answers 200 with a web page; ``truncate`` announces the
            whole body and cuts the connection after half of it; ``drip`` sends the body a byte at a time,
            ``delay_s`` apart.
        service: ``coingecko``, ``coingecko_pro``, ``fred``, ``binance``, ``bybit``, or ``*``.
        path: Shell pattern of the path below the service's root, such as ``/coins/*``.
        status: HTTP status of kind ``status``.
        retry_after: ``Retry-After`` header of kind ``status``.
        body: Body of kinds ``status`` and ``html``; a fitting one when empty.
        delay_s: Seconds of kinds ``timeout`` and ``drip``.
        times: How many requests are spoiled; None for all.
        skip: How many matching requests pass first.
    """

    kind: FaultKind
    service: str = "*"
    path: str = "*"
    status: int = 503
    retry_after: str | None = None
    body: str = ""
    delay_s: float = 3600.0
    times: int | None = 1
    skip: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown fault kind {self.kind!r}, use one of {', '.join(KINDS)}")

    @classmethod
    def from_json(cls, value: object) -> Fault:
        """A fault from the control endpoint.

        Raises:
            ValueError: When ``value`` is not an object with known members of the right kind.
        """
        if not isinstance(value, Mapping):
            raise ValueError("a fault is a JSON object")  # noqa: TRY004  the caller answers 400 to ValueError
        unknown = set(value) - {field.name for field in fields(cls)}
        if unknown or "kind" not in value:
            raise ValueError(f"a fault needs 'kind'; unknown members: {', '.join(sorted(unknown)) or 'none'}")
        return cls(**value)


class FaultBook:
    """The pending faults, oldest first. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: list[tuple[Fault, list[int]]] = []

    def add(self, fault: Fault) -> None:
        """Add a fault; it lasts until it was used up or cleared."""
        with self._lock:
            self._pending.append((fault, [fault.skip, -1 if fault.times is None else fault.times]))

    def clear(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._pending.clear()

    def pending(self) -> list[JsonObject]:
        """The faults not used up yet, each with the number of requests left."""
        with self._lock:
            return [{**asdict(fault), "left": None if left < 0 else left} for fault, (_, left) in self._pending]

    def take(self, service: str, path: str) -> Fault | None:
        """The fault for this request, if any; counts it."""
        with self._lock:
            for position, (fault, counters) in enumerate(self._pending):
                if fault.service not in ("*", service) or not fnmatch(path, fault.path):
                    continue
                if counters[0] > 0:
                    counters[0] -= 1
                    continue
                counters[1] -= 1
                if counters[1] == 0:
                    del self._pending[position]
                return fault
        return None
