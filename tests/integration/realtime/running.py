"""A sidecar that runs in the test's process, and what must hold for everything that it landed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from mts_realtime.analytics.signals import Signal
from mts_realtime.landing import list_segments, read_segments
from mts_realtime.metrics import SidecarCollector
from mts_realtime.settings import RealtimeSettings
from mts_realtime.sidecar import Sidecar
from tests.integration.realtime.venue import Venue

Row = dict[str, Any]
Start = Callable[..., contextlib.AbstractAsyncContextManager["Running"]]


class Running:
    """A sidecar that runs in this process."""

    def __init__(self, settings: RealtimeSettings) -> None:
        self.settings = settings
        self.stop = asyncio.Event()
        self.sidecar: Sidecar | None = None
        self.signals: list[Signal] = []
        self.exit_code: int | None = None

    @property
    def side(self) -> Sidecar:
        assert self.sidecar is not None
        return self.sidecar

    @property
    def port(self) -> int:
        """Port of the feed, 0 before it is there."""
        return 0 if self.side.feed is None else self.side.feed.port

    def live(self, exchange: str = "") -> bool:
        """Whether all topics (of an exchange) are known."""
        topics = [topic for (name, _), topic in self.side.pipeline.active.items() if exchange in ("", name)]
        expected = 10 if not exchange else 6 if exchange == "binance" else 4
        return len(topics) == expected and all(topic.live for topic in topics)

    async def until(self, condition: Callable[[], Any], within_s: float = 10.0) -> None:
        """Wait for a condition; fail when it does not come true."""
        async with asyncio.timeout(within_s):
            while self.sidecar is None or not condition():  # noqa: ASYNC110 - no event tells of conditions of any kind
                await asyncio.sleep(0.005)

    def rows(self, dataset: str) -> list[Row]:
        landing = self.settings.landing_dir
        return read_segments(list_segments(landing, dataset), dataset).to_pylist()  # type: ignore[no-any-return]

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels."""
        return sum(
            sample.value
            for family in SidecarCollector(self.side).collect()
            for sample in family.samples
            if sample.name == f"mts_realtime_{name}" and labels.items() <= sample.labels.items()
        )


def as_us(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000 + 0.5)


def assert_faithful(rows: list[Row], venue: Venue) -> None:
    """Every landed book is the true book of its sequence number: sorted, uncrossed, positive."""
    assert rows
    for row in rows:
        bids, asks = venue.books[row["exchange"], row["symbol"]].states[row["sequence_id"]]
        assert list(zip(row["bid_prices"], row["bid_sizes"], strict=True)) == bids[:20]
        assert list(zip(row["ask_prices"], row["ask_sizes"], strict=True)) == asks[:20]
        assert row["bid_prices"][0] < row["ask_prices"][0]


def assert_covered(running: Running, dataset: str, exchange: str, symbol: str) -> None:
    """From the first to the last known moment every grid time is a row or inside a gap."""
    rows = {
        as_us(row["timestamp"])
        for row in running.rows(dataset)
        if (row["exchange"], row["symbol"]) == (exchange, symbol)
    }
    gaps = [
        (as_us(gap["gap_start"]), as_us(gap["gap_end"]))
        for gap in running.rows("gaps")
        if (gap["dataset"], gap["exchange"], gap["symbol"]) == (dataset, exchange, symbol)
    ]
    step = round(running.settings.sample_interval_s * 1_000_000)
    first, last = min([*rows, *(start for start, _ in gaps)]), max([*rows, *(end for _, end in gaps)])
    missing = [
        datetime.fromtimestamp(grid / 1e6, UTC).isoformat()
        for grid in range((first // step + 1) * step, last, step)
        if grid not in rows and not any(begin <= grid <= end for begin, end in gaps)
    ]
    assert missing == []
