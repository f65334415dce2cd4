"""Faults on demand: the book of pending ones, and the HTTP faults.

What belongs here: which requests are spoiled, how, and how often. ``server`` carries HTTP faults out; the
faults of the WebSocket side are in ``stream_faults``.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar, get_args

if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import Field
    from typing import ClassVar

    from mts_simulator.wire import JsonObject

FaultKind = Literal["status", "timeout", "reset", "html", "truncate", "drip"]


class Counted(Protocol):
    """A dataclass that says how many matches pass first and how many are spoiled."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def skip(self) -> int:
        """How many matches pass first."""

    @property
    def times(self) -> int | None:
        """How many are spoiled; None for all."""


F = TypeVar("F", bound=Counted)


class PendingFaults(Generic[F]):
    """The pending faults, oldest first. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: list[tuple[F, list[int]]] = []

    def add(self, fault: F) -> None:
        """Add a fault; it lasts until it was used up or cleared."""
        with self._lock:
            self._pending.append((fault, [fault.skip, -1 if fault.times is None else fault.times]))

    def clear(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._pending.clear()

    def pending(self) -> list[JsonObject]:
        """The faults not used up yet, each with the number of matches left to spoil."""
        with self._lock:
            return [{**asdict(fault), "left": None if left < 0 else left} for fault, (_, left) in self._pending]

    def __len__(self) -> int:
        return len(self._pending)

    def first(self, matches: Callable[[F], bool]) -> F | None:
        """The first fault that matches and whose turn it is, if any; counts it."""
        with self._lock:
            for position, (fault, counters) in enumerate(self._pending):
                if not matches(fault):
                    continue
                if counters[0] > 0:
                    counters[0] -= 1
                    continue
                counters[1] -= 1
                if counters[1] == 0:
                    del self._pending[position]
                return fault
        return None


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
        skip: How many matching requests pass first.
        times: How many are spoiled; None for all.
        status: HTTP status of kind ``status``.
        retry_after: ``Retry-After`` header of kind ``status``.
        body: Body of kinds ``status`` and ``html``; a fitting one when empty.
        delay_s: Seconds of kinds ``timeout`` and ``drip``.
    """

    kind: FaultKind
    service: str = "*"
    path: str = "*"
    skip: int = 0
    times: int | None = 1
    status: int = 503
    retry_after: str | None = None
    body: str = ""
    delay_s: float = 3600.0

    def __post_init__(self) -> None:
        check_kind(self.kind, get_args(FaultKind))


class FaultBook(PendingFaults[Fault]):
    """The pending HTTP faults."""

    def take(self, service: str, path: str) -> Fault | None:
        """The fault for this request, if any; counts it."""
        return self.first(lambda fault: fault.service in ("*", service) and fnmatchcase(path, fault.path))


def check_kind(kind: str, known: tuple[str, ...]) -> None:
    """Raise ``ValueError`` for a kind of fault that does not exist."""
    if kind not in known:
        raise ValueError(f"unknown kind of fault {kind!r}, use one of {', '.join(known)}")


def from_json(kind: type[F], value: object) -> F:
    """A fault from the control endpoint.

    Raises:
        ValueError: When ``value`` is not an object whose members are those of ``kind``, with fitting values.
    """
    if not isinstance(value, Mapping):
        raise ValueError("a fault is a JSON object")  # noqa: TRY004  the caller answers 400 to ValueError
    defaults = {field.name: field.default for field in fields(kind)}
    unknown = sorted(set(value) - set(defaults))
    if unknown or "kind" not in value:
        raise ValueError(f"a fault needs 'kind'; unknown members: {', '.join(unknown) or 'none'}")
    for name, given in value.items():
        wanted = (int, float) if isinstance(defaults[name], int | float) or name == "times" else str
        if not isinstance(given, wanted) and not (given is None and name in ("times", "retry_after")):
            raise ValueError(f"{name} of a fault cannot be {given!r}")
    return kind(**value)
