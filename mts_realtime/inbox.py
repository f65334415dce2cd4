"""Between sockets and pipeline: one bounded queue, and what is given up when it grows.

What belongs here: the queue, its draining in slices so that sockets are read in between, and the overload policy.
Pictures of books conflate to the latest; updates of a book cannot be skipped, so under heavy overload whole books
are given up and declared; funding and tickers are never dropped.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from typing import TYPE_CHECKING

from mts_realtime.histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import Callable

    from mts_realtime.capture import Capture
    from mts_realtime.pipeline import Pipeline
    from mts_realtime.sessions import Session
    from mts_realtime.settings import RealtimeSettings

SLICE_S = 0.004
"""Longest stretch of work before sockets are looked at again."""
BACKLOG_SLICE_S = 0.02
"""The same while frames pile up: reading more before these are handled helps nobody, TCP holds it back."""
_CHECK_EVERY = 32


class Inbox:
    """Frames that were received and not handled yet.

    Attributes:
        conflated: Pictures skipped because a newer one was waiting.
        shed: Frames given up with their books.
        lag: Time from receipt to handling, of every 32nd frame.
    """

    def __init__(
        self,
        settings: RealtimeSettings,
        pipeline: Pipeline,
        now_ns: Callable[[], int],
        capture: Capture | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._now_ns = now_ns
        self._capture = capture
        self._frames: deque[tuple[Session, bytes, int]] = deque()
        self._conflate_above = self._conflate_at = settings.conflate_frames
        self._limit = settings.inbox_frames
        self._scheduled = False
        self.conflated = 0
        self.shed = 0
        self.lag = Histogram()

    def __len__(self) -> int:
        return len(self._frames)

    def push(self, session: Session, raw: bytes, received_ns: int) -> None:
        """Take a frame from a socket."""
        self._frames.append((session, raw, received_ns))
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._drain)

    def drain_all(self) -> None:
        """Handle everything that waits, at the end of the process."""
        while self._frames:
            self._handle(*self._frames.popleft())

    def _drain(self) -> None:
        """Handle frames for one slice of time; come back for the rest after sockets were looked at."""
        frames, handle = self._frames, self._handle
        backlog = len(frames) > self._conflate_above
        if len(frames) > self._conflate_at:
            self._relieve()
        deadline = time.perf_counter() + (BACKLOG_SLICE_S if backlog else SLICE_S)
        handled = 0
        while frames:
            session, raw, received_ns = frames.popleft()
            handle(session, raw, received_ns)
            handled += 1
            if not handled % _CHECK_EVERY:
                self.lag.add((self._now_ns() - received_ns) / 1e9)
                if time.perf_counter() > deadline:
                    break
        else:
            if handled % _CHECK_EVERY:
                self.lag.add((self._now_ns() - received_ns) / 1e9)
        self._scheduled = bool(frames)
        if not frames:
            self._conflate_at = self._conflate_above
        else:
            asyncio.get_running_loop().call_soon(self._drain)

    def _handle(self, session: Session, raw: bytes, received_ns: int) -> None:
        if session.closed:
            return
        readable = self._pipeline.handle(session, raw, received_ns)
        if self._capture is not None:
            self._capture.frame(session, raw, received_ns, readable=readable)

    def _relieve(self) -> None:
        """Keep the latest picture of each book; if that is not enough, give up the books with the most frames."""
        kept: deque[tuple[Session, bytes, int]] = deque()
        seen: set[tuple[int, str]] = set()
        waiting: Counter[tuple[Session, str]] = Counter()
        topics: list[str | None] = []
        for entry in reversed(self._frames):
            session, raw, _ = entry
            exchange = self._pipeline.exchanges[session.plan.exchange]
            topic = exchange.topic_of(raw)
            if topic is not None and exchange.is_picture(topic):
                if (session.id, topic) in seen:
                    self.conflated += 1
                    continue
                seen.add((session.id, topic))
            elif topic is not None and session.carries_book(topic):
                waiting[session, topic] += 1
            kept.appendleft(entry)
            topics.append(topic)
        topics.reverse()
        self._frames.clear()
        self._frames.extend(kept)
        if len(kept) > self._limit:
            self._shed(waiting, topics)
        self._conflate_at = max(self._conflate_above, 2 * len(self._frames))

    def _shed(self, waiting: Counter[tuple[Session, str]], topics: list[str | None]) -> None:
        excess = len(self._frames) - self._limit // 2
        given_up: set[tuple[int, str]] = set()
        for (session, topic), count in waiting.most_common():
            if excess <= 0:
                break
            given_up.add((session.id, topic))
            excess -= count
            self._pipeline.shed(session, topic, self._now_ns())
            if self._capture is not None:
                self._capture.shed(session, topic, self._now_ns())
        kept = [
            entry
            for entry, topic in zip(self._frames, topics, strict=True)
            if topic is None or (entry[0].id, topic) not in given_up
        ]
        self.shed += len(self._frames) - len(kept)
        self._frames.clear()
        self._frames.extend(kept)
