"""The sidecar as a whole: all parts put together, started, and ended in time.

What belongs here: assembly, the life of the process, and the entry that ``mts stream`` calls. No part's own work.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import sys
from typing import TYPE_CHECKING, Any

import aiohttp
from filelock import FileLock, Timeout

from mts_realtime.capture import Capture
from mts_realtime.clock import Clock
from mts_realtime.disk import DiskThread
from mts_realtime.errors import LandingError
from mts_realtime.events import Feed as Dataset
from mts_realtime.exchanges.registry import build_exchanges
from mts_realtime.feed import Feed
from mts_realtime.gaps import GapReason
from mts_realtime.inbox import Inbox
from mts_realtime.landing import remove_temporaries
from mts_realtime.metrics import health_line, health_report, render_metrics
from mts_realtime.origin import guard_capture, guard_landing, kind_of_settings
from mts_realtime.pipeline import Pipeline
from mts_realtime.quarantine import Quarantine
from mts_realtime.redis_sink import RedisSink
from mts_realtime.rest import RestClient
from mts_realtime.supervisor import Shell, Supervisor
from mts_realtime.view import show
from mts_realtime.writer import SegmentWriter, read_marker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator
    from pathlib import Path

    from rich.console import Console

    from mts_realtime.analytics.signals import Signal
    from mts_realtime.recorder import Batch
    from mts_realtime.sessions import Session
    from mts_realtime.settings import RealtimeSettings

log = logging.getLogger(__name__)

_FILES_PAUSE_S = 1.0
_HEALTH_PAUSE_S = 60.0
_MOST_BATCHES = 30
"""Batches that may wait for a disk that hangs; beyond, books and tickers of new ones are given up and declared."""
_GC_THRESHOLDS = (50_000, 50, 100)
"""Rarely: nearly everything here dies by reference counting, and a full collection costs more than a frame may."""

_SWITCH_INTERVAL_S = 0.001
"""Longest that the disk thread keeps the interpreter from the event loop; Python's default is five times that."""


