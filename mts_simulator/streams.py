"""WebSocket connections without the socket: what a session is, and when its topics speak.

What belongs here: the protocols between the wire modules (``binance_streams``, ``bybit_streams``), the
sources of frames (seeded, recorded, synthetic load) and the shell (``stream_server``). Time comes with the
calls.
"""

from __future__ import annotations

import heapq
import math
from itertools import count
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

_BATCH = 2_000


class Frame(NamedTuple):
    """One data frame: the topic it belongs to and its text."""

    topic: str
    text: str


class Feed(Protocol):
    """The frames of one topic.

    Attributes:
        next_ms: When the next frame is due.
    """

    next_ms: float

    def pop(self, now_ms: int) -> list[str]:
        """The frames due at ``next_ms``, stamped with ``now_ms``; moves ``next_ms`` on."""

    def restart(self) -> None:
        """Begin anew as after a restart of the service, where the exchange has such a thing."""


class Source(Protocol):
    """Where a session's data frames come from."""

    def add(self, topic: str, now_ms: int) -> None:
        """Begin to send a topic; one without data stays silent."""

    def remove(self, topic: str) -> None:
        """Stop to send a topic."""

    def restart(self, topic: str) -> None:
        """Restart a topic's feed."""

    def next_ms(self) -> float:
        """When the next frame is due; infinity when none is."""

    def pop(self, now_ms: int) -> list[Frame]:
        """Frames due by now, oldest first, in bounded batches."""


class Session(Protocol):
    """One connection to one exchange, without its socket."""

    def receive(self, text: str, now_ms: int) -> list[str]:
        """The answers to a text message of the client."""

    def topics(self) -> list[str]:
        """What is subscribed, silent topics included."""

    def restart(self, topic: str) -> None:
        """Restart a topic's feed."""

    def next_ms(self) -> float:
        """When the next frame is due; infinity when none is."""

    def pop(self, now_ms: int) -> list[Frame]:
        """Frames due by now, oldest first, in bounded batches."""


class FeedSource:
    """A source with an independent feed for each topic.

    Args:
        make: Makes the feed of a topic from its name and the time; None for a topic without data.
    """

    def __init__(self, make: Callable[[str, int], Feed | None]) -> None:
        self._make = make
        self._feeds: dict[str, Feed] = {}
        self._due: list[tuple[float, int, str, Feed]] = []
        self._order = count()

    def add(self, topic: str, now_ms: int) -> None:
        """Begin to send a topic; one without data stays silent."""
        feed = self._make(topic, now_ms)
        if feed is not None:
            self._feeds[topic] = feed
            heapq.heappush(self._due, (feed.next_ms, next(self._order), topic, feed))

    def remove(self, topic: str) -> None:
        """Stop to send a topic."""
        self._feeds.pop(topic, None)

    def restart(self, topic: str) -> None:
        """Restart a topic's feed."""
        if topic in self._feeds:
            self._feeds[topic].restart()

    def next_ms(self) -> float:
        """When the next frame is due; infinity when none is."""
        return self._due[0][0] if self._due else math.inf

    def pop(self, now_ms: int) -> list[Frame]:
        """Frames due by now, oldest first, in bounded batches."""
        frames: list[Frame] = []
        due = self._due
        while due and due[0][0] <= now_ms and len(frames) < _BATCH:
            _, _, topic, feed = due[0]
            if self._feeds.get(topic) is not feed:
                heapq.heappop(due)
                continue
            frames += [Frame(topic, text) for text in feed.pop(now_ms)]
            heapq.heapreplace(due, (feed.next_ms, next(self._order), topic, feed))
        return frames


class SilentSource:
    """A source that never sends anything: wrong routes and retired addresses."""

    def add(self, topic: str, now_ms: int) -> None:
        """Nothing will come."""

    def remove(self, topic: str) -> None:
        """Nothing came."""

    def restart(self, topic: str) -> None:
        """Nothing to restart."""

    def next_ms(self) -> float:
        """Never."""
        return math.inf

    def pop(self, now_ms: int) -> list[Frame]:  # noqa: ARG002  the protocol's
        """Nothing."""
        return []
