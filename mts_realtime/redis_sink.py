"""Latest books and funding in Redis, signals on its publish channel; only with ``MTS_REDIS_URL`` set.

What belongs here: the mapping of messages to Redis commands. Redis is a convenience for others: when it is away the
sidecar goes on, and what could not be delivered is counted.

    mts:books:<exchange>:<symbol>      latest book, JSON, expires
    mts:funding:<exchange>:<symbol>    latest funding, JSON, expires
    mts:signals                        channel on which signals are published, JSON
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from mts_realtime.backoff import Backoff
from mts_realtime.errors import SettingsError
from mts_realtime.feed import Outlet

if TYPE_CHECKING:
    from mts_realtime.feed import Feed
    from mts_realtime.messages import Message
    from mts_realtime.settings import RealtimeSettings

log = logging.getLogger(__name__)

CHANNELS = frozenset({"books", "funding", "signals"})


class RedisSink:
    """One outlet of the feed that writes to Redis.

    Attributes:
        delivered: Messages that Redis took.
        failures: Deliveries that failed; their messages are lost to Redis.
    """

    def __init__(self, settings: RealtimeSettings, feed: Feed) -> None:
        self._settings = settings
        self._feed = feed
        self.delivered = 0
        self.failures = 0

    async def run(self) -> None:
        """Deliver until cancelled.

        Raises:
            SettingsError: When the address is wrong, or the library for Redis is not installed.
        """
        try:
            from redis.asyncio import Redis  # noqa: PLC0415 - an optional dependency, needed only with the setting
            from redis.exceptions import RedisError  # noqa: PLC0415 - same
        except ImportError as error:
            raise SettingsError("MTS_REDIS_URL is set, but the redis library is missing: pip install redis") from error
        outlet = Outlet(CHANNELS, frozenset(), self._settings.feed_buffer_messages)
        backoff = Backoff(self._settings.backoff_base_s, self._settings.backoff_cap_s)
        timeout_s = self._settings.http_timeout_s
        try:
            redis = Redis.from_url(self._settings.redis_url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s)
        except ValueError as error:
            raise SettingsError(f"setting MTS_REDIS_URL: {error}") from error
        self._feed.attach(outlet)
        try:
            while True:
                messages = await outlet.take()
                try:
                    async with redis.pipeline(transaction=False) as commands:
                        for message in messages:
                            self._add(commands, message)
                        await commands.execute()
                except (RedisError, OSError, TimeoutError) as error:
                    self.failures += len(messages)
                    wait_s = backoff.next_s()
                    log.warning("Redis: %s; next attempt in %.1f s", error, wait_s)
                    await asyncio.sleep(wait_s)
                else:
                    self.delivered += len(messages)
                    backoff.reset()
        finally:
            self._feed.detach(outlet)
            await redis.aclose()

    def _add(self, commands: object, message: Message) -> None:
        if message.channel == "signals":
            commands.publish("mts:signals", message.content)  # type: ignore[attr-defined]
        else:
            key = f"mts:{message.channel}:{message.key}"
            commands.set(key, message.content, ex=self._settings.redis_ttl_s)  # type: ignore[attr-defined]