class Sidecar:
    """All parts of one process.

    Attributes:
        pipeline: Books, rows, gaps, signals.
        inbox: Frames that wait.
        supervisor: Connections.
        writer: Segments.
        feed: Live feed; ``None`` unless it is served.
        redis: Redis sink; ``None`` without ``MTS_REDIS_URL``.
        clock: Our time.
    """

    def __init__(
        self,
        settings: RealtimeSettings,
        datasets: frozenset[Dataset],
        http: aiohttp.ClientSession,
        *,
        record: bool,
        capture_dir: Path | None,
    ) -> None:
        self.settings = settings
        self.clock = Clock()
        self.started_ns = self.clock.now_ns()
        self.pipeline = Pipeline(settings, build_exchanges(settings), self.started_ns, record=record)
        self.capture = Capture(capture_dir) if capture_dir is not None else None
        self.inbox = Inbox(settings, self.pipeline, self.clock.now_ns, self.capture)
        self.rest = RestClient(http, self.clock)
        self.shell = Shell(settings, self.clock, self.pipeline, self.inbox, self.rest, self.capture)
        self.supervisor = Supervisor(self.shell, datasets)
        self.writer = SegmentWriter(settings.landing_dir, settings.landing_buffer_rows)
        self.quarantine = Quarantine(settings.quarantine_file, settings.quarantine_max_bytes)
        self.feed: Feed | None = None
        self.redis: RedisSink | None = None
        self.disk = DiskThread()
        self._batches = 0
        self._last_cut_ns = self.started_ns
        self.pipeline.on_batch = self._on_batch
        self.pipeline.on_quarantine = self.quarantine.add
        self.pipeline.on_refusal = _log_refusal

    # Files

    def _on_batch(self, batch: Batch) -> None:
        """Hand a batch to the disk, without what a hanging disk cannot take."""
        if self._batches >= _MOST_BATCHES and not batch.clean:
            self._give_up_samples(batch)
        self._last_cut_ns = batch.until_ns
        self._batches += 1
        self.disk.submit(lambda: self.writer.write(batch)).add_done_callback(self._on_written)

    def _give_up_samples(self, batch: Batch) -> None:
        given_up = [Dataset.ORDER_BOOK, Dataset.TICKERS]
        batch.books.clear()
        for key in [key for key in batch.rows if key[0] == Dataset.TICKERS]:
            del batch.rows[key]
        for covered in batch.covered:
            feeds = tuple(feed for feed in covered.feeds if feed in given_up)
            if feeds:
                gap = type(covered)(covered.exchange, covered.symbol, covered.topic, feeds)
                self.pipeline.ledger.add(gap, self._last_cut_ns, batch.until_ns, GapReason.DISK_ERROR)

    def _on_written(self, future: asyncio.Future[bool]) -> None:
        self._batches -= 1
        error = future.exception()
        if error is not None:
            log.error("landing: %s", error)
        elif not future.result():
            log.error("landing: %s; %d rows wait", self.writer.problem, self.writer.waiting_rows)

    async def _keep_files(self) -> None:
        """Write captures and quarantined frames once a second."""
        while True:
            await asyncio.sleep(_FILES_PAUSE_S)
            await self._write_files()

    async def _write_files(self) -> None:
        at_ns = self.clock.now_ns()
        try:
            aside = self.quarantine.take()
            await self.disk.submit(lambda: self.quarantine.write(aside))
            if self.capture is not None:
                capture, lines = self.capture, self.capture.take()
                await self.disk.submit(lambda: capture.write(lines, at_ns))
        except OSError as error:
            log.error("capture or quarantine cannot be written: %s", error)  # noqa: TRY400 - the line says it all

    async def _report_health(self) -> None:
        """One line a minute for whoever reads logs."""
        while True:
            await asyncio.sleep(_HEALTH_PAUSE_S)
            log.info("health %s", health_line(health_report(self)))

    # Life

    async def run(self, stop: asyncio.Event, *, serve: bool, console: Console | None) -> int:
        """Run until ``stop`` is set, then end in order within the drain time.

        Returns:
            0 when everything that was received is in segments or declared, 1 when rows could not be written.
        """
        if self.capture is not None:
            self.capture.mark("start", self.started_ns)
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self.disk.stop)
            stack.push_async_callback(self.shell.close)
            stack.push_async_callback(self.rest.close)
            if serve:
                self.feed = Feed(
                    self.settings, self.pipeline, lambda: health_report(self), lambda: render_metrics(self)
                )
                await stack.enter_async_context(self.feed.serving())
                log.info("live feed on ws://%s:%d/stream", self.settings.feed_host, self.feed.port)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(work) for work in self._work(console)]
                try:
                    await stop.wait()
                finally:  # also when a part has failed: what was received is still landed
                    clean = await self._end(tasks)
        return 0 if clean else 1

    def _work(self, console: Console | None) -> Iterator[Any]:
        yield self.supervisor.run()
        yield self._keep_files()
        yield self._report_health()
        if self.feed is not None:
            yield self.feed.run()
            if self.settings.redis_url:
                self.redis = RedisSink(self.settings, self.feed)
                yield self.redis.run()
        if console is not None:
            yield show(self, console)

    async def _end(self, tasks: list[asyncio.Task[Any]]) -> bool:
        """Declare what is open, write what is collected, then let go of connections and clients."""
        self.inbox.drain_all()
        at_ns = self.clock.now_ns()
        self.pipeline.finish(at_ns)
        if self.capture is not None:
            self.capture.mark("stop", at_ns)
        for task in tasks:
            task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.drain_s):
                await self._write_files()  # the disk works in order: after this the last batch is written too
        written = self._batches == 0 and not self.writer.problem
        if not written:
            log.error("stopped with rows that could not be written; the next start declares them as a gap")
        return written


