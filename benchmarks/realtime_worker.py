"""The sidecar under measurement: a process of its own that runs, measures itself, and prints one JSON line.

What belongs here: starting the product unchanged, waiting until its books are live, and reading clocks, counters
and memory. It is started by ``realtime_bench.py``; settings come from the environment.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import time

from mts_realtime.runner import stream
from mts_realtime.settings import load_settings
from mts_realtime.sidecar import Sidecar
from mts_realtime.topics import BookTopic

_SAMPLE_EVERY = 7


class Probe:
    """Watches a running sidecar."""

    def __init__(self) -> None:
        self.sidecar: Sidecar | None = None
        self.applied_lag_ms: list[float] = []
        self._seen = 0

    def started(self, sidecar: Sidecar) -> None:
        """Note every few applied updates' distance from the moment they were sent."""
        self.sidecar = sidecar
        pipeline, now_ns = sidecar.pipeline, sidecar.clock.now_ns
        inner = pipeline.book_changed

        def book_changed(topic: BookTopic, received_ns: int) -> None:
            inner(topic, received_ns)
            self._seen += 1
            if not self._seen % _SAMPLE_EVERY:
                self.applied_lag_ms.append(now_ns() / 1e6 - topic.book.exchange_time_ms)

        pipeline.book_changed = book_changed  # type: ignore[method-assign]

    async def ready(self, within_s: float) -> bool:
        """Whether all books became live in time."""
        deadline = time.perf_counter() + within_s
        while time.perf_counter() < deadline:
            await asyncio.sleep(0.1)
            if self.sidecar is None or not self.sidecar.pipeline.active:
                continue
            books = [topic for topic in self.sidecar.pipeline.active.values() if isinstance(topic, BookTopic)]
            if books and all(topic.live for topic in books):
                return True
        return False

    async def measure(self, seconds: float) -> dict[str, float]:
        """Rates, cost, lag and memory over some seconds."""
        sidecar = self.sidecar
        assert sidecar is not None
        pipeline = sidecar.pipeline
        self.applied_lag_ms.clear()
        frames, wall_s, cpu_s = pipeline.counters.frames, time.perf_counter(), time.process_time()
        dropped = sidecar.inbox.conflated + sidecar.inbox.shed
        await asyncio.sleep(seconds)
        frames = pipeline.counters.frames - frames
        wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
        lags = sorted(self.applied_lag_ms) or [float("nan")]
        return {
            "frames_per_s": frames / wall_s,
            "cpu_share": cpu_s / wall_s,
            "cpu_us_per_frame": cpu_s / max(frames, 1) * 1e6,
            "frames_per_cpu_s": frames / cpu_s,
            "lag_p50_ms": lags[len(lags) // 2],
            "lag_p99_ms": lags[int(len(lags) * 0.99)],
            "dropped_frames": sidecar.inbox.conflated + sidecar.inbox.shed - dropped,
            "resyncs": pipeline.counters.resyncs,
            "books": sum(isinstance(topic, BookTopic) for topic in pipeline.active.values()),
            "rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }


async def main() -> None:
    """Run and measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--settle", type=float, default=3.0, help="seconds between the first live moment and measuring")
    parser.add_argument("--books-only", action="store_true", help="stop at the book: write no segments")
    parser.add_argument("--serve", action="store_true", help="offer the feed; its port is printed first")
    options = parser.parse_args()
    probe, stop = Probe(), asyncio.Event()

    async def observe() -> None:
        try:
            if not await probe.ready(60.0):
                print(json.dumps({"error": "books did not become live"}), flush=True)
                return
            if options.serve and probe.sidecar is not None and probe.sidecar.feed is not None:
                print(json.dumps({"port": probe.sidecar.feed.port}), flush=True)
            await asyncio.sleep(options.settle)
            print(json.dumps(await probe.measure(options.seconds)), flush=True)
        finally:
            stop.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(observe())
        group.create_task(
            stream(
                load_settings(),
                monitor_only=options.books_only,
                serve=options.serve,
                stop=stop,
                on_started=probe.started,
            )
        )


if __name__ == "__main__":
    asyncio.run(main())
