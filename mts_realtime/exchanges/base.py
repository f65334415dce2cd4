"""What every exchange adapter offers to the shell.

What belongs here: the small interface between the shell and an exchange (connect plan, subscribe, parse, keep
alive, classify errors, REST calls). Nothing here knows a wire format.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from msgspec import Struct

from mts_realtime.errors import ExchangeError
from mts_realtime.events import Subscription
from mts_realtime.exchanges.wire import UnknownFields

if TYPE_CHECKING:
    from mts_realtime.book import OrderBook
    from mts_realtime.events import BookSnapshot, Event, Feed, Instrument


class ConnectionPlan(Struct, frozen=True):
    """One connection: where to, and what it carries.

    Attributes:
        exchange: Name of the exchange.
        route: Short name of what the connection is for, in metrics and captures.
        url: Where to connect.
        subscriptions: What it carries.
        in_url: How many of them, from the first on, the URL already asks for.
    """

    exchange: str
    route: str
    url: str
    subscriptions: tuple[Subscription, ...]
    in_url: int = 0


class KeepAlive(Struct, frozen=True):
    """A ping inside the data protocol: what to send, how often, and how long its answer may take."""

    message: str
    interval_s: float
    timeout_s: float


class RestCall(Struct, frozen=True):
    """One GET: the path and query below the exchange's REST root, and its cost in the exchange's budget."""

    path: str
    query: Mapping[str, str]
    weight: int


RestGet = Callable[[RestCall], Awaitable[bytes]]
"""Carries out a call within the exchange's budget and returns the body of a good answer."""


class Refused(Struct, frozen=True, kw_only=True):
    """Verdict on a failed handshake or REST call."""

    problem: str
    wait_s: float | None = None
    terminal: bool = False

    def error(self, exchange: str) -> ExchangeError:
        """The verdict as an exception."""
        return ExchangeError(exchange, self.problem, wait_s=self.wait_s, terminal=self.terminal)


class Codec(ABC):
    """Reads the frames of one connection. Merged state in it lives and dies with the connection."""

    @abstractmethod
    def parse(self, raw: bytes, received_ns: int) -> tuple[Event, ...]:
        """Normalise one frame.

        Raises:
            FrameError: When the frame does not fit its wire type.
        """

    @abstractmethod
    def forget(self, topic: str) -> None:
        """Drop merged state of a topic that is subscribed to again."""


class Exchange(ABC):
    """An exchange: the only place that knows its wire format."""

    name: ClassVar[str]
    rest_root: str
    rotate_s: float
    messages_per_s: int
    connections_per_5min: int
    rest_budget: tuple[int, float]
    taker_fee_bps: float

    def __init__(self) -> None:
        self.unknown_fields = UnknownFields()

    @abstractmethod
    def plan(self, instruments: Sequence[Instrument], feeds: frozenset[Feed]) -> list[ConnectionPlan]:
        """Distribute the instruments' streams over connections within the exchange's limits."""

    @abstractmethod
    def subscribe(self, topics: Sequence[str], request_id: int) -> list[str]:
        """Messages that subscribe to the topics; ids count up from ``request_id``."""

    @abstractmethod
    def unsubscribe(self, topics: Sequence[str], request_id: int) -> list[str]:
        """Messages that unsubscribe from the topics."""

    @abstractmethod
    def keep_alive(self) -> KeepAlive | None:
        """The ping that the exchange wants inside the data protocol, if any."""

    @abstractmethod
    def codec(self) -> Codec:
        """A reader for a new connection."""

    @abstractmethod
    def book(self, topic: str) -> OrderBook:
        """An empty book with the exchange's sequence rules."""

    @abstractmethod
    def topic_of(self, raw: bytes) -> str | None:
        """Topic of a data frame without decoding all of it; ``None`` for anything else."""

    @abstractmethod
    def is_picture(self, topic: str) -> bool:
        """Whether each frame of the topic replaces the one before, so that older ones may be skipped."""

    @abstractmethod
    async def instruments(self, get: RestGet) -> dict[str, Instrument]:
        """Trading perpetuals by the exchange's own name, read with ``get`` page by page."""

    @abstractmethod
    def clock_call(self) -> RestCall:
        """The call for the exchange's time."""

    @abstractmethod
    def parse_clock(self, body: bytes) -> int:
        """The exchange's time, milliseconds since 1970."""

    @abstractmethod
    def snapshot_call(self, topic: str) -> RestCall | None:
        """The REST call for the snapshot that the topic's book starts from; ``None`` when the stream brings it."""

    @abstractmethod
    def parse_snapshot(self, topic: str, body: bytes, received_ns: int) -> BookSnapshot:
        """Read that snapshot."""

    @abstractmethod
    def classify(self, status: int, headers: Mapping[str, str], body: bytes, now_ms: int) -> Refused | None:
        """Verdict on an HTTP answer (of a handshake or a REST call); ``None`` when it is a good one."""