def _log_refusal(session: Session, problem: str) -> None:
    log.warning("%s (%s) refused a request: %s", session.plan.exchange, session.plan.route, problem)


@contextlib.contextmanager
def _landing_of_our_own(settings: RealtimeSettings, kind: str) -> Iterator[None]:
    """Hold the landing folder: two writers would contradict each other's gaps.

    Raises:
        LandingError: When another sidecar holds it, or it cannot be used.
        SettingsError: When it holds segments of the other kind.
    """
    folder = settings.landing_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise LandingError(f"another sidecar writes to {folder}; stop it, or set MTS_LANDING_DIR") from None
    except OSError as error:
        raise LandingError(f"{folder} cannot be used as landing folder: {error.strerror}") from error
    try:
        guard_landing(settings, kind)
        remove_temporaries(folder)
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _low_latency() -> Iterator[None]:
    """Keep the garbage collector and the disk thread from holding the event loop up."""
    thresholds, interval_s = gc.get_threshold(), sys.getswitchinterval()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    try:
        yield
    finally:
        sys.setswitchinterval(interval_s)
        gc.set_threshold(*thresholds)
        gc.unfreeze()


@contextlib.asynccontextmanager
async def _sidecar(
    settings: RealtimeSettings, datasets: frozenset[Dataset], *, record: bool, capture_dir: Path | None
) -> AsyncIterator[Sidecar]:
    kind = kind_of_settings(settings)
    with contextlib.ExitStack() as stack:
        if capture_dir is not None:
            guard_capture(capture_dir, kind)
        if record:
            stack.enter_context(_landing_of_our_own(settings, kind))
        timeout = aiohttp.ClientTimeout(total=settings.http_timeout_s)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=True) as http:
            sidecar = Sidecar(settings, datasets, http, record=record, capture_dir=capture_dir)
            marker = read_marker(settings.landing_dir) if record else None
            if marker is not None:
                sidecar.pipeline.resume(marker)
                for name in {covered.exchange for covered in marker.covered} - set(settings.exchanges):
                    sidecar.pipeline.settle(name, (), set(), sidecar.started_ns)
            stack.enter_context(_low_latency())
            yield sidecar


async def stream(
    settings: RealtimeSettings,
    *,
    funding_only: bool = False,
    monitor_only: bool = False,
    capture_dir: Path | None = None,
    serve: bool = True,
    stop: asyncio.Event | None = None,
    on_signal: Iterable[Callable[[Signal], None]] = (),
    on_started: Callable[[Sidecar], None] | None = None,
    console: Console | None = None,
) -> int:
    """Run the sidecar until ``stop`` is set (or for ever).

    Args:
        settings: All settings.
        funding_only: Follow mark prices and funding only, no books and tickers.
        monitor_only: Write no segments.
        capture_dir: Also keep every raw frame in this folder.
        serve: Whether to offer the live feed, health and metrics.
        stop: Ends the sidecar in order when set.
        on_signal: Called with every signal, on the event loop.
        on_started: Called once with the running sidecar, for instance to learn the feed's port.
        console: Terminal for the live view; ``None`` shows nothing.

    Returns:
        Exit code: 0 after an orderly end, 1 when rows could not be written.

    Raises:
        LandingError: When the landing folder cannot be used.
        SettingsError: When a setting cannot be followed, or would mix simulated and real data.
    """
    datasets = frozenset({Dataset.FUNDING} if funding_only else Dataset)
    ending = stop or asyncio.Event()
    async with _sidecar(settings, datasets, record=not monitor_only, capture_dir=capture_dir) as sidecar:
        sidecar.pipeline.on_signal.extend(on_signal)
        if on_started is not None:
            asyncio.get_running_loop().call_later(0.0, on_started, sidecar)
        return await sidecar.run(ending, serve=serve, console=console)
