"""Connections over weeks: opened, watched, replaced, rotated; one exchange's trouble stays its own.

What belongs here: which connections exist and when a new one is opened. A connection's own life is ``connection``'s,
what its data means is the ``pipeline``'s.
"""

from __future__ import annotations

import asyncio
import logging
import random
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

import msgspec

from mts_realtime.backoff import Backoff
from mts_realtime.connection import Link
from mts_realtime.errors import ExchangeError
from mts_realtime.gaps import Covered
from mts_realtime.instruments import RENAMES, parse_renames, resolve

if TYPE_CHECKING:
    from mts_realtime.events import Feed, Instrument
    from mts_realtime.exchanges.base import ConnectionPlan, Exchange
    from mts_realtime.shell import Shell

log = logging.getLogger(__name__)

_TIMER_S = 0.02
_SAMPLES_AHEAD = 300
"""Books sampled at once between grid times: about two milliseconds of work."""
_HANDOVER_LOOK_S = 0.1
_ROTATION_JITTER = 0.1
_LOG_PAUSE_NS = 60_000_000_000


class Supervisor:
    """Keeps all connections of all exchanges.

    Attributes:
        problems: Newest problem of each exchange, absent while there is none.
        reconnects: Connections that ended without being asked to, by exchange and route.
        rotations: Connections that were replaced on purpose, by exchange.
        links: Connections that are open or being opened.
        clock_offset_ms: How far each exchange's clock is ahead of ours, by the newest comparison.
    """

    def __init__(self, shell: Shell, feeds: frozenset[Feed]) -> None:
        self._shell = shell
        self._settings = shell.settings
        self._feeds = feeds
        self._renames = (*RENAMES, *parse_renames(shell.settings.symbol_aliases))
        self._rng = random.Random()  # noqa: S311 - jitter is no secret
        self.problems: dict[str, str] = {}
        self.reconnects: dict[tuple[str, str], int] = {}
        self.rotations: dict[str, int] = {}
        self.links: set[Link] = set()
        self.clock_offset_ms: dict[str, float] = {}
        self._reported: set[tuple[str, str]] = set()
        self._logged_ns: dict[str, int] = {}

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_time())
            for exchange in self._shell.pipeline.exchanges.values():
                group.create_task(self._keep_exchange(exchange))

    async def _keep_time(self) -> None:
        """Let the pipeline notice that time passes when no frame says so."""
        while True:
            await asyncio.sleep(_TIMER_S)
            if not len(self._shell.inbox):
                now_ns = self._shell.clock.now_ns()
                self._shell.pipeline.sample_ahead(now_ns, _SAMPLES_AHEAD)
                self._shell.pipeline.advance(now_ns)
            self._shell.clock.follow()

    async def _keep_exchange(self, exchange: Exchange) -> None:
        """Resolve the symbols, keep their connections, and look for symbols that were missing once in a while."""
        known: set[str] = set()
        async with asyncio.TaskGroup() as group:
            listed = await self._instruments(exchange)
            group.create_task(self._keep_clock(exchange))
            while True:
                fresh = self._resolve(exchange, listed, known)
                known |= {instrument.venue_symbol for instrument in fresh}
                for plan in exchange.plan(fresh, self._feeds):
                    group.create_task(self._keep_connection(exchange, plan))
                await asyncio.sleep(self._settings.instruments_refresh_s)
                listed = await self._instruments(exchange)

    async def _instruments(self, exchange: Exchange) -> dict[str, Instrument]:
        """The instruments list, as soon as the exchange gives it."""
        backoff = self._backoff()
        while True:
            try:
                listed = await exchange.instruments(lambda call: self._shell.rest.get(exchange, call))
            except Exception as error:  # noqa: BLE001 - one exchange's trouble, of any kind, must not reach the others
                await self._pause(exchange, error, backoff)
            else:
                self.problems.pop(exchange.name, None)
                return listed

    async def _keep_clock(self, exchange: Exchange) -> None:
        """Compare clocks: ages and lags across exchanges mean little when they disagree."""
        clock = self._shell.clock
        while True:
            before_ns = clock.now_ns()
            try:
                body = await self._shell.rest.get(exchange, exchange.clock_call())
                theirs_ms = exchange.parse_clock(body)
            except (ExchangeError, msgspec.DecodeError) as error:
                log.info("%s: its clock cannot be read: %s", exchange.name, error)
            else:
                ours_ms = (before_ns + clock.now_ns()) / 2e6
                self.clock_offset_ms[exchange.name] = theirs_ms - ours_ms
                if abs(theirs_ms - ours_ms) > self._settings.clock_alert_ms:
                    log.warning("%s: its clock is %.0f ms ahead of ours", exchange.name, theirs_ms - ours_ms)
            await asyncio.sleep(self._settings.clock_check_s)

    def _resolve(self, exchange: Exchange, listed: dict[str, Instrument], known: set[str]) -> list[Instrument]:
        """Instruments that are not followed yet; what cannot be had is reported once and declared as a gap."""
        shell = self._shell
        now_ns = shell.clock.now_ns()
        found = resolve(exchange.name, self._settings.symbols, listed, _day(now_ns), self._renames)
        pipeline = shell.pipeline
        missing = set()
        for error in found.unknown:
            covered = Covered(exchange.name, error.symbol, error.symbol, tuple(sorted(self._feeds)))
            missing.add(error.symbol)
            pipeline.missing(covered, now_ns)
            if (exchange.name, error.symbol) not in self._reported:
                self._reported.add((exchange.name, error.symbol))
                log.error("%s", error)
        plans = exchange.plan(found.instruments, self._feeds)
        wanted = [subscription for plan in plans for subscription in plan.subscriptions]
        pipeline.settle(exchange.name, wanted, missing | self._carried(exchange.name), now_ns)
        return [instrument for instrument in found.instruments if instrument.venue_symbol not in known]

    def _carried(self, exchange: str) -> set[str]:
        """Topics that open connections carry; a symbol that was delisted meanwhile is still one of them."""
        return {
            subscription.topic
            for link in self.links
            if link.plan.exchange == exchange
            for subscription in link.plan.subscriptions
        }

    async def _keep_connection(self, exchange: Exchange, plan: ConnectionPlan) -> None:
        """One connection after another, each replaced before it grows too old."""
        backoff = self._backoff()
        async with asyncio.TaskGroup() as group:
            link = await self._open(group, exchange, plan)
            replace_in_s = self._age_s(exchange)
            while True:
                if await _happens(link.ended, replace_in_s):
                    await self._after_end(exchange, link, backoff)
                    link = await self._open(group, exchange, plan)
                    replace_in_s = self._age_s(exchange)
                elif (new := await self._rotate(group, exchange, link)) is not None:
                    link = new
                    replace_in_s = self._age_s(exchange)
                else:  # the attempt failed; the old connection lives on, and the next attempt follows soon
                    replace_in_s = backoff.next_s(self._settings.handover_s)

    def _age_s(self, exchange: Exchange) -> float:
        """Age at which a connection is replaced, scattered so that not all are replaced at once."""
        return exchange.rotate_s * (1.0 - self._rng.uniform(0.0, _ROTATION_JITTER))

    async def _open(self, group: asyncio.TaskGroup, exchange: Exchange, plan: ConnectionPlan) -> Link:
        link = Link(self._shell, exchange, plan)
        self.links.add(link)
        task = group.create_task(link.run())
        task.add_done_callback(lambda _: self.links.discard(link))
        await link.opened.wait()
        return link

    async def _after_end(self, exchange: Exchange, link: Link, backoff: Backoff) -> None:
        """Count, report, and wait as long as the failures so far ask for."""
        key = (exchange.name, link.plan.route)
        self.reconnects[key] = self.reconnects.get(key, 0) + 1
        if link.session is not None and link.session.has_data:
            backoff.reset()
            self.problems.pop(exchange.name, None)
        await self._pause(exchange, link.failure, backoff)

    async def _rotate(self, group: asyncio.TaskGroup, exchange: Exchange, old: Link) -> Link | None:
        """Open the next connection, wait until it carries everything, then end the old one."""
        self.rotations[exchange.name] = self.rotations.get(exchange.name, 0) + 1
        new = await self._open(group, exchange, old.plan)
        deadline = asyncio.get_running_loop().time() + self._settings.handover_s
        while not new.ended.is_set() and not old.ended.is_set() and not _handed_over(old):
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(_HANDOVER_LOOK_S)
        if new.ended.is_set():
            return None
        old.stop()
        await old.ended.wait()
        return new

    async def _pause(self, exchange: Exchange, error: Exception | None, backoff: Backoff) -> None:
        asked_s = error.wait_s if isinstance(error, ExchangeError) else None
        problem = error.problem if isinstance(error, ExchangeError) else str(error) or type(error).__name__
        if isinstance(error, ExchangeError) and error.is_terminal:
            asked_s = self._settings.dead_topic_retry_s  # nothing but patience (or the user) can help
        wait_s = backoff.next_s(asked_s)
        self._report(exchange.name, problem, wait_s)
        self.problems[exchange.name] = problem
        await asyncio.sleep(wait_s)

    def _report(self, exchange: str, problem: str, wait_s: float) -> None:
        """Log a problem when it is new, and once a minute while it lasts."""
        now_ns = self._shell.clock.now_ns()
        if self.problems.get(exchange) != problem or now_ns - self._logged_ns.get(exchange, 0) > _LOG_PAUSE_NS:
            self._logged_ns[exchange] = now_ns
            log.warning("%s: %s; next attempt in %.1f s", exchange, problem, wait_s)

    def _backoff(self) -> Backoff:
        return Backoff(self._settings.backoff_base_s, self._settings.backoff_cap_s, self._rng)


def _handed_over(old: Link) -> bool:
    """Whether no topic that the old connection still publishes is live there."""
    return old.session is None or not any(topic.active and topic.live for topic in old.session.topics.values())


async def _happens(event: asyncio.Event, within_s: float) -> bool:
    """Whether the event is set within a time."""
    try:
        async with asyncio.timeout(within_s):
            await event.wait()
    except TimeoutError:
        return False
    return True


def _day(at_ns: int) -> date:
    return datetime.fromtimestamp(at_ns / 1e9, UTC).date()
