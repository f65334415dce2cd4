"""Connections as the pipeline sees them, and what it orders from the shell.

What belongs here: records shared by the pipeline and the shell that owns the sockets.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct

from mts_realtime.events import Feed

if TYPE_CHECKING:
    from collections.abc import Callable

    from mts_realtime.exchanges.base import Codec, ConnectionPlan
    from mts_realtime.topics import Topic


class OrderKind(StrEnum):
    """What the shell is asked to do for a connection."""

    RESUBSCRIBE = "resubscribe"
    SNAPSHOT = "snapshot"
    RECONNECT = "reconnect"


class Order(Struct, frozen=True):
    """One wish of the pipeline. ``topic`` is empty for the whole connection."""

    kind: OrderKind
    topic: str
    reason: str


class Session:
    """One connection as the pipeline sees it.

    Attributes:
        id: Number of the connection, unique in this process.
        plan: Where it leads and what it carries.
        codec: Reader of its frames; merged state dies with it.
        topics: States of its topics, by the exchange's name.
        frames: Frames taken.
        heard_ns: Receipt time of the newest frame, 0 before the first.
        has_data: Whether any topic became live: only then the connection counts as good.
        pong_ns: Receipt time of the newest pong.
        orders: What the shell has not carried out yet.
        closed: Whether the connection is gone; frames of it that still wait mean nothing any more.
    """

    __slots__ = (
        "closed",
        "codec",
        "frames",
        "has_data",
        "heard_ns",
        "id",
        "opened_ns",
        "orders",
        "plan",
        "pong_ns",
        "topics",
        "wake",
    )

    def __init__(self, session_id: int, plan: ConnectionPlan, codec: Codec, opened_ns: int) -> None:
        self.id = session_id
        self.plan = plan
        self.codec = codec
        self.topics: dict[str, Topic] = {}
        self.frames = 0
        self.opened_ns = opened_ns
        self.heard_ns = 0
        self.has_data = False
        self.pong_ns = 0
        self.orders: list[Order] = []
        self.closed = False
        self.wake: Callable[[], None] | None = None

    def carries_book(self, topic: str) -> bool:
        """Whether the topic is one of this connection's books."""
        state = self.topics.get(topic)
        return state is not None and Feed.ORDER_BOOK in state.subscription.feeds

    def order(self, order: Order) -> None:
        """Leave an order for the shell and wake it."""
        self.orders.append(order)
        if self.wake is not None:
            self.wake()


class Counters(Struct):
    """What happened since the start, for metrics."""

    frames: int = 0
    quarantined: int = 0
    unrouted: int = 0
    refused: int = 0
    resyncs: int = 0
    handovers: int = 0
    samples: int = 0
