"""The watch over topics and connections that should have spoken.

What belongs here: how long silence is borne, and how often a topic is asked for again. Data decides: neither an open
connection nor an acknowledged subscription proves that anything comes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mts_realtime.gaps import GapReason
from mts_realtime.sessions import Order, OrderKind
from mts_realtime.topics import BookTopic

if TYPE_CHECKING:
    from collections.abc import Callable

    from mts_realtime.sessions import Session
    from mts_realtime.settings import RealtimeSettings
    from mts_realtime.topics import Topic

NS_PER_S = 1_000_000_000
_SETTLED_NS = 60 * NS_PER_S
"""A topic that was live this long counts as recovered: its attempts start again at zero."""


class Watchdog:
    """Looks at one connection at a time; ``lose`` is told of a topic that fell silent."""

    def __init__(self, settings: RealtimeSettings, lose: Callable[[Topic, str], None]) -> None:
        self._settings = settings
        self._lose = lose

    def watch(self, session: Session, at_ns: int) -> None:
        """Find topics and connections that should have spoken, and order what is needed."""
        settings = self._settings
        heard_ns = session.heard_ns or session.opened_ns
        if at_ns - heard_ns > settings.connection_silence_s * NS_PER_S:
            _reconnect(session, "nothing received")
            return
        if not session.has_data and at_ns - session.opened_ns > settings.subscribe_timeout_s * NS_PER_S:
            _reconnect(session, "subscribed, but no data")
            return
        for topic in session.topics.values():
            if topic.retired:
                continue
            if topic.live:
                if at_ns - topic.heard_ns > settings.silence_s * NS_PER_S:
                    self._lose(topic, GapReason.SILENCE)
                    self.ask_again(session, topic, GapReason.SILENCE, at_ns)
                elif topic.attempts and at_ns - topic.asked_ns > _SETTLED_NS:
                    topic.attempts = 0
            elif at_ns - topic.asked_ns > self._patience_ns(topic):
                self.ask_again(session, topic, "no data", at_ns)

    def ask_again(self, session: Session, topic: Topic, reason: str, at_ns: int) -> None:
        """Order the topic anew, unless it was asked for too recently to be asked again."""
        if topic.attempts and at_ns - topic.asked_ns <= self._patience_ns(topic) // 2:
            return
        topic.attempts += 1
        topic.asked_ns = at_ns
        session.codec.forget(topic.subscription.topic)
        topic.restart()
        updates_come = at_ns - topic.heard_ns < self._settings.subscribe_timeout_s * NS_PER_S
        if isinstance(topic, BookTopic) and topic.book.needs_snapshot and updates_come:
            topic.snapshot_asked = True
            session.order(Order(OrderKind.SNAPSHOT, topic.subscription.topic, reason))
        else:
            session.order(Order(OrderKind.RESUBSCRIBE, topic.subscription.topic, reason))

    def _patience_ns(self, topic: Topic) -> int:
        """How long to wait for a topic before asking again: longer each time, up to the slow retry."""
        settings = self._settings
        wait_s = settings.subscribe_timeout_s * 2.0 ** min(topic.attempts, 20)
        return round(min(wait_s, max(settings.dead_topic_retry_s, settings.subscribe_timeout_s)) * NS_PER_S)


def _reconnect(session: Session, reason: str) -> None:
    if all(order.kind is not OrderKind.RECONNECT for order in session.orders):
        session.order(Order(OrderKind.RECONNECT, "", reason))
