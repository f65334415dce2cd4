"""What is missing, and since when: the ledger of gaps.

What belongs here: opening, closing and declaring gaps. A gap opens when a topic stops being known and closes with
the first event after which it is known again; every gap that was ever open ends as rows of the ``gaps`` dataset.
Losing data is allowed only if it is declared here.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from msgspec import Struct

from mts_realtime.events import Subscription


class GapReason(StrEnum):
    """Why data is missing. The reasons of ``BookError`` are members too."""

    STARTING = "starting"
    PROCESS_KILLED = "process_killed"
    PROCESS_STOPPED = "process_stopped"
    DISCONNECTED = "disconnected"
    SILENCE = "silence"
    SEQUENCE_GAP = "sequence_gap"
    CROSSED_BOOK = "crossed_book"
    SNAPSHOT_STALE = "snapshot_stale"
    OVERLOAD = "overload"
    DISK_FULL = "disk_full"
    DISK_ERROR = "disk_error"
    UNKNOWN_SYMBOL = "unknown_symbol"


class Covered(Struct, frozen=True):
    """What a gap is about: one topic, and the datasets that it feeds."""

    exchange: str
    symbol: str
    topic: str
    feeds: tuple[str, ...]

    @classmethod
    def by(cls, subscription: Subscription) -> Covered:
        """What is missing while this subscription delivers nothing."""
        instrument = subscription.instrument
        return cls(instrument.exchange, instrument.symbol, subscription.topic, subscription.feeds)


class Gap(Struct, frozen=True):
    """A stretch of time without data of one dataset, ``[start_ns, end_ns)``."""

    dataset: str
    exchange: str
    symbol: str
    topic: str
    start_ns: int
    end_ns: int
    reason: str


class OpenGap(Struct, frozen=True):
    """A gap that has not ended yet."""

    covered: Covered
    start_ns: int
    reason: str


class GapLedger:
    """All open gaps; what is declared goes to ``declare``."""

    def __init__(self, declare: Callable[[Gap], None]) -> None:
        self._declare = declare
        self._open: dict[tuple[str, str], OpenGap] = {}
        self.declared: dict[str, int] = {}

    def open(self, covered: Covered, start_ns: int, reason: str) -> None:
        """Note that nothing is known from here on. While a gap is open its first start and reason stay."""
        self._open.setdefault((covered.exchange, covered.topic), OpenGap(covered, start_ns, reason))

    def close(self, covered: Covered, end_ns: int) -> None:
        """The topic is known again; nothing happens when no gap is open."""
        gap = self._open.pop((covered.exchange, covered.topic), None)
        if gap is not None:
            self.add(gap.covered, gap.start_ns, end_ns, gap.reason)

    def add(self, covered: Covered, start_ns: int, end_ns: int, reason: str) -> None:
        """Declare a gap that is over already."""
        if end_ns <= start_ns:
            return
        for dataset in covered.feeds:
            self._declare(Gap(dataset, covered.exchange, covered.symbol, covered.topic, start_ns, end_ns, reason))
        self.declared[reason] = self.declared.get(reason, 0) + 1

    def roll(self, now_ns: int) -> None:
        """Declare every open gap up to now and let it go on from here, so that no gap is invisible for long."""
        for key, gap in self._open.items():
            self.add(gap.covered, gap.start_ns, now_ns, gap.reason)
            if now_ns > gap.start_ns:
                self._open[key] = OpenGap(gap.covered, now_ns, gap.reason)

    def still_open(self) -> list[OpenGap]:
        """Gaps that have not ended, oldest first."""
        return sorted(self._open.values(), key=lambda gap: (gap.start_ns, gap.covered.exchange, gap.covered.topic))

    def is_open(self, covered: Covered) -> bool:
        """Whether the topic is missing right now."""
        return (covered.exchange, covered.topic) in self._open
