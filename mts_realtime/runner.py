"""The life of the sidecar: started, running, and ended in time.

What belongs here: the entry that ``mts stream`` calls, and what runs beside what. The parts are put together in
``sidecar``; no part's own work.
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

from mts_realtime.errors import LandingError
from mts_realtime.events import Feed as Dataset
from mts_realtime.feed import Feed
from mts_realtime.landing import remove_temporaries
from mts_realtime.metrics import health_line, health_report, render_metrics
from mts_realtime.origin import guard_capture, guard_landing, kind_of_settings
from mts_realtime.redis_sink import RedisSink
from mts_realtime.sidecar import Sidecar
from mts_realtime.view import show
from mts_realtime.writer import read_marker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator
    from pathlib import Path

    from rich.console import Console

    from mts_realtime.analytics.signals import Signal
    from mts_realtime.settings import RealtimeSettings

log = logging.getLogger(__name__)

_HEALTH_PAUSE_S = 60.0
_GC_THRESHOLDS = (50_000, 50, 100)
"""Rarely: nearly everything here dies by reference counting, and a full collection costs more than a frame may."""

_SWITCH_INTERVAL_S = 0.001
"""Longest that the disk thread keeps the interpreter from the event loop; Python's default is five times that."""


async def _run(sidecar: Sidecar, stop: asyncio.Event, *, serve: bool, console: Console | None) -> int:
    """Run until ``stop`` is set, then end in order within the drain time.

    Returns:
        0 when everything that was received is in segments or declared, 1 when rows could not be written.
    """
    if sidecar.capture is not None:
        sidecar.capture.mark("start", sidecar.started_ns)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(sidecar.disk.stop)
        stack.push_async_callback(sidecar.shell.close)
        stack.push_async_callback(sidecar.rest.close)
        if serve:
            settings = sidecar.settings
            sidecar.feed = Feed(
                settings, sidecar.pipeline, lambda: health_report(sidecar), lambda: render_metrics(sidecar)
            )
            await stack.enter_async_context(sidecar.feed.serving())
            log.info("live feed on ws://%s:%d/stream", settings.feed_host, sidecar.feed.port)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in _work(sidecar, console)]
            try:
                await stop.wait()
            finally:  # also when a part has failed: what was received is still landed
                clean = await _end(sidecar, tasks)
    return 0 if clean else 1


def _work(sidecar: Sidecar, console: Console | None) -> Iterator[Any]:
    """What runs side by side."""
    yield sidecar.supervisor.run()
    yield sidecar.keep_files()
    yield _report_health(sidecar)
    if sidecar.feed is not None:
        yield sidecar.feed.run()
        if sidecar.settings.redis_url:
            sidecar.redis = RedisSink(sidecar.settings, sidecar.feed)
            yield sidecar.redis.run()
    if console is not None:
        yield show(sidecar, console)


async def _report_health(sidecar: Sidecar) -> None:
    """One line a minute for whoever reads logs."""
    while True:
        await asyncio.sleep(_HEALTH_PAUSE_S)
        log.info("health %s", health_line(health_report(sidecar)))


async def _end(sidecar: Sidecar, tasks: list[asyncio.Task[Any]]) -> bool:
    """Declare what is open, write what is collected, then let go of connections and clients."""
    sidecar.inbox.drain_all()
    at_ns = sidecar.clock.now_ns()
    sidecar.pipeline.finish(at_ns)
    if sidecar.capture is not None:
        sidecar.capture.mark("stop", at_ns)
    for task in tasks:
        task.cancel()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(sidecar.settings.drain_s):
            await sidecar.write_files()
    if not sidecar.is_written:
        log.error("stopped with rows that could not be written; the next start declares them as a gap")
    return sidecar.is_written


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
        return await _run(sidecar, ending, serve=serve, console=console)
