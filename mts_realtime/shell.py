"""What all connections share: the way into the pipeline, and what stands around it.

What belongs here: that bundle, and the limit of new connections an exchange allows all of them together. What a
connection does with it is ``connection``'s business, when there is one is the ``supervisor``'s.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pyrate_limiter import Limiter, Rate

if TYPE_CHECKING:
    from mts_realtime.capture import Capture
    from mts_realtime.clock import Clock
    from mts_realtime.exchanges.base import ConnectionPlan, Exchange
    from mts_realtime.inbox import Inbox
    from mts_realtime.pipeline import Pipeline
    from mts_realtime.rest import RestClient
    from mts_realtime.sessions import Session
    from mts_realtime.settings import RealtimeSettings

_FIVE_MINUTES_MS = 300_000


class Shell:
    """What connections share: the pipeline and its surroundings, and the record of what reaches it."""

    def __init__(
        self,
        settings: RealtimeSettings,
        clock: Clock,
        pipeline: Pipeline,
        inbox: Inbox,
        rest: RestClient,
        capture: Capture | None = None,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.pipeline = pipeline
        self.inbox = inbox
        self.rest = rest
        self.capture = capture
        self._sessions = 0
        self._permits: dict[str, Limiter] = {}

    def open_session(self, plan: ConnectionPlan, at_ns: int) -> Session:
        """A connection is up."""
        self._sessions += 1
        session = self.pipeline.open_session(self._sessions, plan, at_ns)
        if self.capture is not None:
            self.capture.opened(session, at_ns)
        return session

    def close_session(self, session: Session, at_ns: int) -> None:
        """A connection is gone."""
        if self.capture is not None:
            self.capture.closed(session, at_ns)
        self.pipeline.close_session(session, at_ns)

    def snapshot(self, session: Session, topic: str, body: bytes, at_ns: int) -> None:
        """A REST snapshot arrived."""
        if self.capture is not None:
            self.capture.snapshot(session, topic, body, at_ns)
        self.pipeline.snapshot(session, topic, body, at_ns)

    async def connection_permit(self, exchange: Exchange) -> None:
        """Wait until the exchange's limit of new connections allows another one."""
        permit = self._permits.get(exchange.name)
        if permit is None:
            permit = Limiter(Rate(exchange.connections_per_5min, _FIVE_MINUTES_MS))
            self._permits[exchange.name] = permit
        await permit.try_acquire_async(exchange.name)

    async def close(self) -> None:
        """Stop the limiters."""
        for permit in self._permits.values():
            await asyncio.to_thread(permit.close)
