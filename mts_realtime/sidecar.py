"""The sidecar's parts, put together.

What belongs here: assembly, and what the parts hand to each other: batches and quarantined frames to the disk. No
part's own work, and no life: ``runner`` starts and ends what stands here.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from mts_realtime.capture import Capture
from mts_realtime.clock import Clock
from mts_realtime.disk import DiskThread
from mts_realtime.events import Feed as Dataset
from mts_realtime.exchanges.registry import build_exchanges
from mts_realtime.gaps import GapReason
from mts_realtime.inbox import Inbox
from mts_realtime.pipeline import Pipeline
from mts_realtime.quarantine import Quarantine
from mts_realtime.rest import RestClient
from mts_realtime.shell import Shell
from mts_realtime.supervisor import Supervisor
from mts_realtime.writer import SegmentWriter

if TYPE_CHECKING:
    from pathlib import Path

    import aiohttp

    from mts_realtime.feed import Feed
    from mts_realtime.recorder import Batch
    from mts_realtime.redis_sink import RedisSink
    from mts_realtime.sessions import Session
    from mts_realtime.settings import RealtimeSettings

log = logging.getLogger(__name__)

_FILES_PAUSE_S = 1.0
_MOST_BATCHES = 30
"""Batches that may wait for a disk that hangs; beyond, books and tickers of new ones are given up and declared."""


class Sidecar:
    """All parts of one process, not running.

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

    @property
    def is_written(self) -> bool:
        """Whether the disk has taken every batch."""
        return self._batches == 0 and not self.writer.problem

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

    async def keep_files(self) -> None:
        """Write captures and quarantined frames once a second."""
        while True:
            await asyncio.sleep(_FILES_PAUSE_S)
            await self.write_files()

    async def write_files(self) -> None:
        """Write captures and quarantined frames; after that everything handed to the disk before is written too."""
        at_ns = self.clock.now_ns()
        try:
            aside = self.quarantine.take()
            await self.disk.submit(lambda: self.quarantine.write(aside))
            if self.capture is not None:
                capture, lines = self.capture, self.capture.take()
                await self.disk.submit(lambda: capture.write(lines, at_ns))
        except OSError as error:
            log.error("capture or quarantine cannot be written: %s", error)  # noqa: TRY400 - the line says it all


def _log_refusal(session: Session, problem: str) -> None:
    log.warning("%s (%s) refused a request: %s", session.plan.exchange, session.plan.route, problem)
